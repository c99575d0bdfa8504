"""Losses against shared negatives with their gradients, no score kept longer than its block.

Autograd would keep every score, and go through all of them several times on the way there and back.
The gradient of a mean is known as soon as the scores are, so here both are computed at once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyg_lth import kernels

# Users whose scores against all shared negatives are at work at once, so that these stay in the
# cache from one matrix product to the next.
USERS_AT_ONCE = 512

# Takes the scores of some users against the shared negatives and against an item of their own, and
# which users they are. Replaces the first by the derivatives of the sum of losses by them; returns
# the losses, and their derivatives by the second.
OfScores = Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]


def applies(rows: Tensor) -> bool:
    """Whether the losses here can take embeddings of that type, where they are."""
    return rows.dtype == torch.float and kernels.usable(rows.device)


def sampled_softmax(
    user: Tensor,
    positive: Tensor,
    shared: Tensor,
    temperature: float,
    teacher: tuple[Tensor, Tensor, Tensor] | None = None,
    share: float = 0.0,
) -> Tensor:
    r"""Softmax over each user's item and negatives that the whole batch shares.

    .. math::
        -\frac{1}{B} \sum_b \ln \frac{e^{\cos(u_b, i_b) / τ}}
        {e^{\cos(u_b, i_b) / τ} + \sum_{j=1}^m e^{\cos(u_b, s_j) / τ}}

    Args:
        user: Embeddings of the users, shape ``[B, dim]``, float.
        positive: Embeddings of an item of each, shape ``[B, dim]``, float.
        shared: Embeddings of the negatives, shape ``[m, dim]``, float.
        temperature: Divides the cosines, :math:`τ`.
        teacher: Embeddings of a teacher in the same shapes, see
            :func:`~pyg_lth.training.losses.distilled`.
        share: Of the teacher.

    Returns:
        The loss, a scalar that can be differentiated once.
    """

    def of_known(others: Tensor, own: Tensor, users: slice) -> tuple[Tensor, Tensor]:
        loss, slope = torch.empty(2, own.numel())
        kernels.call("softmax_rows", others, *others.shape, own, loss, slope)
        return loss, slope

    if teacher is None:
        return _apply(user, positive, shared, temperature, of_known)
    by_teacher, right, wrong = (_unit_rows(rows.detach())[0] for rows in teacher)
    by_teacher = by_teacher / temperature
    taught_own = (by_teacher * right).sum(dim=1)

    def of_scores(others: Tensor, own: Tensor, users: slice) -> tuple[Tensor, Tensor]:
        target = by_teacher[users] @ wrong.t()
        # The teacher's probabilities now, and of the user's own item what it lacks of one.
        _, lacking = of_known(target, taught_own[users], users)
        expected = (target * others).sum(dim=1) + (1 + lacking) * own
        loss, slope = of_known(others, own, users)
        others.sub_(target, alpha=share)
        return loss + share * (own - expected), slope - share * lacking

    return _apply(user, positive, shared, temperature, of_scores)


def ccl(user: Tensor, positive: Tensor, shared: Tensor, margin: float, weight: float) -> Tensor:
    r"""Cosine contrastive loss, against negatives that the whole batch shares.

    .. math::
        \frac{1}{B} \sum_b \left(1 - \cos(u_b, i_b)
        + \frac{w}{m} \sum_{j=1}^m \max(0, \cos(u_b, s_j) - γ)\right)

    Args:
        user: Embeddings of the users, shape ``[B, dim]``, float.
        positive: Embeddings of an item of each, shape ``[B, dim]``, float.
        shared: Embeddings of the negatives, shape ``[m, dim]``, float.
        margin: The cosine from which a negative counts, :math:`γ`.
        weight: Of the negatives, :math:`w`.

    Returns:
        The loss, a scalar that can be differentiated once.
    """
    share = weight / shared.size(0)

    def of_scores(others: Tensor, own: Tensor, users: slice) -> tuple[Tensor, Tensor]:
        loss = 1 - own + share * others.sub_(margin).relu_().sum(dim=1)
        others.sign_().mul_(share)
        return loss, own.new_full(own.shape, -1.0)

    return _apply(user, positive, shared, 1.0, of_scores)


def _apply(*arguments: Any) -> Tensor:
    loss: Tensor = _SharedNegatives.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


class _SharedNegatives(torch.autograd.Function):
    """The mean of a loss over scores, which are cosines divided by a temperature."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        positive: Tensor,
        shared: Tensor,
        temperature: float,
        of_scores: OfScores,
    ) -> Tensor:
        units = [_unit_rows(rows) for rows in (user, positive, shared)]
        (user, _), (positive, _), (shared, _) = units
        user = user / temperature
        own, total = (user * positive).sum(dim=1), user.new_zeros(())
        slope, of_user = torch.empty_like(own), torch.empty_like(user)
        of_shared = shared.new_zeros(shared.t().shape)
        scores = user.new_empty(min(user.size(0), USERS_AT_ONCE), shared.size(0))
        for first in range(0, user.size(0), USERS_AT_ONCE):
            block = slice(first, first + USERS_AT_ONCE)
            part = torch.mm(user[block], shared.t(), out=scores[: own[block].numel()])
            losses, slope[block] = of_scores(part, own[block], block)
            total += losses.sum()
            torch.mm(part, shared, out=of_user[block])
            # This way round the product is quicker by a third.
            of_shared.addmm_(user[block].t(), part)
        slope = slope.unsqueeze(1)
        of_user.addcmul_(positive, slope).div_(temperature)
        gradients = (of_user, user * slope, of_shared.t().contiguous())
        ctx.save_for_backward(
            *(through_length(g, *unit) for g, unit in zip(gradients, units, strict=True))
        )
        ctx.size = own.numel()
        loss: Tensor = total / ctx.size
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        share = grad_outputs[0] / ctx.size
        return (*(gradient * share for gradient in ctx.saved_tensors), None, None)


def _unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length one, those of zeros left as they are, and what they were divided by."""
    length = rows.norm(dim=1, keepdim=True)
    length.masked_fill_(length == 0, 1)
    return rows / length, length


def through_length(gradient: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """The gradient by rows from that by the unit rows, which it overwrites.

    Args:
        gradient: By the unit rows, shape ``[n, dim]``.
        unit: Rows of length one, those of zeros left as they are, shape ``[n, dim]``.
        length: What the rows were divided by, shape ``[n, 1]``.
    """
    along = (gradient * unit).sum(dim=1, keepdim=True)
    gradient.addcmul_(unit, along, value=-1).div_(length)
    return gradient
