"""The kernels in Triton, for CUDA; without it torch does what they would.

They add up in a fixed order and use no atomic operation, so that they give the same bits each time.
Sums are in float32, also those of rows in bfloat16. Whoever imports this needs Triton, which comes
with torch's builds for CUDA.
"""

import dataclasses
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyg_lth.kernels.streams import Beside

# Edges whose other ends are fetched at once, of each row that a warp adds up side by side.
EDGES_AT_ONCE = 4

# Columns that a warp adds up side by side: of one wide row, or of several.
COLUMNS_AT_ONCE = 128

# Edges of a row that one program adds up. A longer row is split, so that none is waited for long.
EDGES_OF_A_PROGRAM = 256

# The same where some rows are listed, each of which has as many programs as the longest of all rows
# would need.
EDGES_OF_A_LISTED = 512

# Sorted nodes that are looked at together.
NODES_AT_ONCE = 8192

# What a row is added to its sum: rows, which of them (the row's own unless given), what they are
# multiplied with for each row (nothing unless given), and a number on the device.
Added = tuple[Tensor, Tensor | None, Tensor | None, Tensor]


class Adam(NamedTuple):
    """A table that is to take a step of Adam, all on the device.

    Args:
        table: What is trained, float32, shape ``[N, dim]``; changed in place.
        mean: First moment of the gradient, of the same shape; changed in place.
        square: Second moment, likewise.
        living: 1 for entries that get a gradient, 0 for the others, of the same shape.
        rate: The learning rate, one float32.
        corrections: What to divide the moments by for this step, float64, shape ``[2]``.
        betas: How fast the moments decay.
        epsilon: Added to the root of the second.
    """

    table: Tensor
    mean: Tensor
    square: Tensor
    living: Tensor
    rate: Tensor
    corrections: Tensor
    betas: tuple[float, float]
    epsilon: float


