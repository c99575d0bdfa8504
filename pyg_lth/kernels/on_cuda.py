"""The kernels in Triton, for CUDA; without it torch does what they would.

They add up in a fixed order and use no atomic operation, so that they give the same bits each time.
Sums are in float32. Whoever imports this needs Triton, which comes with torch's builds for CUDA.
"""

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

# Edges whose rows a program fetches at once.
EDGES_AT_ONCE = 16

# Edges of a row that one program adds up. A longer row is split, so that none is waited for long.
EDGES_OF_A_PROGRAM = 512

# What a row is added to its sum: rows, which of them (the row's own unless given), what they are
# multiplied with for each row (nothing unless given), and a number on the device.
Added = tuple[Tensor, Tensor | None, Tensor | None, Tensor]


@triton.jit  # type: ignore[untyped-decorator]
def _finish(total, row, i, scale, added, place, share, weight, out, dim, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Scale the sum of a row, add some rows' share to it, and write it down."""
    column = tl.arange(0, BLOCK)
    inside = column < dim
    total *= tl.load(scale + row)
    if added is not None:
        where = row
        if place is not None:
            where = tl.load(place + row).to(tl.int64)
        factor = tl.load(weight)
        if share is not None:
            factor *= tl.load(share + row)
        there = column < tl.where(where >= 0, dim, 0)
        total += factor * tl.load(added + where * dim + column, there, 0.0)
    tl.store(out + i * dim + column, total, inside)


@triton.jit  # type: ignore[untyped-decorator]
def _gather(  # type: ignore[no-untyped-def]
    rows,
    rowptr,
    col,
    source,
    slot,
    scale,
    added,
    place,
    share,
    weight,
    out,
    dim,
    SPLIT: tl.constexpr,
    BY_ROW: tl.constexpr,
    OF_A_PROGRAM: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the rows of ``source`` that stand at the other ends of a row's edges, or of some."""
    i = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + i).to(tl.int64)
    if row < 0:
        return
    column = tl.arange(0, BLOCK)
    first = tl.load(rowptr + row) + tl.program_id(1) * OF_A_PROGRAM
    last = tl.load(rowptr + row + 1)
    if SPLIT:
        last = tl.minimum(last, first + OF_A_PROGRAM)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        there = edge < last
        index = tl.load(col + edge, there, 0).to(tl.int64)
        if slot is not None:
            index = tl.load(slot + index, there, -1).to(tl.int64)
            there &= index >= 0
        entry = source + index[:, None] * dim + column[None, :]
        total += tl.sum(tl.load(entry, there[:, None] & (column < dim)[None, :], 0.0), 0)
    if SPLIT:
        part = i * tl.num_programs(1) + tl.program_id(1)
        tl.store(out + part * dim + column, total, column < dim)
    else:
        at = row if BY_ROW else i
        _finish(total, row, at, scale, added, place, share, weight, out, dim, BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def _add_parts(  # type: ignore[no-untyped-def]
    rows,
    rowptr,
    parts,
    scale,
    added,
    place,
    share,
    weight,
    out,
    dim,
    most,
    BY_ROW: tl.constexpr,
    OF_A_PROGRAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the parts of a row that was split, in their order."""
    i = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + i).to(tl.int64)
    if row < 0:
        return
    column = tl.arange(0, BLOCK)
    degree = tl.load(rowptr + row + 1) - tl.load(rowptr + row)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(0, tl.cdiv(degree, OF_A_PROGRAM)):
        total += tl.load(parts + (i * most + part) * dim + column, column < dim, 0.0)
    at = row if BY_ROW else i
    _finish(total, row, at, scale, added, place, share, weight, out, dim, BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def _add_up(rows, order, begin, out, dim, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add up the rows from one place in an order to the next."""
    i = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for place in range(tl.load(begin + i), tl.load(begin + i + 1)):
        row = tl.load(order + place)
        total += tl.load(rows + row * dim + column, column < dim, 0.0)
    tl.store(out + i * dim + column, total, column < dim)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A graph as the kernels read it.

    Args:
        rowptr: Where the edges of each row begin, int64, shape ``[N + 1]``.
        col: Their other ends, int32, shape ``[E]``.
        short: Rows that one program adds up, int64.
        long: Rows that are split, int64.
        most: Parts of the longest row.
    """

    rowptr: Tensor
    col: Tensor
    short: Tensor
    long: Tensor
    most: int

    @classmethod
    def of(cls, rowptr: Tensor, col: Tensor) -> "Layout":
        """Lay out a graph in CSR form; waits for the device."""
        degree = rowptr.diff()
        split = degree > EDGES_OF_A_PROGRAM
        most = -(-int(degree.max()) // EDGES_OF_A_PROGRAM) if degree.numel() else 0
        short, long = ((~split).nonzero().view(-1), split.nonzero().view(-1))
        return cls(rowptr, col.int(), short, long, most)


def gather(
    layout: Layout,
    source: Tensor,
    scale: Tensor,
    added: Added,
    rows: Tensor | None = None,
    slot: Tensor | None = None,
) -> Tensor:
    """Add up the rows of a table at the other ends of each node's edges.

    Args:
        layout: The graph.
        source: The table, float32, shape ``[N, dim]``; with ``slot`` some of its rows.
        scale: What each node's sum is multiplied with, float32, shape ``[N]``.
        added: What is added to it then.
        rows: The nodes whose sums are wanted, int64, all unless given; -1 for none.
        slot: Where a node's row is in ``source``, int32, shape ``[N]``; -1 where it is zero.

    Returns:
        Float32, shape ``[N, dim]``, or ``[n, dim]`` for ``rows``, with anything where these are -1.

    Raises:
        TypeError: If a table is not of float32 and contiguous.
    """
    extra, place, share, weight = added
    for table in (source, extra):
        if table.dtype != torch.float or not table.is_contiguous():
            raise TypeError(f"a table has to be contiguous float32, not {table.dtype}")
    dim = source.size(1)
    block = triton.next_power_of_2(dim)
    count = layout.rowptr.numel() - 1 if rows is None else rows.numel()
    out = source.new_empty(count, dim)
    by_row = {"BY_ROW": rows is None, "OF_A_PROGRAM": EDGES_OF_A_PROGRAM, "BLOCK": block}
    graph, epilogue = (layout.rowptr, layout.col), (scale, extra, place, share, weight)

    def sums(which: Tensor, most: int) -> None:
        if not which.numel():
            return
        split = most > 1
        parts = source.new_empty(which.numel() * most, dim) if split else out
        _gather[(which.numel(), most)](
            *(which, *graph, source, slot, *epilogue, parts, dim),
            SPLIT=split,
            EDGES=EDGES_AT_ONCE,
            num_warps=1,
            **by_row,
        )
        if split:
            _add_parts[(which.numel(),)](
                *(which, layout.rowptr, parts, *epilogue, out, dim, most), num_warps=1, **by_row
            )

    if rows is None:
        sums(layout.short, 1)
        sums(layout.long, layout.most)
    else:
        sums(rows, max(1, layout.most))
    return out


def add_up(rows: Tensor, order: Tensor, begin: Tensor) -> Tensor:
    """Add up the rows of each group, in their order.

    Args:
        rows: Float32, shape ``[n, dim]``.
        order: The rows group by group, int64, shape ``[n]``.
        begin: Where each group begins, int64, shape ``[groups + 1]``.

    Returns:
        Shape ``[groups, dim]``; zeros for a group without rows.
    """
    out = rows.new_empty(begin.numel() - 1, rows.size(1))
    if out.numel():
        block = triton.next_power_of_2(rows.size(1))
        grid = (out.size(0),)
        _add_up[grid](rows.contiguous(), order, begin, out, rows.size(1), BLOCK=block, num_warps=1)
    return out
