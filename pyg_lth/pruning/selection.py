"""The exact selection: exactly as many survivors as the budget says."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_lth.errors import InputError
from pyg_lth.pruning.masks import Budget, Mask

# Entries of a table looked at in one go, so that pruning needs little memory beside the table.
ENTRIES_AT_ONCE = 1 << 20


def prune(scores: Tensor, mask: Mask, budgets: Sequence[Budget]) -> Mask:
    """Keep the highest scores of the living entries, exactly as many as each budget says.

    Of equal scores the one of lower index is dropped first, so runs repeat.

    Args:
        scores: Shape ``[num_nodes, dim]``, compared in single precision.
        mask: The living entries.
        budgets: Disjoint blocks of rows; rows in no block stay as they are.

    Raises:
        InputError: If a score is not finite, or a budget asks for more entries than live.
    """
    if not all(
        bool(chunk.isfinite().all()) for chunk in torch.split(scores.flatten(), ENTRIES_AT_ONCE)
    ):
        raise InputError(
            "the trained embeddings are not finite, so they cannot be ranked: the training "
            "diverged; lower `lr`"
        )
    table = mask.table.clone()
    for budget in budgets:
        keep = _keep_highest_of_each_row if budget.each_row else _keep_highest
        keep(scores[budget.rows], table[budget.rows], budget.keep)
    return Mask(table)


def _keep_highest(scores: Tensor, alive: Tensor, keep: int) -> None:
    """Let only the ``keep`` highest-scored of the entries in ``alive`` live, in place."""
    drop = int(alive.count_nonzero()) - keep
    if drop < 0:
        raise InputError(f"{keep} entries cannot be kept where {keep + drop} live")
    if drop == 0:
        return
    chunks = list(
        zip(
            torch.split(scores.float().flatten(), ENTRIES_AT_ONCE),
            torch.split(alive.view(-1), ENTRIES_AT_ONCE),
            strict=True,
        )
    )
    threshold, rest = _threshold(chunks, drop)
    for score, live in chunks:
        tied = (live & (score == threshold)).nonzero().view(-1)
        live &= score >= threshold
        live[tied[:rest]] = False
        rest = max(0, rest - tied.numel())


def _threshold(chunks: list[tuple[Tensor, Tensor]], drop: int) -> tuple[Tensor, int]:
    """Find the ``drop``-th lowest living score, and how many equal to it are among the lowest.

    Takes two passes over the scores instead of a copy: count the living by the upper half of their
    bits, then rank those that share it with the threshold.
    """
    counts = chunks[0][0].new_zeros(1 << 16, dtype=torch.long)
    for score, live in chunks:
        # An entry that does not live is counted as a zero, and taken off again.
        counts += torch.bincount(_upper_bits(score * live), minlength=counts.numel())
        counts[_upper_bits(score.new_zeros(1))] -= live.numel() - live.count_nonzero()
    below = counts.cumsum(0)
    bucket = int(torch.searchsorted(below, drop))
    rest = drop - int(below[bucket] - counts[bucket])
    # Laid out beforehand: small pieces kept between large ones that are freed scatter the memory.
    candidates = chunks[0][0].new_empty(int(counts[bucket]))
    filled = 0
    for score, live in chunks:
        found = score[live & (_upper_bits(score) == bucket)]
        candidates[filled : filled + found.numel()] = found
        filled += found.numel()
    threshold = candidates.kthvalue(rest).values
    return threshold, rest - int((candidates < threshold).sum())


def _upper_bits(score: Tensor) -> Tensor:
    """The upper sixteen bits of each float, as a number from 0 that rises with it."""
    # Adding zero makes one of the two zeros; the sign makes the bits below it count backwards.
    bits = (score + 0.0).view(torch.int32) >> 16
    return bits.bitwise_xor_((bits >> 31) & 0x7FFF).add_(1 << 15)


def _keep_highest_of_each_row(scores: Tensor, alive: Tensor, keep: int) -> None:
    num_rows, dim = scores.shape
    row_keep = torch.full((num_rows, 1), keep // num_rows, device=scores.device)
    row_keep[: keep % num_rows] += 1
    if bool((alive.sum(dim=1, keepdim=True) < row_keep).any()):
        raise InputError(f"{keep} entries cannot be kept evenly: a row has too few living ones")
    order = scores.masked_fill(~alive, -torch.inf).argsort(dim=1, stable=True)
    column = torch.arange(dim, device=scores.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, column)
    alive &= rank >= dim - row_keep
