"""Parquet: one file, or a folder of parts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from .columns import Columns
from .errors import DatasetError, shown

SUFFIXES = (".parquet", ".pq")


def parts_of(folder: Path) -> list[Path]:
    """Returns the Parquet files in a folder and below, by name; what starts with . or _ is none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part[0] in "._" for part in path.relative_to(folder).parts)
    )


def read_parquet(path: Path, columns: Sequence[str]) -> Columns:
    """Reads columns of a Parquet file, or of all Parquet files in a folder one after the other.

    Args:
        path: The file or folder.
        columns: The names of the columns.

    Raises:
        DatasetError: If a file is damaged, a column is missing, or the parts differ in its type.
    """
    files = parts_of(path) if path.is_dir() else [path]
    tables = [_read_part(file, columns) for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path}: its parts differ in type ({shown(reason)})") from error
    ends = np.cumsum([len(part) for part in tables])

    def place(row: int) -> str:
        part = int(np.searchsorted(ends, row, side="right"))
        own = row + 1 - int(ends[part] - len(tables[part]))
        return f"row {own}" if files == [path] else f"{files[part].relative_to(path)}, row {own}"

    arrays = {name: table[name] for name in columns}
    return Columns(str(path), arrays, place, columns)


def _read_part(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        parquet = pa.parquet.ParquetFile(file)
        names = parquet.schema_arrow.names
        for name in columns:
            if names.count(name) != 1:
                what = "two columns" if name in names else "no column"
                raise DatasetError(
                    f"{file}, schema: {what} {name!r}; name one of {', '.join(names[:20])}"
                )
        table = parquet.read(columns=list(columns))
        table.validate(full=True)  # text may be no UTF-8
        return table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DatasetError(f"{file}: cannot be read ({error.strerror})") from error
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{file}: damaged Parquet file ({shown(reason)}); write it again"
        ) from error
