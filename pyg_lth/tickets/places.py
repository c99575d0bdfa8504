"""Where the stored values of a table are: four forms, and which of them takes the fewest bytes."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pyg_lth.errors import InputError
from pyg_lth.tickets.container import malformed
from pyg_lth.tickets.quantization import STEPS, Values, stored_bytes

Form = Literal["dense", "first-columns", "bitmap", "columns"]
FORMS: tuple[Form, ...] = get_args(Form)

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

# A column fits into sixteen bits.
COLUMNS_AT_MOST = 1 << 16

# Rows looked at in one go; a multiple of eight, so that they begin with a byte of the bit map.
ROWS_AT_ONCE = 4096

_SCALE_BYTES = 2


def form_bytes(form: Form, counts: Integers, dim: int, width: int, kind: Values) -> int:
    """Bytes that a table takes in a form: places, values and scales.

    Args:
        form: The form.
        counts: Entries of each row.
        dim: Columns of the table.
        width: Columns from the first to the last that has an entry.
        kind: How values are stored.
    """
    rows, entries, filled = counts.size, int(counts.sum()), int(np.count_nonzero(counts))
    scale = _SCALE_BYTES if kind in STEPS else 0
    if form in ("dense", "first-columns"):
        stored = rows * (dim if form == "dense" else width)
        return stored_bytes(stored, kind) + scale * rows
    if form == "bitmap":
        places = -(-rows * dim // 8)
    else:
        places = rows * count_type(dim).itemsize + entries * column_type(dim).itemsize
    return places + stored_bytes(entries, kind) + scale * filled


def smallest_form(counts: Integers, dim: int, width: int, kind: Values) -> Form:
    """The form that takes the fewest bytes; of equal ones the simpler."""
    return min(FORMS, key=lambda form: form_bytes(form, counts, dim, width, kind))


def count_type(dim: int) -> np.dtype[Any]:
    """The type that counts the entries of a row."""
    return np.dtype("u1") if dim < 1 << 8 else np.dtype("<u2") if dim < 1 << 16 else np.dtype("<u4")


def column_type(dim: int) -> np.dtype[Any]:
    """The type that numbers columns."""
    return np.dtype("u1") if dim <= 1 << 8 else np.dtype("<u2")


def encode(places: npt.NDArray[np.bool_], form: Form) -> dict[str, Array]:
    """Turn the places of a form that has any into what is stored.

    Args:
        places: Where the entries are, shape ``[rows, dim]``.
        form: ``bitmap`` or ``columns``.
    """
    if form == "bitmap":
        return {"bits": np.packbits(places, bitorder="little")}
    dim = places.shape[1]
    counts = np.count_nonzero(places, axis=1).astype(count_type(dim))
    columns = np.empty(int(counts.sum(dtype=np.int64)), column_type(dim))
    place = 0
    for begin in range(0, len(places), ROWS_AT_ONCE):
        found = np.nonzero(places[begin : begin + ROWS_AT_ONCE])[1]
        columns[place : place + found.size] = found
        place += found.size
    return {"counts": counts, "columns": columns}


def row_counts(tensors: Mapping[str, Array], form: Form, rows: int, dim: int) -> Array:
    """How many entries each row has, by what is stored of a form that has places."""
    if form == "columns":
        return tensors["counts"]
    counts = np.empty(rows, count_type(dim))
    for begin in range(0, rows, ROWS_AT_ONCE):
        number = min(ROWS_AT_ONCE, rows - begin)
        bits = tensors["bits"][begin * dim // 8 : -(-(begin + number) * dim // 8)]
        found = np.unpackbits(bits, count=number * dim, bitorder="little")
        counts[begin : begin + number] = found.reshape(number, dim).sum(axis=1)
    return counts


def at_rows(bits: Array, rows: Integers, dim: int) -> npt.NDArray[np.bool_]:
    """Some rows of a bit map, shape ``[n, dim]``."""
    bit = rows[:, None] * dim + np.arange(dim)
    found: npt.NDArray[np.bool_] = (bits[bit >> 3] >> (bit & 7).astype(np.uint8)) & 1 == 1
    return found


def check(tensors: Mapping[str, Array], form: Form, rows: int, dim: int) -> None:
    """Refuse places that are too many, too few, out of range or out of order."""
    if form == "bitmap":
        bits = tensors["bits"]
        if bits.dtype != np.uint8 or bits.size != -(-rows * dim // 8):
            malformed(f"its bit map is not one of {rows:,} rows and {dim:,} columns")
        if rows * dim % 8 and bits[-1] >> (rows * dim % 8):
            malformed("its bit map has a bit behind its end")
        return
    counts, columns = tensors["counts"], tensors["columns"]
    if counts.dtype != count_type(dim) or counts.size != rows or columns.dtype != column_type(dim):
        malformed(f"its places are not those of {rows:,} rows and {dim:,} columns")
    if int(counts.sum(dtype=np.int64)) != columns.size:
        malformed("its counts do not add up to the number of its places")
    place = 0
    for begin in range(0, rows, ROWS_AT_ONCE):
        ends = np.cumsum(counts[begin : begin + ROWS_AT_ONCE], dtype=np.int64)
        block = columns[place : place + ends[-1]]
        if block.size and int(block.max()) >= dim:
            malformed(f"a place in it is outside its {dim:,} columns")
        ascends = block[1:] > block[:-1]
        # Where a row begins, nothing has to.
        between = ends[(ends > 0) & (ends < block.size)]
        ascends[between - 1] = True
        if not ascends.all():
            malformed("the places in a row of it do not ascend")
        place += block.size


def width_of(places: npt.NDArray[np.bool_]) -> int:
    """Columns from the first to the last that has an entry, at least one."""
    used = np.flatnonzero(places.any(axis=0))
    return int(used[-1]) + 1 if used.size else 1


def check_shape(rows: int, dim: int) -> None:
    """Refuse a table without a row or column, or with too many columns.

    Raises:
        InputError: If it is one.
    """
    if rows < 1 or not 1 <= dim <= COLUMNS_AT_MOST:
        raise InputError(
            f"a table of {rows:,} rows and {dim:,} columns cannot be stored: it takes a row and "
            f"between 1 and {COLUMNS_AT_MOST:,} columns"
        )
