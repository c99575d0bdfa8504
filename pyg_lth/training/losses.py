"""Training losses."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyg_lth import strategies
from pyg_lth.config import TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.training import fused
from pyg_lth.training.sampling import Layout, Parts

# Sums over the workers of a table that is split by columns, as :meth:`Workers.total` does.
Total = Callable[..., tuple[Tensor, ...]]


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


def distilled(scores: Tensor, taught: Tensor, share: float) -> Tensor:
    r"""Cross-entropy of a softmax over some items with what is known and what a teacher says.

    .. math::
        -\frac{1}{B} \sum_{b,j} \left((1 - λ) [j = 0] + λ q_{bj}\right) \ln p_{bj},
        \qquad p_{bj} = \frac{e^{s_{bj}}}{\sum_k e^{s_{bk}}},
        \quad q_{bj} = \frac{e^{t_{bj}}}{\sum_k e^{t_{bk}}}

    The first of each user's items is one that they took. From `"Distilling the Knowledge in a
    Neural Network" <https://arxiv.org/abs/1503.02531>`_, at the temperature that the scores have.

    Args:
        scores: Scores :math:`s`, divided by the temperature, shape ``[..., n]``.
        taught: Those that the teacher gives, :math:`t`, in the same shape.
        share: Of the teacher, :math:`λ`.

    Returns:
        The loss, a scalar; with a share of 0 it is :func:`sampled_softmax`, and :func:`bpr` for
        one negative each.
    """
    target = taught.softmax(dim=-1) * share
    target[..., 0] += 1 - share
    return (scores.logsumexp(dim=-1) - (target * scores).sum(dim=-1)).mean()


def softmax(
    user: Tensor,
    item: Tensor,
    item_index: Tensor,
    temperature: float,
    item_degree: Tensor | None = None,
    total: Total | None = None,
) -> Tensor:
    r"""Softmax over the batch's items, each user's own against those of the other users.

    .. math::
        -\frac{1}{B} \sum_b \ln \frac{e^{\cos(u_b, i_b) / τ}}{\sum_{c} e^{\cos(u_b, i_c) / τ}}

    where :math:`c` leaves out accidental hits: other places of the batch that hold the very item
    :math:`i_b`. The reference's ``nce`` normalises both sides likewise, but sums over the batch
    where this is the mean.

    A batch holds an item as often as it is popular, so the popular are pushed away more often. The
    correction of `"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"
    <https://doi.org/10.1145/3298689.3346996>`_ takes the logarithm of its popularity from the
    score of each item, which makes it a softmax over all items again.

    Args:
        user: Propagated embeddings of the users, shape ``[B, dim]``.
        item: Propagated embeddings of an item of each, shape ``[B, dim]``.
        item_index: Which items those are, int64, shape ``[B]``.
        temperature: Divides the cosines, :math:`τ`.
        item_degree: Train interactions of each item, shape ``[num_items]``, to correct for them.
        total: Sums over workers, where the embeddings are some of the columns.

    Returns:
        The loss, a scalar.
    """
    logits = _cosines(user, item, temperature, total)
    if item_degree is not None:
        logits = logits - item_degree[item_index].to(logits.dtype).log()
    hit = item_index.unsqueeze(1) == item_index
    logits = logits.masked_fill(hit.fill_diagonal_(False), float("-inf"))
    return F.cross_entropy(logits, torch.arange(item_index.numel(), device=logits.device))


def sampled_softmax(
    user: Tensor,
    positive: Tensor,
    shared: Tensor,
    temperature: float,
    total: Total | None = None,
    teacher: tuple[Tensor, Tensor, Tensor] | None = None,
    share: float = 0.0,
) -> Tensor:
    r"""Softmax over each user's item and negatives that the whole batch shares.

    .. math::
        -\frac{1}{B} \sum_b \ln \frac{e^{\cos(u_b, i_b) / τ}}
        {e^{\cos(u_b, i_b) / τ} + \sum_{j=1}^m e^{\cos(u_b, s_j) / τ}}

    Scores against shared negatives are one matrix product, where negatives of each positive need a
    gather for each pair. Sampled softmax with cosines is from `"On the Effectiveness of Sampled
    Softmax Loss for Item Recommendation" <https://arxiv.org/abs/2201.02327>`_.

    Args:
        user: Propagated embeddings of the users, shape ``[B, dim]``.
        positive: Propagated embeddings of an item of each, shape ``[B, dim]``.
        shared: Propagated embeddings of the negatives, shape ``[m, dim]``.
        temperature: Divides the cosines, :math:`τ`.
        total: Sums over workers, where the embeddings are some of the columns.
        teacher: Embeddings of a teacher in the same shapes, see :func:`distilled`.
        share: Of the teacher.

    Returns:
        The loss, a scalar.
    """
    logits = _own_first(*_own_and_others(user, positive, shared, temperature, total))
    if teacher is None:
        return (logits.logsumexp(dim=1) - logits[:, 0]).mean()
    taught = _own_first(*_own_and_others(*teacher, temperature, total))
    return distilled(logits, taught, share)


def ccl(
    user: Tensor,
    positive: Tensor,
    shared: Tensor,
    margin: float,
    weight: float,
    total: Total | None = None,
) -> Tensor:
    r"""Cosine contrastive loss, against negatives that the whole batch shares.

    .. math::
        \frac{1}{B} \sum_b \left(1 - \cos(u_b, i_b)
        + \frac{w}{m} \sum_{j=1}^m \max(0, \cos(u_b, s_j) - γ)\right)

    Negatives below the margin :math:`γ` are left alone. From `"SimpleX: A Simple and Strong
    Baseline for Collaborative Filtering" <https://arxiv.org/abs/2109.12613>`_, which draws
    negatives for each positive.

    Args:
        user: Propagated embeddings of the users, shape ``[B, dim]``.
        positive: Propagated embeddings of an item of each, shape ``[B, dim]``.
        shared: Propagated embeddings of the negatives, shape ``[m, dim]``.
        margin: The cosine from which a negative counts, :math:`γ`.
        weight: Of the negatives, :math:`w`.
        total: Sums over workers, where the embeddings are some of the columns.

    Returns:
        The loss, a scalar.
    """
    own, others = _own_and_others(user, positive, shared, 1.0, total)
    return (1 - own).mean() + weight * F.relu(others - margin).mean()


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows to length one; one of zeros (all of it pruned) stays, and its gradient finite.

    ``F.normalize`` gives such a row a gradient of :math:`10^{12}`. Lengths are summed in float64,
    so that a ticket's reader, which sums in another order, comes to the same rows.
    """
    units: Tensor = _UnitRows.apply(rows)  # type: ignore[no-untyped-call]
    return units


