"""An embedding table in as few bytes as its entries need; rows are read without the dense table."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyg_lth.errors import InputError
from pyg_lth.tickets import container, native, places, quantization
from pyg_lth.tickets.container import malformed
from pyg_lth.tickets.places import Form
from pyg_lth.tickets.quantization import Floats, Values

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

# What each form stores beside values and scales.
_PLACES: Mapping[Form, tuple[str, ...]] = {
    "dense": (),
    "first-columns": (),
    "bitmap": ("bits",),
    "columns": ("counts", "columns"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class CompactTable:
    """An embedding table that holds its entries and where they are, and nothing for the others.

    Args:
        num_rows: Rows of the table.
        dim: Its columns.
        form: How places are stored: ``dense`` (all entries), ``first-columns`` (those of the first
            columns), ``bitmap`` (a bit for each entry), ``columns`` (a count for each row and a
            column for each entry).
        kind: How values are stored; ``int8`` and ``int4`` have a scale for each row.
        width: Columns that are stored of ``first-columns``, and ``dim`` otherwise.
        tensors: What is stored, one-dimensional arrays by name (see the format's page).

    Example:
        >>> import numpy as np
        >>> from pyg_lth.tickets import CompactTable
        >>> table = CompactTable.from_dense(np.array([[0, 0, 2.5, 0], [0, 0, 0, 0], [0, 1, 0, 3]]))
        >>> table
        CompactTable(num_rows=3, dim=4, form='bitmap', values='float32', density=25.00%, bytes=14)
        >>> table.rows([2, 0])
        array([[0. , 1. , 0. , 3. ],
               [0. , 0. , 2.5, 0. ]], dtype=float32)
    """

    num_rows: int
    dim: int
    form: Form
    kind: Values
    width: int
    tensors: Mapping[str, Array]

    @classmethod
    def from_dense(
        cls,
        table: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
        values: Values = "float32",
        form: Form | None = None,
    ) -> "CompactTable":
        """Store a table.

        Args:
            table: Shape ``[rows, dim]``, read as float32.
            mask: The entries to store, booleans of the same shape; all that are not zero by
                default.
            values: How to store values.
            form: How to store places; by default as takes the fewest bytes.

        Raises:
            InputError: If an entry is not finite or too large for ``values``, an entry stands
                outside the mask, or a name or the shape is not possible.
        """
        dense = np.ascontiguousarray(table, np.float32)
        if dense.ndim != 2:
            raise InputError(f"a table has two dimensions, this one has {dense.ndim}")
        for name, known in ((values, quantization.VALUES), (form or "dense", places.FORMS)):
            if name not in known:
                raise InputError(f"{name!r} is none of {', '.join(known)}")
        num_rows, dim = dense.shape
        places.check_shape(num_rows, dim)
        if not np.isfinite(dense).all():
            raise InputError("an entry of the table is not finite, so nothing can be ranked by it")
        # By its bits, so that the negative zero is an entry too and comes back as it was.
        nonzero = dense.view(np.uint32) != 0
        there = nonzero if mask is None else np.ascontiguousarray(mask, np.bool_)
        if there.shape != dense.shape or (mask is not None and bool((dense[~there] != 0).any())):
            raise InputError("the mask is not that of the table: an entry stands outside it")
        counts = np.count_nonzero(there, axis=1).astype(np.int64)
        width = places.width_of(there)
        if form is None:
            form = places.smallest_form(counts, dim, width, values)
        if form not in ("bitmap", "columns"):
            width = dim if form == "dense" else width
            codes, scales = quantization.encode(
                dense[:, :width].reshape(-1), np.full(num_rows, width), values
            )
            stored = {}
        else:
            width = dim
            codes, scales = quantization.encode(dense[there], counts, values)
            stored = places.encode(there, form)
        stored["values"] = codes
        if values in quantization.STEPS:
            stored["scales"] = scales
        return cls(num_rows, dim, form, values, width, stored)

    @classmethod
    def from_tensors(cls, about: Mapping[str, Any], tensors: Mapping[str, Array]) -> "CompactTable":
        """Check what a file holds of a table, and take it as one.

        Args:
            about: What :meth:`about` returned.
            tensors: What is stored.

        Raises:
            Malformed: If it is no table.
        """
        match about:
            case {
                "rows": int(rows),
                "dim": int(dim),
                "width": int(width),
                "form": str(form),
                "values": str(kind),
            }:
                pass
            case _:
                malformed("its header does not say what table it holds")
        if form not in places.FORMS or kind not in quantization.VALUES:
            malformed(f"it stores a table as {form[:20]!r} of {kind[:20]!r}, which is unknown")
        if rows < 1 or not 1 <= width <= dim <= places.COLUMNS_AT_MOST:
            malformed(f"a table of {rows} rows and {dim} columns cannot be")
        if width != dim and form != "first-columns":
            malformed(f"only first-columns stores {width} of {dim} columns")
        names = {"values", *_PLACES[form], *(["scales"] if kind in quantization.STEPS else [])}
        if set(tensors) != names:
            malformed(f"its table has not just {', '.join(sorted(names))}")
        if _PLACES[form]:
            places.check(tensors, form, rows, dim)
        table = cls(rows, dim, form, kind, width, tensors)
        scales = tensors.get("scales", np.zeros(0, quantization.DTYPES["bfloat16"]))
        filled = table._filled_rows if kind in quantization.STEPS else 0
        if scales.dtype != quantization.DTYPES["bfloat16"] or scales.size != filled:
            malformed("its table has not a scale for each row with an entry")
        quantization.check(tensors["values"], scales, table.stored, kind)
        return table

    def about(self) -> dict[str, Any]:
        """What a file says of the table in its header."""
        return {
            "rows": self.num_rows,
            "dim": self.dim,
            "width": self.width,
            "form": self.form,
            "values": self.kind,
        }

    def save(self, path: str | Path) -> None:
        """Write the table alone to a file, as of a model's own embedding.

        Raises:
            InputError: If it cannot be written.
        """
        container.write(Path(path), "table", self.about(), self.tensors)

    @classmethod
    def load(cls, path: str | Path) -> "CompactTable":
        """Map the table that a file holds; nothing is copied.

        Raises:
            InputError: If the file is missing, or anything else or damaged.
        """
        with container.naming(Path(path)):
            return cls.from_tensors(*container.read(Path(path), "table"))

    @property
    def stored(self) -> int:
        """Number of values that are stored."""
        return int(self._offsets[-1]) if self._sparse else self.num_rows * self.width

    @property
    def density(self) -> float:
        """Share of the entries that are stored, in [0, 1]."""
        return self.stored / (self.num_rows * self.dim)

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored: values, places and scales."""
        return sum(array.nbytes for array in self.tensors.values())

    @functools.cached_property
    def counts(self) -> Array:
        """Stored entries of each row, shape ``[rows]``."""
        if not self._sparse:
            return np.broadcast_to(np.int64(self.width), self.num_rows)
        return places.row_counts(self.tensors, self.form, self.num_rows, self.dim)

    def rows(self, index: npt.ArrayLike | slice) -> Floats:
        """Read some rows.

        Args:
            index: Which, integers of shape ``[n]`` or a slice.

        Returns:
            Shape ``[n, dim]``, float32.

        Raises:
            IndexError: If there is no such row.
        """
        if isinstance(index, slice):
            if self.kind == "float32" and self.form == "dense":
                dense: Floats = self.tensors["values"].reshape(-1, self.dim)[index]
                return dense
            row = np.arange(self.num_rows)[index]
        else:
            row = np.asarray(index, np.int64).reshape(-1)
            if row.size and not -self.num_rows <= row.min() <= row.max() < self.num_rows:
                raise IndexError(f"a row is outside the {self.num_rows:,} of the table")
            if row.size and row.min() < 0:
                row = row % self.num_rows
        if self.form == "columns" and native.library():
            stored = self.tensors["columns"], self.tensors["values"]
            return native.take_rows(
                row, self._offsets, *stored, self.kind, self.row_scales, self.dim
            )
        out = np.zeros((row.size, self.dim), np.float32)
        if not self._sparse:
            at = row[:, None] * self.width + np.arange(self.width)
            out[:, : self.width] = self._at(at)
            if self.row_scales is not None:
                out *= self.row_scales[row][:, None]
            return out
        counts = self.counts[row].astype(np.int64)
        ends = np.cumsum(counts)
        at = np.arange(ends[-1] if row.size else 0)
        at += np.repeat(self._offsets[row] - (ends - counts), counts)
        if self.form == "columns":
            line = np.repeat(np.arange(row.size) * self.dim, counts)
            out.reshape(-1)[line + self.tensors["columns"][at]] = self._at(at)
        else:
            out[places.at_rows(self.tensors["bits"], row, self.dim)] = self._at(at)
        if self.row_scales is not None:
            out *= self.row_scales[row][:, None]
        return out

    def dot(self, vector: Floats, rows: slice) -> Floats:
        """Multiply some rows with a vector, without their dense form.

        Args:
            vector: Shape ``[dim]``.
            rows: Which, a slice with both ends.

        Returns:
            The inner products, to rounding, shape ``[n]``, float32.
        """
        out = np.zeros(rows.stop - rows.start, np.float32)
        # In parts, so that what is held besides stays small.
        for begin in range(rows.start, rows.stop, 2 * places.ROWS_AT_ONCE):
            block = slice(begin, min(begin + 2 * places.ROWS_AT_ONCE, rows.stop))
            part = out[block.start - rows.start : block.stop - rows.start]
            if not self._sparse:
                values = self._at(slice(block.start * self.width, block.stop * self.width))
                part[:] = values.reshape(-1, self.width) @ vector[: self.width]
                continue
            first, last = self._offsets[[block.start, block.stop]].tolist()
            filled = np.flatnonzero(self.counts[block])
            if filled.size:
                products = np.take(vector, self._columns[first:last])
                products *= self._at(slice(first, last))
                part[filled] = np.add.reduceat(products, self._offsets[block][filled] - first)
        if self.row_scales is not None:
            out *= self.row_scales[rows]
        return out

    def to_dense(self) -> Floats:
        """The whole table, shape ``[rows, dim]``, float32."""
        dense = np.empty((self.num_rows, self.dim), np.float32)
        for begin in range(0, self.num_rows, places.ROWS_AT_ONCE):
            block = slice(begin, begin + places.ROWS_AT_ONCE)
            dense[block] = self.rows(block)
        return dense

    def to_csr(self) -> tuple[Integers, Integers, Floats]:
        """Row pointers, columns and values of the stored entries, as SciPy's CSR has them.

        Returns:
            Shapes ``[rows + 1]``, ``[n]`` and ``[n]``; a stored zero is an entry too.
        """
        if self._sparse:
            columns = self._columns.astype(np.int64)
        else:
            columns = np.tile(np.arange(self.width), self.num_rows)
        found = self._at(np.arange(columns.size))
        if self.row_scales is not None:
            found = found * np.repeat(self.row_scales, self.counts)
        return self._offsets, columns, found

    @property
    def _sparse(self) -> bool:
        return bool(_PLACES[self.form])

    def _at(self, at: Integers | slice) -> Floats:
        """The values at some places, in their shape, not yet scaled."""
        stored = self.tensors["values"]
        if self.kind != "int4":
            return quantization.decode(stored[at], self.kind)
        place = np.arange(at.start, at.stop) if isinstance(at, slice) else at
        codes = quantization.unpack(stored, place)
        return quantization.decode(codes, self.kind)

    @functools.cached_property
    def _offsets(self) -> Array:
        """Where the values of each row begin, shape ``[rows + 1]``."""
        offsets = np.zeros(self.num_rows + 1, np.int64)
        np.cumsum(self.counts, out=offsets[1:])
        return offsets

    @functools.cached_property
    def _columns(self) -> Array:
        """The column of each value of a form that has places, shape ``[n]``."""
        if self.form == "columns":
            return self.tensors["columns"]
        columns = np.empty(self.stored, places.column_type(self.dim))
        place = 0
        for begin in range(0, self.num_rows, places.ROWS_AT_ONCE):
            rows = np.arange(begin, min(begin + places.ROWS_AT_ONCE, self.num_rows))
            found = np.nonzero(places.at_rows(self.tensors["bits"], rows, self.dim))[1]
            columns[place : place + found.size] = found
            place += found.size
        return columns

    @functools.cached_property
    def row_scales(self) -> Floats | None:
        """The scale of each row, 0 for one without an entry; :obj:`None` where none is needed."""
        if "scales" not in self.tensors:
            return None
        scale = np.zeros(self.num_rows, np.float32)
        scale[self.counts > 0] = quantization.from_bfloat16(self.tensors["scales"])
        return scale

    @property
    def _filled_rows(self) -> int:
        return int(np.count_nonzero(self.counts)) if self._sparse else self.num_rows

    def __repr__(self) -> str:
        return (
            f"CompactTable(num_rows={self.num_rows}, dim={self.dim}, form={self.form!r}, "
            f"values={self.kind!r}, density={self.density:.2%}, bytes={self.nbytes})"
        )