@triton.jit  # type: ignore[untyped-decorator]
def _finish(  # type: ignore[no-untyped-def]
    total,
    row,
    i,
    scale,
    added,
    place,
    share,
    weight,
    out,
    mean,
    square,
    living,
    rate,
    corrections,
    dim,
    BETA_1: tl.constexpr,
    BETA_2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scale the sums of rows, add some rows' share to them, and write them down; none for -1.

    With moments given, they are the gradient of rows of ``out``, which take a step of Adam instead.
    """
    column = tl.arange(0, BLOCK)[None, :]
    there = row >= 0
    inside = there[:, None] & (column < dim)
    total *= tl.load(scale + row, there, 0.0)[:, None]
    if added is not None:
        where = row
        if place is not None:
            where = tl.load(place + row, there, -1).to(tl.int64)
        factor = tl.load(weight)
        if share is not None:
            factor *= tl.load(share + row, there, 0.0)[:, None]
        other = added + where[:, None] * dim + column
        total += factor * tl.load(other, (where >= 0)[:, None] & inside, 0.0)
    entry = i[:, None] * dim + column
    if mean is not None:
        total *= tl.load(living + entry, inside, 0.0)
        first = tl.load(mean + entry, inside, 0.0)
        first += (total - first) * (1 - BETA_1)
        second = tl.load(square + entry, inside, 0.0) * BETA_2 + total * total * (1 - BETA_2)
        tl.store(mean + entry, first, inside)
        tl.store(square + entry, second, inside)
        size = tl.load(rate) / tl.load(corrections).to(tl.float32)
        root = tl.sqrt(tl.load(corrections + 1).to(tl.float32))
        total = tl.load(out + entry, inside, 0.0)
        total -= size * first / (tl.sqrt(second) / root + EPSILON)
    tl.store(out + entry, total, inside)


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
    mean,
    square,
    living,
    rate,
    corrections,
    dim,
    count,
    SPLIT: tl.constexpr,
    BY_ROW: tl.constexpr,
    OF_A_PROGRAM: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BETA_1: tl.constexpr,
    BETA_2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the rows of ``source`` at the other ends of the edges of some rows, or of a part."""
    i = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row = tl.load(rows + i, i < count, -1).to(tl.int64)
    first = tl.load(rowptr + row, row >= 0, 0) + tl.program_id(1) * OF_A_PROGRAM
    last = tl.load(rowptr + row + 1, row >= 0, 0)
    if SPLIT:
        last = tl.minimum(last, first + OF_A_PROGRAM)
    most = tl.max(last - first, 0)
    # The part that a row has no edges for is not read.
    if SPLIT and most <= 0:
        return
    column = tl.arange(0, BLOCK)
    tile = tl.zeros((ROWS, EDGES, BLOCK), tl.float32)
    for start in range(0, most, EDGES):
        edge = first[:, None] + start + tl.arange(0, EDGES)[None, :]
        there = edge < last[:, None]
        index = tl.load(col + edge, there, 0).to(tl.int64)
        if slot is not None:
            index = tl.load(slot + index, there, -1).to(tl.int64)
            there &= index >= 0
        entry = source + index[:, :, None] * dim + column[None, None, :]
        found = tl.load(entry, there[:, :, None] & (column < dim)[None, None, :], 0.0)
        tile += found.to(tl.float32)
    total = tl.sum(tile, 1)
    if SPLIT:
        part = i * tl.num_programs(1) + tl.program_id(1)
        tl.store(out + part[:, None] * dim + column[None, :], total, (column < dim)[None, :])
    else:
        at = row if BY_ROW else i
        _finish(
            *(total, row, at, scale, added, place, share, weight, out),
            *(mean, square, living, rate, corrections, dim, BETA_1, BETA_2, EPSILON, BLOCK),
        )


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
    mean,
    square,
    living,
    rate,
    corrections,
    dim,
    most,
    BY_ROW: tl.constexpr,
    OF_A_PROGRAM: tl.constexpr,
    BETA_1: tl.constexpr,
    BETA_2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the parts of a row that was split, in their order."""
    i = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    row = tl.load(rows + i).to(tl.int64)
    column = tl.arange(0, BLOCK)[None, :]
    degree = tl.load(rowptr + row + 1, row >= 0, 0) - tl.load(rowptr + row, row >= 0, 0)
    total = tl.zeros((1, BLOCK), tl.float32)
    for part in range(0, tl.cdiv(tl.max(degree, 0), OF_A_PROGRAM)):
        total += tl.load(parts + (i[:, None] * most + part) * dim + column, column < dim, 0.0)
    at = row if BY_ROW else i
    _finish(
        *(total, row, at, scale, added, place, share, weight, out),
        *(mean, square, living, rate, corrections, dim, BETA_1, BETA_2, EPSILON, BLOCK),
    )


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


@triton.jit  # type: ignore[untyped-decorator]
def _group(  # type: ignore[no-untyped-def]
    nodes, order, listed, place, begin, count, BLOCK: tl.constexpr
):
    """List the distinct ones of sorted nodes, and where each begins; all in one program."""
    groups = 0
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        there = i < count
        node = tl.load(nodes + i, there, -1)
        first = there & (node != tl.load(nodes + i - 1, there & (i > 0), -1))
        group = groups + tl.cumsum(first.to(tl.int32)) - 1
        groups += tl.sum(first.to(tl.int32))
        tl.store(place + tl.load(order + i, there, 0), group, there)
        tl.store(listed + group, node, first)
        tl.store(begin + group, i, first)
    for start in range(0, count + 1, BLOCK):
        i = start + tl.arange(0, BLOCK)
        tl.store(listed + i, -1, (i >= groups) & (i < count))
        tl.store(begin + i, count, (i >= groups) & (i <= count))


@triton.jit  # type: ignore[untyped-decorator]
def _bpr(  # type: ignore[no-untyped-def]
    nodes,
    place,
    rows,
    table,
    loss,
    of_rows,
    of_table,
    size,
    negatives,
    reg,
    dim,
    BLOCK: tl.constexpr,
):
    """Take a positive with its negatives: its part of the loss, and the gradients by its rows."""
    b = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    user = tl.load(rows + tl.load(place + b) * dim + column, inside, 0.0)
    item = tl.load(rows + tl.load(place + size + b) * dim + column, inside, 0.0)
    own = tl.sum(user * item, 0)
    pairs = tl.cast(size * negatives, tl.float32)
    of_user = tl.zeros((BLOCK,), tl.float32)
    pull = 0.0
    lost = 0.0
    for part in range(2, 2 + negatives):
        at = part * size + b
        other = tl.load(rows + tl.load(place + at) * dim + column, inside, 0.0)
        ahead = tl.sum(user * other, 0) - own
        lost += (tl.maximum(ahead, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(ahead)))) / pairs
        slope = 1.0 / (1.0 + tl.exp(-ahead)) / pairs
        pull += slope
        of_user += slope * (other - item)
        tl.store(of_rows + at * dim + column, slope * user, inside)
    tl.store(of_rows + b * dim + column, of_user, inside)
    tl.store(of_rows + (size + b) * dim + column, -pull * user, inside)
    for part in range(0, 2 + negatives):
        at = part * size + b
        share = reg / size
        if part >= 2:
            share = reg / pairs
        ego = tl.load(table + tl.load(nodes + at) * dim + column, inside, 0.0)
        lost += 0.5 * share * tl.sum(ego * ego, 0)
        tl.store(of_table + at * dim + column, share * ego, inside)
    tl.store(loss + b, lost)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A graph as the kernels read it.

    Args:
        rowptr: Where the edges of each row begin, int64, shape ``[N + 1]``.
        col: Their other ends, int32, shape ``[E]``.
        short: Rows that are not split, the longest first so that programs have like ones, int64.
        long: Rows that are split, int64.
        longest: Edges of the longest row.
        beside: Where the long rows are added up, since they would not fill a GPU.
    """

    rowptr: Tensor
    col: Tensor
    short: Tensor
    long: Tensor
    longest: int
    beside: Beside

    @classmethod
    def of(cls, rowptr: Tensor, col: Tensor) -> "Layout":
        """Lay out a graph in CSR form; waits for the device."""
        degree = rowptr.diff()
        split = degree > EDGES_OF_A_PROGRAM
        order = degree.argsort(descending=True, stable=True)
        long, short = order.tensor_split([int(split.sum())])
        longest = int(degree[order[:1]].sum())
        return cls(rowptr, col.int(), short, long, longest, Beside(col.device))


def gather(
    layout: Layout,
    source: Tensor,
    scale: Tensor,
    added: Added,
    rows: Tensor | None = None,
    slot: Tensor | None = None,
    dtype: torch.dtype = torch.float,
    adam: Adam | None = None,
) -> Tensor:
    """Add up the rows of a table at the other ends of each node's edges.

    Args:
        layout: The graph.
        source: The table, float32 or bfloat16, shape ``[N, dim]``; with ``slot`` some of its rows.
        scale: What each node's sum is multiplied with, float32, shape ``[N]``.
        added: What is added to it then.
        rows: The nodes whose sums are wanted, int64, all unless given; -1 for none.
        slot: Where a node's row is in ``source``, int32, shape ``[N]``; -1 where it is zero.
        dtype: What the sums are rounded to.
        adam: The table of which the sums are the gradient, and which takes a step with it at once;
            with all rows.

    Returns:
        Of that type, shape ``[N, dim]``, or ``[n, dim]`` for ``rows``, with anything where these
        are -1; with ``adam`` its table.

    Raises:
        TypeError: If a table is not of float32 and contiguous.
    """
    extra, place, share, weight = added
    tables = () if adam is None else (adam.table, adam.mean, adam.square, adam.living)
    for table in (extra, *tables):
        if table.dtype != torch.float or not table.is_contiguous():
            raise TypeError(f"a table has to be contiguous float32, not {table.dtype}")
    if source.dtype not in (torch.float, torch.bfloat16) or not source.is_contiguous():
        raise TypeError(f"rows are gathered from contiguous float32, not {source.dtype}")
    dim = source.size(1)
    block = triton.next_power_of_2(dim)
    count = layout.rowptr.numel() - 1 if rows is None else rows.numel()
    if adam is None:
        out = source.new_empty(count, dim, dtype=dtype)
        step: tuple[Tensor | None, ...] = (None,) * 5
        rule = {"BETA_1": 0.0, "BETA_2": 0.0, "EPSILON": 0.0}
    else:
        out, step = adam.table, (*adam[1:6],)
        rule = {"BETA_1": adam.betas[0], "BETA_2": adam.betas[1], "EPSILON": adam.epsilon}
    of = EDGES_OF_A_PROGRAM if rows is None else EDGES_OF_A_LISTED
    by_row = {"BY_ROW": rows is None, "OF_A_PROGRAM": of, "BLOCK": block, **rule}
    graph, epilogue = (layout.rowptr, layout.col), (scale, extra, place, share, weight)

    def sums(which: Tensor, longest: int) -> None:
        if not which.numel():
            return
        most = max(1, triton.cdiv(longest, of))
        split = most > 1
        parts = source.new_empty(which.numel() * most, dim, dtype=torch.float) if split else out
        side_by_side = max(1, COLUMNS_AT_ONCE // block)
        # A part of a row is alone in its warp, which fetches as many edges at once.
        at_once, edges = (1, side_by_side) if split else (side_by_side, 1)
        _gather[(triton.cdiv(which.numel(), at_once), most)](
            *(which, *graph, source, slot, *epilogue, parts, *step, dim, which.numel()),
            SPLIT=split,
            ROWS=at_once,
            EDGES=edges * EDGES_AT_ONCE,
            num_warps=1,
            **by_row,
        )
        if split:
            _add_parts[(which.numel(),)](
                *(which, layout.rowptr, parts, *epilogue, out, *step, dim, most),
                num_warps=1,
                **by_row,
            )

    if rows is None:
        with layout.beside() as meet:
            sums(layout.long, layout.longest)
        sums(layout.short, of)
        meet()
    else:
        sums(rows, layout.longest)
    return out


def distinct_nodes(nodes: Tensor) -> tuple[Tensor, ...]:
    """List the distinct nodes of a batch, without the host knowing how many there are.

    Args:
        nodes: Int64 below :math:`2^{31}`, shape ``[n]``.

    Returns:
        Int64, all but the last of shape ``[n]``: the distinct nodes, ascending, then -1; the place
        in that list of each node of the batch; the places of the batch, list entry by list entry;
        and where those of each entry begin, shape ``[n + 1]``, :math:`n` for those of -1.
    """
    # Of half the bits to sort by.
    ascending, order = nodes.int().sort(stable=True)
    listed, place = torch.empty_like(nodes), torch.empty_like(nodes)
    begin = nodes.new_empty(nodes.numel() + 1)
    size = (nodes.numel(), NODES_AT_ONCE)
    _group[(1,)](ascending, order, listed, place, begin, *size, num_warps=32)
    return listed, place, order, begin


def bpr(
    nodes: Tensor, place: Tensor, rows: Tensor, table: Tensor, reg: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the loss ``bpr`` with its L2 term, and its gradients.

    Args:
        nodes: Users, an item of each, then rows of negatives, int64, shape ``[2 + n, B]``.
        place: Where in ``rows`` the embedding of each is, int64, of the same shape.
        rows: Propagated embeddings, float32, shape ``[m, dim]``.
        table: Ego embeddings of all nodes, float32, shape ``[N, dim]``.
        reg: Weight of the L2 term.

    Returns:
        The loss, a scalar, and the gradients by the propagated and by the ego embedding of each
        node of the batch, shape ``[(2 + n) * B, dim]``.
    """
    (parts, size), dim = nodes.shape, table.size(1)
    loss = table.new_empty(size)
    of_rows, of_table = (table.new_empty(parts * size, dim) for _ in range(2))
    _bpr[(size,)](
        *(nodes, place, rows, table, loss, of_rows, of_table, size, parts - 2, reg, dim),
        BLOCK=triton.next_power_of_2(dim),
        num_warps=1,
    )
    return loss.sum(), of_rows, of_table


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