class _UnitRows(torch.autograd.Function):
    """Rows of length one, whose gradient is nought where nothing but the length can change.

    Autograd would leave what rounding makes of it to a row with one living entry, and Adam takes
    steps as large for that as for any other gradient.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
        length = length.to(rows.dtype)
        length = length.where(length > 0, 1)
        units: Tensor = rows / length
        ctx.save_for_backward(units, length)
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (gradient,), (units, length) = grad_outputs, ctx.saved_tensors
        along = (gradient * units).sum(dim=1, keepdim=True)
        return gradient.addcmul(units, along, value=-1).div_(length)


def _cosines(user: Tensor, item: Tensor, temperature: float, total: Total | None) -> Tensor:
    """Of each user with each item, divided by the temperature, shape ``[B, m]``."""
    if total is None:
        return (unit_rows(user) / temperature) @ unit_rows(item).t()
    product, *squares = total(user @ item.t(), _squares(user), _squares(item))
    of_user, of_item = map(_lengths, squares)
    return product / (of_user.unsqueeze(1) * of_item * temperature)


def _own_and_others(
    user: Tensor, positive: Tensor, shared: Tensor, temperature: float, total: Total | None
) -> tuple[Tensor, Tensor]:
    """Cosines of each user with an item of their own, ``[B]``, and with shared ones, ``[B, m]``."""
    if total is None:
        user = unit_rows(user) / temperature
        return (user * unit_rows(positive)).sum(dim=1), user @ unit_rows(shared).t()
    # The lengths come with the products, so that every worker knows the gradient of its part.
    own, others, *squares = total(
        (user * positive).sum(dim=1), user @ shared.t(), *map(_squares, (user, positive, shared))
    )
    of_user, of_positive, of_shared = map(_lengths, squares)
    of_user = of_user * temperature
    return own / (of_user * of_positive), others / (of_user.unsqueeze(1) * of_shared)


def _own_first(own: Tensor, others: Tensor) -> Tensor:
    """Scores of ``[B]`` and of ``[B, m]`` side by side, ``[B, 1 + m]``."""
    return torch.cat([own.unsqueeze(1), others], dim=1)


def _squares(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1)


def _lengths(squares: Tensor) -> Tensor:
    """The lengths of rows; 1 for one of zeros, whose gradient so stays finite."""
    return squares.where(squares > 0, 1).sqrt()


def l2(ego: Parts) -> Tensor:
    r"""The reference's L2 term, :math:`\frac{1}{2B}(\|θ_u\|^2 + \|θ_i\|^2 + \|θ_j\|^2)`.

    Several negatives are averaged, as the losses average them, so that a weight of the term means
    the same for any number of them, be they a positive's own or shared. PyG's
    ``recommendation_loss`` differs: it has no factor of a half.

    Args:
        ego: Unpropagated embeddings of a batch.

    Returns:
        The term, a scalar, to be weighted by the caller.
    """
    total = ego.user.square().sum() + ego.positive.square().sum()
    if ego.negative.numel():
        total = total + ego.negative.square().sum() / ego.negative.size(0)
    if ego.shared.numel():
        total = total + ego.shared.square().sum(dim=1).mean() * ego.user.size(0)
    return total / (2 * ego.user.size(0))


class OfBatch(Protocol):
    """How a loss reads a batch."""

    def __call__(
        self, out: Parts, batch: Parts, config: TrainConfig, item_degree: Tensor
    ) -> Tensor:
        """Return the loss, a scalar.

        One that is ``by_columns`` takes ``total`` beside these: where ``out`` has only some of the
        columns, it sums over the workers that have the others. One that ``distills`` takes
        ``taught``, which has the teacher's embeddings as ``out`` has those that learn, and
        ``share``, the teacher's.

        Args:
            out: Propagated embeddings of a batch.
            batch: The ids that they are of, items counted from 0.
            config: The settings.
            item_degree: Train interactions of each item, shape ``[num_items]``, int64.
        """


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss that a training can take.

    Args:
        of_batch: Reads a batch.
        draws: Which negatives it needs drawn: ``own`` ones for each positive, ``shared`` ones for
            the batch, or none.
        by_columns: Whether ``of_batch`` takes ``total``, so that the table may be split by columns
            over workers.
        distills: Whether ``of_batch`` takes ``taught`` and ``share``, so that tickets may learn
            from the dense round.

    Example:
        >>> from pyg_lth.training.losses import LOSSES
        >>> LOSSES["sampled-softmax"].draws
        'shared'
    """

    of_batch: OfBatch
    draws: Literal["own", "shared"] | None = None
    by_columns: bool = False
    distills: bool = False

    def layout(self, config: TrainConfig) -> Layout:
        """What a batch holds for this loss.

        Raises:
            InputError: If the settings draw shared negatives in a way, and it draws none.
        """
        if config.negatives_by != "item" and self.draws != "shared":
            able = ", ".join(name for name in LOSSES if LOSSES[name].draws == "shared")
            raise InputError(
                f"`negatives_by={config.negatives_by}` says how negatives of a whole batch are "
                f"drawn, and `loss={config.loss}` has none: leave it out, or take {able}"
            )
        own, shared = (config.negatives if self.draws == kind else 0 for kind in ("own", "shared"))
        return Layout(config.batch_size, own, shared)


