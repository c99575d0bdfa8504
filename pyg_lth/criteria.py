"""What to prune: a score for every entry, and exactly as many survivors as the budget says."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyg_lth.errors import InputError
from pyg_lth.masks import Budget, Mask

Criterion = Callable[[Tensor, torch.Generator], Tensor]


def magnitude(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Score an entry by its absolute value (paper, Section 3.2).

    Args:
        weight: Trained embeddings, shape ``[num_nodes, dim]``.
        generator: Not used.
    """
    return weight.abs()


def random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Score every entry by chance: the control that a ticket has to beat.

    Args:
        weight: Embeddings; only the shape ``[num_nodes, dim]`` is used.
        generator: Source of the scores, on the CPU.
    """
    return torch.rand(weight.shape, generator=generator)


def prune(scores: Tensor, mask: Mask, budgets: Sequence[Budget]) -> Mask:
    """Keep the highest scores of the living entries, exactly as many as each budget says.

    Of equal scores the one of lower index is dropped first, so runs repeat.

    Args:
        scores: Float, shape ``[num_nodes, dim]``.
        mask: The living entries.
        budgets: Disjoint blocks of rows; rows in no block stay as they are.

    Raises:
        InputError: If a score is not finite, or a budget asks for more entries than live.
    """
    if not bool(scores.isfinite().all()):
        raise InputError(
            "the trained embeddings are not finite, so they cannot be ranked: the training "
            "diverged; lower --lr"
        )
    table = mask.table.clone()
    for budget in budgets:
        select = _highest_of_each_row if budget.each_row else _highest
        table[budget.rows] = select(scores[budget.rows], table[budget.rows], budget.keep)
    return Mask(table)


def _highest(scores: Tensor, alive: Tensor, keep: int) -> Tensor:
    living = scores[alive]
    drop = living.numel() - keep
    if drop < 0:
        raise InputError(f"{keep} entries cannot be kept where {living.numel()} live")
    if drop == 0:
        return alive
    threshold = living.kthvalue(drop).values
    dropped = living < threshold
    ties = (living == threshold).nonzero().view(-1)
    dropped[ties[: drop - int(dropped.sum())]] = True
    out = alive.clone()
    out[alive] = ~dropped
    return out


def _highest_of_each_row(scores: Tensor, alive: Tensor, keep: int) -> Tensor:
    num_rows, dim = scores.shape
    row_keep = torch.full((num_rows, 1), keep // num_rows)
    row_keep[: keep % num_rows] += 1
    if bool((alive.sum(dim=1, keepdim=True) < row_keep).any()):
        raise InputError(f"{keep} entries cannot be kept evenly: a row has too few living ones")
    order = scores.masked_fill(~alive, -torch.inf).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(dim).expand_as(order))
    return rank >= dim - row_keep
