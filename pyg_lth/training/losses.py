"""Training losses."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_lth.config import TrainConfig
from pyg_lth.registry import LOSSES


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Bayesian personalised ranking, :math:`-\frac{1}{Bn}\sum\ln\sigma(\hat{y}^+ - \hat{y}^-)`.

    From `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_, averaged over the batch and each positive's negatives.

    Args:
        positive: Scores of the positive pairs, shape ``[B]``.
        negative: Scores of the negative pairs, shape ``[n, B]``, or ``[B]`` for one negative each.

    Returns:
        The loss, a scalar.
    """
    return F.softplus(negative - positive).mean()


def softmax(user: Tensor, item: Tensor, item_index: Tensor, temperature: float) -> Tensor:
    r"""Softmax over the batch's items, each user's own against those of the other users.

    .. math::
        -\frac{1}{B} \sum_b \ln \frac{e^{\cos(u_b, i_b) / τ}}{\sum_{c} e^{\cos(u_b, i_c) / τ}}

    where :math:`c` leaves out accidental hits: other places of the batch that hold the very item
    :math:`i_b`. The reference's ``nce`` normalises both sides likewise, but sums over the batch
    where this is the mean.

    Args:
        user: Propagated embeddings of the users, shape ``[B, dim]``.
        item: Propagated embeddings of an item of each, shape ``[B, dim]``.
        item_index: Which items those are, int64, shape ``[B]``.
        temperature: Divides the cosines, :math:`τ`.

    Returns:
        The loss, a scalar.
    """
    logits = (_unit_rows(user) / temperature) @ _unit_rows(item).t()
    hit = item_index.unsqueeze(1) == item_index
    logits.masked_fill_(hit.fill_diagonal_(False), float("-inf"))
    return F.cross_entropy(logits, torch.arange(item_index.numel(), device=logits.device))


def _unit_rows(rows: Tensor) -> Tensor:
    """Scale rows to length one; one of zeros (all of it pruned) stays, and its gradient finite.

    ``F.normalize`` gives such a row a gradient of :math:`10^{12}`.
    """
    length = rows.norm(dim=1, keepdim=True)
    return rows.div(length.where(length > 0, 1))


def l2(ego: Tensor, batch_size: int, negatives: int = 1) -> Tensor:
    r"""The reference's L2 term, :math:`\frac{1}{2B}(\|θ_u\|^2 + \|θ_i\|^2 + \|θ_j\|^2)`.

    Several negatives are averaged, as :func:`bpr` averages them, so that a weight of the term means
    the same for any number of them. PyG's ``recommendation_loss`` differs: it has no factor of a
    half.

    Args:
        ego: Unpropagated embeddings of the batch's users, then positives, then negatives, shape
            ``[(2 + n) * B, dim]``; with at most one negative in any shape.
        batch_size: Positives in the batch, :math:`B`.
        negatives: Negatives of each positive, :math:`n`.

    Returns:
        The term, a scalar, to be weighted by the caller.
    """
    if negatives > 1:
        others, drawn = ego[: 2 * batch_size], ego[2 * batch_size :]
        return l2(others, batch_size) + l2(drawn, batch_size * negatives)
    return ego.square().sum() / (2 * batch_size)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss that a training can take.

    Args:
        of_batch: Takes propagated embeddings of a batch, shape ``[2 + n, B, dim]``, the batch that
            they are of (as :class:`~pyg_lth.training.sampling.TripletSampler` draws it), and the
            settings.
        draws_negatives: Whether it needs negatives of its own; otherwise :math:`n` is 0.

    Example:
        >>> from pyg_lth.training.losses import LOSSES
        >>> callable(LOSSES["bpr"].of_batch)
        True
    """

    of_batch: Callable[[Tensor, Tensor, TrainConfig], Tensor]
    draws_negatives: bool

    def negatives(self, config: TrainConfig) -> int:
        """Number of negatives to draw for each positive."""
        return config.negatives if self.draws_negatives else 0


def _bpr_of_batch(out: Tensor, batch: Tensor, config: TrainConfig) -> Tensor:
    user, positive, negative = torch.split(out, [1, 1, batch.size(0) - 2])
    return bpr((user * positive).sum(dim=2), (user * negative).sum(dim=2))


def _softmax_of_batch(out: Tensor, batch: Tensor, config: TrainConfig) -> Tensor:
    user, item = out
    return softmax(user, item, batch[1], config.temperature)


LOSSES.extend(
    __name__,
    {
        "bpr": Loss(_bpr_of_batch, draws_negatives=True),
        "softmax": Loss(_softmax_of_batch, draws_negatives=False),
    },
)