def _bpr(
    out: Parts,
    batch: Parts,
    config: TrainConfig,
    item_degree: Tensor,
    total: Total | None = None,
    taught: Parts | None = None,
    share: float = 0.0,
) -> Tensor:
    scores = _products(out) if taught is None else (*_products(out), *_products(taught))
    if total is not None:
        scores = total(*scores)
    if taught is None:
        return bpr(*scores)
    return distilled(_pairs(*scores[:2]), _pairs(*scores[2:]), share)


def _products(rows: Parts) -> tuple[Tensor, ...]:
    """Scores of each user's positive, ``[B]``, and of the negatives, ``[n, B]``."""
    return (rows.user * rows.positive).sum(dim=1), (rows.user * rows.negative).sum(dim=2)


def _pairs(positive: Tensor, negative: Tensor) -> Tensor:
    """Each negative's score beside that of its positive, shape ``[n, B, 2]``."""
    return torch.stack([positive.expand_as(negative), negative], dim=-1)


def _softmax(
    out: Parts, batch: Parts, config: TrainConfig, item_degree: Tensor, total: Total | None = None
) -> Tensor:
    return softmax(out.user, out.positive, batch.positive, config.temperature, None, total)


def _corrected(
    out: Parts, batch: Parts, config: TrainConfig, item_degree: Tensor, total: Total | None = None
) -> Tensor:
    return softmax(out.user, out.positive, batch.positive, config.temperature, item_degree, total)


