"""The exact selection: exactly as many survivors as the budget says."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_lth.errors import InputError
from pyg_lth.pruning.masks import Budget, Mask
from pyg_lth.workers import ALONE, Workers

# Entries of a table looked at in one go, so that pruning needs little memory beside the table.
ENTRIES_AT_ONCE = 1 << 20

# Rows of a table whose columns several workers put together in one go.
ROWS_AT_ONCE = 1 << 16

# What half of the bits of a float can be.
HALF = 1 << 16


def prune(scores: Tensor, mask: Mask, budgets: Sequence[Budget], workers: Workers = ALONE) -> Mask:
    """Keep the highest scores of the living entries, exactly as many as each budget says.

    Of equal scores the one of lower index is dropped first, so runs repeat.

    Args:
        scores: Shape ``[num_nodes, dim]``, compared in single precision.
        mask: The living entries.
        budgets: Disjoint blocks of rows; rows in no block stay as they are.
        workers: Who has which columns of scores and mask. Together they find the mask that one
            would find of all columns.

    Raises:
        InputError: If a score is not finite, or a budget asks for more entries than live.
    """
    finite = all(
        bool(chunk.isfinite().all()) for chunk in torch.split(scores.flatten(), ENTRIES_AT_ONCE)
    )
    if int(workers.sum(torch.tensor(not finite).long())):
        raise InputError(
            "the trained embeddings are not finite, so they cannot be ranked: the training "
            "diverged; lower `lr`"
        )
    table = mask.table.clone()
    for budget in budgets:
        keep = _keep_highest_of_each_row if budget.each_row else _keep_highest
        keep(scores[budget.rows], table[budget.rows], budget.keep, workers)
    return Mask(table)


def _keep_highest(scores: Tensor, alive: Tensor, keep: int, workers: Workers) -> None:
    """Let only the ``keep`` highest-scored of the entries in ``alive`` live, in place."""
    drop = int(workers.sum(alive.count_nonzero())) - keep
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
    threshold, rest = _threshold(chunks, drop, workers)
    if workers.size > 1:
        rest = _own_ties(alive & (scores.float() == threshold), rest, workers)
    for score, live in chunks:
        tied = (live & (score == threshold)).nonzero().view(-1)
        live &= score >= threshold
        live[tied[:rest]] = False
        rest = max(0, rest - tied.numel())


def _threshold(
    chunks: list[tuple[Tensor, Tensor]], drop: int, workers: Workers
) -> tuple[Tensor, int]:
    """Find the ``drop``-th lowest living score, and how many equal to it are among the lowest.

    Takes two passes over the scores instead of a copy: count the living by the upper half of their
    bits, then those that share it with the threshold by the lower half. What workers count apart
    adds up exactly.
    """
    counts = chunks[0][0].new_zeros(HALF, dtype=torch.long)
    for score, live in chunks:
        # An entry that does not live is counted as a zero, and taken off again.
        counts += torch.bincount(_upper(_bits(score * live)), minlength=HALF)
        counts[_upper(_bits(score.new_zeros(1)))] -= live.numel() - live.count_nonzero()
    upper, drop = _place(workers.sum(counts), drop)
    counts = torch.zeros_like(counts)
    for score, live in chunks:
        bits = _bits(score)
        found = bits[live & (_upper(bits) == upper)]
        counts += torch.bincount(found & (HALF - 1), minlength=HALF)
    lower, drop = _place(workers.sum(counts), drop)
    return _score(upper, lower, counts), drop


def _place(counts: Tensor, number: int) -> tuple[int, int]:
    """Which group the ``number``-th belongs to, and the how manieth of it that is, from 1."""
    below = counts.cumsum(0)
    group = int(torch.searchsorted(below, number))
    return group, number - int(below[group] - counts[group])


def _bits(score: Tensor) -> Tensor:
    """The bits of each float, as an int32 that rises with it."""
    # Adding zero makes one of the two zeros; the sign makes the bits below it count backwards.
    return _turned((score + 0.0).view(torch.int32))


def _upper(bits: Tensor) -> Tensor:
    """The upper half of such bits, as a number from 0 that rises with them."""
    return (bits >> 16).add_(HALF // 2)


def _score(upper: int, lower: int, like: Tensor) -> Tensor:
    """The float whose bits have these halves."""
    bits = like.new_tensor([((upper - HALF // 2) << 16) + lower], dtype=torch.int32)
    return _turned(bits).view(torch.float)


def _turned(bits: Tensor) -> Tensor:
    """Turn the order of the negative ones round, in place; twice is back."""
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(2**31 - 1))


def _own_ties(tied: Tensor, rest: int, workers: Workers) -> int:
    """How many of this worker's tied entries are among the first ``rest`` of all workers'.

    Args:
        tied: Which entries in the columns of this worker are equal, shape ``[rows, width]``.
        rest: How many of them, row by row over all columns, are wanted; at least 1.
        workers: Who has which columns.
    """
    own = tied.sum(dim=1)
    row, rest = _place(workers.sum(own.clone()), rest)
    # In the row where they end they are counted column by column.
    places = workers.cat(tied[row].long()).cumsum(0) <= rest
    first = workers.share(places.numel()).start
    return int(own[:row].sum() + (tied[row] & places[first : first + tied.size(1)]).sum())


def _keep_highest_of_each_row(scores: Tensor, alive: Tensor, keep: int, workers: Workers) -> None:
    num_rows = scores.size(0)
    row_keep = torch.full((num_rows, 1), keep // num_rows, device=scores.device)
    row_keep[: keep % num_rows] += 1
    living = workers.sum(alive.sum(dim=1, keepdim=True))
    if bool((living < row_keep).any()):
        raise InputError(f"{keep} entries cannot be kept evenly: a row has too few living ones")
    # Rows need all their columns, so that of many workers each puts some rows together at a time.
    rows_at_once = num_rows if workers.size == 1 else ROWS_AT_ONCE
    for first in range(0, num_rows, rows_at_once):
        rows = slice(first, first + rows_at_once)
        order = scores[rows].masked_fill(~alive[rows], -torch.inf)
        order = workers.cat(order).argsort(dim=1, stable=True)
        column = torch.arange(order.size(1), device=scores.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, column)
        own = rank[:, workers.share(order.size(1))]
        alive[rows] &= own >= order.size(1) - row_keep[rows]
