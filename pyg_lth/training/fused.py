"""Losses against shared negatives with their gradients, in one kernel.

Autograd would go through all scores several times on the way there and back. The gradient of a mean
is known as soon as the scores are, so here both are computed at once, block by block of users.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyg_lth import kernels

# As the kernel lays out what it works on: users in a block, blocks whose scores are kept at once,
# and the floats of a register.
USERS_AT_ONCE, BLOCKS_AT_ONCE, LANES = 48, 43, 16


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
    return _apply(user, positive, shared, 1 / temperature, teacher, float(share), 0, 0.0, 0.0)


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
    return _apply(user, positive, shared, 1.0, None, 0.0, 1, float(margin), float(weight))


def _apply(*arguments: Any) -> Tensor:
    loss: Tensor = _SharedNegatives.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


class _SharedNegatives(torch.autograd.Function):
    """The mean loss of the users, whose gradients a kernel gives with it."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        positive: Tensor,
        shared: Tensor,
        scale: float,
        teacher: tuple[Tensor, Tensor, Tensor] | None,
        *settings: float,
    ) -> Tensor:
        rows = _laid_out(user, positive, shared)
        taught = _NO_TEACHER if teacher is None else _laid_out(*teacher)
        (size, dim), negatives = user.shape, shared.size(0)
        loss, of_user = torch.empty(size), torch.empty(size, -(-dim // LANES), LANES)
        of_positive, of_shared = torch.empty(size, dim), torch.empty(negatives, dim)
        kernels.call(
            "shared_negatives",
            *(size, negatives, scale, *rows, *taught, *settings),
            *(
                loss,
                of_user,
                of_positive,
                torch.empty(-(-negatives // LANES), dim, LANES),
                of_shared,
            ),
        )
        ctx.save_for_backward(of_user.view(size, -1)[:, :dim], of_positive, of_shared)
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        share = grad_outputs[0] / ctx.saved_tensors[0].size(0)
        gradients = (gradient * share for gradient in ctx.saved_tensors)
        return (*gradients, None, None, None, None, None, None)


_NO_TEACHER = [*[None] * 3, 0, *[None] * 4]


def _laid_out(user: Tensor, positive: Tensor, shared: Tensor) -> list[Tensor | int]:
    """Rows, how many columns they have, and the room to lay them and their scores out."""
    (size, dim), panels = user.shape, -(-shared.size(0) // LANES)
    blocks = min(-(-size // USERS_AT_ONCE), BLOCKS_AT_ONCE)
    return [
        *(rows.contiguous() for rows in (user, positive, shared)),
        dim,
        torch.empty(size, dim),
        torch.empty(panels, dim, LANES),
        torch.empty(panels, LANES, -(-dim // LANES), LANES),
        torch.empty(blocks, panels, USERS_AT_ONCE, LANES),
    ]
