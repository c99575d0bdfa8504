"""Training losses."""

import torch.nn.functional as F
from torch import Tensor


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Bayesian personalised ranking, :math:`-\frac{1}{B}\sum\ln\sigma(\hat{y}^+ - \hat{y}^-)`.

    From `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_, averaged over the batch.

    Args:
        positive: Scores of the positive pairs, shape ``[B]``.
        negative: Scores of the negative pairs, shape ``[B]``.

    Returns:
        The loss, a scalar.
    """
    return F.softplus(negative - positive).mean()


def l2(ego: Tensor, batch_size: int) -> Tensor:
    r"""The reference's L2 term, :math:`\frac{1}{2B}(\|θ_u\|^2 + \|θ_i\|^2 + \|θ_j\|^2)`.

    PyG's ``recommendation_loss`` differs: it has no factor of a half.

    Args:
        ego: Unpropagated embeddings of the batch's users, positives and negatives, in any shape.
        batch_size: Triplets in the batch, :math:`B`.

    Returns:
        The term, a scalar, to be weighted by the caller.
    """
    return ego.square().sum() / (2 * batch_size)
