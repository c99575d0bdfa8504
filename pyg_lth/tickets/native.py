"""The compiled kernels for numpy arrays: what answers when torch is not there can use them too.

:mod:`pyg_lth.kernels` calls the same kernels for torch tensors. Without a compiler there are none,
and :mod:`pyg_lth.tickets` does the same with numpy.
"""

import ctypes
import functools
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyg_lth.tickets.quantization import VALUES, Values

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# The kernels score so many items at once, and keep lists up to this length sorted by insertion.
_PANEL = 16
LONGEST_LIST = 256

# Edges between the one that a product adds and the one whose row it already fetches.
_AHEAD = 64


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, :obj:`None` where there are none."""
    # Not by the name of the module, or the package around it would import torch.
    folder = Path(__file__).parents[1] / "kernels"
    found = PathFinder.find_spec("compiled", [str(folder)])
    if found is None or found.origin is None:
        return None
    try:
        compiled = ctypes.CDLL(found.origin)
        for function in (compiled.rank_items, compiled.gather, compiled.take_rows):
            function.restype = None
    except (OSError, AttributeError):
        return None
    return compiled


def _call(name: str, *arguments: Array | int | None) -> None:
    def passed(value: Array | int | None) -> Any:
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous
            return ctypes.c_void_p(value.ctypes.data)
        return value if value is None else ctypes.c_int64(value)

    getattr(library(), name)(*map(passed, arguments))


def _single(norm: npt.NDArray[np.float64]) -> Floats:
    with np.errstate(over="ignore"):
        single: Floats = norm.astype(np.float32)
    return single


class Ranking:
    """Items laid out for the kernel that ranks them, longest first.

    Args:
        items: Embeddings, shape ``[m, dim]``, finite.
    """

    def __init__(self, items: Floats):
        self.num_items, self._dim = items.shape
        norm = _single(np.linalg.norm(items.astype(np.float64), axis=1))
        order = np.argsort(-norm, kind="stable")
        filler = -self.num_items % _PANEL
        padded = np.full((self.num_items + filler, self._dim), np.nan, np.float32)
        np.take(items, order, axis=0, out=padded[: self.num_items])
        panels = padded.reshape(-1, _PANEL, self._dim).transpose(0, 2, 1)
        self._panels = np.ascontiguousarray(panels)
        self._order = np.pad(order, (0, filler))
        self._norm = np.pad(norm[order], (0, filler))

    def __call__(
        self, users: Floats, seen: tuple[Integers, Integers], k: int
    ) -> tuple[Integers, Floats]:
        """Rank as :func:`pyg_lth.tickets.top_items.rank` does."""
        users = np.ascontiguousarray(users, np.float32)
        # The norms bound the scores; the little on top covers the rounding of both.
        norm = np.linalg.norm(users.astype(np.float64), axis=1)
        norm *= 1 + (self._dim + 4) * float(np.finfo(np.float32).eps)
        best = np.full((len(users), k), np.finfo(np.float32).min, np.float32)
        ranked = np.full((len(users), k), self.num_items, np.int64)
        rowptr, items = (np.ascontiguousarray(part, np.int64) for part in seen)
        _call(
            "rank_items",
            *(users, _single(norm), len(users)),
            *(self._panels, self._order, self._norm, len(self._panels), self._dim),
            *(rowptr, items, k, best, ranked),
        )
        return ranked, best


def take_rows(
    rows: Integers,
    offsets: Integers,
    columns: Array,
    values: Array,
    kind: Values,
    scales: Floats | None,
    dim: int,
) -> Floats:
    """Rows of a table that is stored as columns; all of them must be there.

    Args:
        rows: Which, shape ``[n]``.
        offsets: Where the entries of each row begin, shape ``[rows + 1]``.
        columns: The column of each entry, one or two bytes each.
        values: The code of each entry.
        kind: What the codes are.
        scales: Of each row, shape ``[rows]``, or :obj:`None`.
        dim: Columns of the table.
    """
    out = np.empty((rows.size, dim), np.float32)
    wide, code = int(columns.itemsize == 2), VALUES.index(kind)
    _call("take_rows", rows, rows.size, offsets, columns, wide, values, code, scales, dim, out)
    return out


def product(rowptr: Integers, column: Array, weight: Floats, x: Floats) -> Floats:
    """Multiply a square matrix in CSR form with ``x``, shape ``[n, dim]``."""
    padded = np.zeros(column.size + _AHEAD, np.int32)
    padded[: column.size] = column
    out = np.empty_like(x)
    _call(
        "gather", rowptr, padded, weight, None, len(x), np.ascontiguousarray(x), x.shape[1],
        _AHEAD, out,
    )  # fmt: skip
    return out
