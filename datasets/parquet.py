"""Parquet: one file, or a folder of parts, read a piece at a time."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from .columns import Columns, IdKind, first_failure, missing_in, plain
from .distinct import Distinct
from .errors import DatasetError, shown
from .filtering import Codes

SUFFIXES = (".parquet", ".pq")
# Rows of a piece: enough that what is done once a piece is little, few beside the whole.
PIECE = 1 << 20


def parts_of(folder: Path) -> list[Path]:
    """Returns the Parquet files in a folder and below, by name; what starts with . or _ is none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part[0] in "._" for part in path.relative_to(folder).parts)
    )


class ParquetColumns(Columns):
    """Columns of a Parquet file, or of all Parquet files in a folder one after the other.

    Nothing is kept of what is read: ids are learnt a piece at a time, other columns are read when
    they are asked for.

    Args:
        path: The file or folder.
        columns: The names of the columns.

    Raises:
        DatasetError: If there are no files or rows, a file is damaged, a column is missing, or the
            parts differ in its type.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._files = parts_of(path) if path.is_dir() else [path]
        if not self._files:
            raise DatasetError(f"{path}: the folder holds no Parquet files; name another")
        lengths: list[int] = []
        for file in self._files:
            length, schema = _look_into(file, columns)
            self._schema = schema if not lengths else self._common(file, schema)
            lengths.append(length)
        self._ends = np.cumsum(lengths)
        self._dropped = np.empty(0, dtype=np.int64)
        super().__init__(str(path), {}, self._place, columns)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self._ends[-1]) - self._dropped.size

    def column(self, name: str) -> pa.Array:
        """Returns a column as it is, read whole: as :meth:`Columns.column`."""
        pieces = [piece for (piece,) in self.pieces([name])]
        return plain(pa.chunked_array(pieces, self._schema.field(name).type))

    def pieces(self, names: Sequence[str]) -> Iterator[list[pa.Array]]:
        """Reads columns a piece at a time, in the type that all parts have in common.

        Args:
            names: The columns.

        Yields:
            The next rows of each.

        Raises:
            DatasetError: If a file is damaged, or a value does not fit the common type.
        """
        begin = 0
        for file, end in zip(self._files, self._ends.tolist(), strict=True):
            with _opened(file) as parquet:
                for batch in parquet.iter_batches(PIECE, columns=list(names), use_threads=False):
                    batch.validate(full=True)  # text may be no UTF-8
                    first, last = np.searchsorted(self._dropped, [begin, begin + len(batch)])
                    kept = np.ones(len(batch), dtype=bool)
                    kept[self._dropped[first:last] - begin] = False
                    pieces = [self._piece(batch[name], name, begin) for name in names]
                    begin += len(batch)
                    yield pieces if first == last else [piece.filter(kept) for piece in pieces]
            if begin != end:
                raise DatasetError(
                    f"{file}: damaged Parquet file (it has other rows than it says); write it again"
                )

    def _missing_rows(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        found, row = [self._dropped[:0]], 0
        for pieces in self.pieces(names):
            missing = np.logical_or.reduce([missing_in(piece) for piece in pieces])
            found.append(row + np.flatnonzero(missing))
            row += missing.size
        return np.concatenate(found)

    def _without(
        self, dropped: npt.NDArray[np.int64], names: Sequence[str], notes: tuple[str, ...]
    ) -> "ParquetColumns":
        rest = copy.copy(self)
        rest._dropped, rest.notes, rest.place = dropped, notes, rest._place
        return rest

    def ids(self, name: str, kind: IdKind = "auto") -> tuple[Codes, npt.NDArray[Any]]:
        """Takes a column of ids as :meth:`Columns.ids`, which looks at the distinct ones alone.

        Args:
            name: The name of the column.
            kind: As there.

        Returns:
            As there; the positions are int32.
        """
        if not self.can_learn(name):
            return super().ids(name, kind)
        distinct, codes, row = self.distinct(name), [], 0
        for (piece,) in self.pieces([name]):
            codes.append(distinct.learn(piece, row))
            row += len(piece)
        rank, ids = self.rank(name, kind, distinct)
        return rank[np.concatenate(codes)], ids

    def can_learn(self, name: str) -> bool:
        """Tells whether the values of a column are of a type that can be told apart."""
        kind = self._kind(name)
        return bool(
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
        )

    def distinct(self, name: str) -> Distinct:
        """Begins to learn the values of a column."""
        return Distinct(self._kind(name))

    def rank(
        self, name: str, kind: IdKind, distinct: Distinct
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Checks and sorts the distinct ids of a column, as :meth:`Columns.ids` does those of rows.

        Args:
            name: The name of the column.
            kind: As in :meth:`ids`.
            distinct: Its values.

        Returns:
            The position of each among the ids, int32, and the ids in ascending order.

        Raises:
            DatasetError: As :meth:`Columns.ids`, with the first row that has the bad id.
        """

        def place(number: int) -> str:
            return self.place(distinct.first_row(number))

        values = Columns(self.source, {name: distinct.values}, place, self.typed)
        codes, ids = values.ids(name, kind)
        return codes.astype(np.int32), ids

    def _kind(self, name: str) -> pa.DataType:
        return plain(pa.array([], self._schema.field(name).type)).type

    def _place(self, row: int) -> str:
        row += int(np.searchsorted(self._dropped - np.arange(self._dropped.size), row, "right"))
        part = int(np.searchsorted(self._ends, row, side="right"))
        own = row + 1 - (int(self._ends[part - 1]) if part else 0)
        if self._files == [self._path]:
            return f"row {own}"
        return f"{self._files[part].relative_to(self._path)}, row {own}"

    def _common(self, file: Path, schema: pa.Schema) -> pa.Schema:
        """Returns the types that the parts so far have in common with another."""
        fields = []
        for known, own in zip(self._schema, schema, strict=True):
            try:
                both = [pa.schema([known]), pa.schema([own])]
                fields += pa.unify_schemas(both, promote_options="permissive")
            except pa.ArrowException as error:
                raise DatasetError(
                    f"{file}, schema: column {own.name!r} holds {shown(own.type)} where the parts "
                    f"before it hold {shown(known.type)}; use one type"
                ) from error
        return pa.schema(fields)

    def _piece(self, piece: pa.Array, name: str, row: int) -> pa.Array:
        kind = self._schema.field(name).type
        try:
            return plain(piece.cast(kind))
        except pa.ArrowInvalid as error:
            first = first_failure(piece, kind)
            raise self.error(
                row + first,
                f"{shown(piece[first].as_py())} in column {name!r} does not fit {kind}, the type "
                "that the parts have in common; use one type",
            ) from error


def _look_into(file: Path, columns: Sequence[str]) -> tuple[int, pa.Schema]:
    """Returns the number of rows of a file, and the types of some columns."""
    with _opened(file) as parquet:
        length, schema = parquet.metadata.num_rows, parquet.schema_arrow
    for name in columns:
        if schema.names.count(name) != 1:
            what = "two columns" if name in schema.names else "no column"
            raise DatasetError(
                f"{file}, schema: {what} {name!r}; name one of {', '.join(schema.names[:20])}"
            )
    return length, pa.schema([schema.field(name) for name in columns])


@contextmanager
def _opened(file: Path) -> Iterator[pa.parquet.ParquetFile]:
    """Opens a file; what it turns out to be damaged in is one line."""
    try:
        with pa.parquet.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DatasetError(f"{file}: cannot be read ({error.strerror})") from error
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{file}: damaged Parquet file ({shown(reason)}); write it again"
        ) from error