def _sampled(
    out: Parts,
    batch: Parts,
    config: TrainConfig,
    item_degree: Tensor,
    total: Total | None = None,
    taught: Parts | None = None,
    share: float = 0.0,
) -> Tensor:
    rows, temperature = (out.user, out.positive, out.shared), config.temperature
    teacher = None if taught is None else (taught.user, taught.positive, taught.shared)
    if total is None and fused.applies(out.user):
        return fused.sampled_softmax(*rows, temperature, teacher, share)
    return sampled_softmax(*rows, temperature, total, teacher, share)


def _ccl(
    out: Parts, batch: Parts, config: TrainConfig, item_degree: Tensor, total: Total | None = None
) -> Tensor:
    rows, settings = (out.user, out.positive, out.shared), (config.margin, config.negative_weight)
    if total is None and fused.applies(out.user):
        return fused.ccl(*rows, *settings)
    return ccl(*rows, *settings, total)


LOSSES: strategies.Registry[Loss] = strategies.LOSSES
LOSSES.extend(
    __name__,
    {
        "bpr": Loss(_bpr, draws="own", by_columns=True, distills=True),
        "softmax": Loss(_softmax, by_columns=True),
        "corrected-softmax": Loss(_corrected, by_columns=True),
        "sampled-softmax": Loss(_sampled, draws="shared", by_columns=True, distills=True),
        "ccl": Loss(_ccl, draws="shared", by_columns=True),
    },
)


def register_loss(name: str, loss: Loss, **defaults: Any) -> None:
    """Add a training loss, which ``loss`` then names in the settings.

    Args:
        name: Lower-case letters and digits, words joined by hyphens.
        loss: The strategy.
        **defaults: Settings whose defaults follow from it.

    Raises:
        ValueError: If the name is malformed or taken.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.training.losses import LOSSES
        >>> pyg_lth.register_loss("bpr-without-l2", LOSSES["bpr"], reg=0.0)
        >>> pyg_lth.TrainConfig(loss="bpr-without-l2").reg
        0.0
    """
    LOSSES.register(name, loss, strategies.calling_module(), defaults)
