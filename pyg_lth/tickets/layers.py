"""LightGCN's propagation with numpy alone: ego embeddings and graph to what is multiplied."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyg_lth.tickets import native
from pyg_lth.tickets.lists import ItemLists, smallest_type

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# Every column propagates alone; a few at a time stay in the cache.
_COLUMNS_AT_ONCE = 32

# Rows whose lengths are summed at once.
_ROWS_AT_ONCE = 4096


def propagate(ego: Floats, train: ItemLists, layer_weights: Sequence[float]) -> Floats:
    r"""Compute :math:`\sum_l \alpha_l \hat{A}^l x` with :math:`\hat{A} = D^{-1/2} A D^{-1/2}`.

    As :meth:`pyg_lth.nn.propagation.Propagation.combine_layers`, to rounding.

    Args:
        ego: Embeddings of users then items, shape ``[users + items, dim]``.
        train: The graph.
        layer_weights: :math:`\alpha`, one more than there are layers.
    """
    rowptr, column = _joint_graph(train)
    degree = np.diff(rowptr)
    scale = np.zeros(degree.size, np.float32)
    scale[degree > 0] = 1 / np.sqrt(degree[degree > 0].astype(np.float32))
    weight = np.repeat(scale, degree) * scale[column]
    multiply = native.product if native.library() else _product
    weights = np.array(layer_weights, np.float32)
    final = np.empty_like(ego)
    for begin in range(0, ego.shape[1], _COLUMNS_AT_ONCE):
        x = np.ascontiguousarray(ego[:, begin : begin + _COLUMNS_AT_ONCE])
        out = x * weights[-1]
        for alpha in weights[-2::-1]:
            out = multiply(rowptr, column, weight, out)
            out += x * alpha
        final[:, begin : begin + _COLUMNS_AT_ONCE] = out
    return final


def unit_rows(rows: Floats) -> Floats:
    """Scale rows to length one, as :func:`pyg_lth.training.losses.unit_rows`; zeros stay."""
    length = np.empty((len(rows), 1), np.float32)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[begin : begin + _ROWS_AT_ONCE].astype(np.float64)
        length[begin : begin + _ROWS_AT_ONCE, 0] = np.sqrt(np.einsum("nd,nd->n", block, block))
    length[length == 0] = 1
    return np.divide(rows, length, dtype=np.float32)


def _joint_graph(train: ItemLists) -> tuple[Integers, Integers]:
    """Both directions of the graph over users then items, in CSR form."""
    num_users = train.num_users
    rowptr, item = train.of_users(slice(None))
    user = np.repeat(np.arange(num_users), np.diff(rowptr))
    # Of a narrow type, integers are sorted by their digits, which takes a quarter of the time.
    order = np.argsort(item.astype(smallest_type(train.num_items)), kind="stable")
    ends = rowptr[-1] + np.cumsum(np.bincount(item, minlength=train.num_items))
    return np.concatenate([rowptr, ends]), np.concatenate([item + num_users, user[order]])


def _product(rowptr: Integers, column: Integers, weight: Floats, x: Floats) -> Floats:
    """Add the first neighbour of all nodes, then the second of those that have one, and so on."""
    degree = np.diff(rowptr)
    order = np.argsort(-degree, kind="stable")
    out = np.zeros_like(x)
    # Rows are summed in order of their degree, so that those still going stand first.
    begin, left = rowptr[:-1][order], degree[order]
    going = np.searchsorted(-left, -np.arange(int(left.max(initial=0))), side="left")
    for place, number in enumerate(going.tolist()):
        edge = begin[:number] + place
        out[:number] += weight[edge, None] * x[column[edge]]
    result = np.empty_like(out)
    result[order] = out
    return result
