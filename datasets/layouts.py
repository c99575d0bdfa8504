"""Which form a file has, by its name and by what the user says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .columns import Columns
from .delimited import Header, read_delimited
from .errors import DatasetError
from .files import unpacked_name
from .json_lines import read_json_lines
from .parquet import SUFFIXES as PARQUET
from .parquet import ParquetColumns

JSON_LINES = (".jsonl", ".ndjson", ".json")
# MovieLens writes these with or without a header line, and with a separator of its own in each.
MOVIELENS = (".dat", ".data", ".base", ".test")
MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
# The columns of the user and the item ids where none are named, without and with a header line.
DEFAULT_COLUMNS = {False: ("user_id", "item_id"), True: ("1", "2")}
_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}


class Layout(NamedTuple):
    """What the user says of a file's form beyond its name.

    Args:
        separator: What stands between two fields, `tab` or `space`, `auto` to find it out; by
            default the suffix tells.
        no_header: Whether the first line is data, so that columns go by number from 1 on.
    """

    separator: str | None = None
    no_header: bool = False

    def is_lightgcn(self, path: Path) -> bool:
        """Tells whether a file is LightGCN text and no table."""
        return unpacked_name(path).suffix.lower() == ".txt" and self == Layout()


def read_columns(path: Path, columns: Sequence[str], layout: Layout) -> Columns:
    """Reads columns of a file whose suffix says what it is.

    Args:
        path: The file, or a folder of Parquet parts.
        columns: The names of the columns.
        layout: What the suffix doesn't say.

    Raises:
        DatasetError: If the file or a column is missing, the file is damaged, or its form unknown.
    """
    suffix = unpacked_name(path).suffix.lower()
    has_fields = suffix not in (*JSON_LINES, *PARQUET) and not path.is_dir()
    if not has_fields and layout != Layout():
        raise DatasetError(
            f"{path}: `separator` and `no_header` are for divided text alone; leave them out"
        )
    if path.is_dir() or suffix in PARQUET:
        return ParquetColumns(path, columns)
    if suffix in JSON_LINES:
        return read_json_lines(path, columns)
    separator = layout.separator
    if separator is None:
        separator = {".csv": ",", ".tsv": "\t", ".inter": "\t"}.get(suffix)
        if separator is None and suffix not in (*MOVIELENS, ".txt"):
            raise DatasetError(
                f"{path}: unknown suffix {suffix!r}; name it .csv, .tsv, .jsonl, .parquet or .txt, "
                "or set `separator`"
            )
    separator = _SEPARATORS.get(separator or "auto", separator or "auto")
    if separator != "auto" and not re.fullmatch(r"[^\w\s\".+-]+|[\t ]", separator, re.ASCII):
        raise DatasetError(f"{path}: separator {separator!r} cannot divide fields; use another")
    header = Header(typed=suffix == ".inter")
    if layout.no_header:
        header = Header(())
    elif suffix in MOVIELENS:
        header = Header(MOVIELENS_COLUMNS, guess=True)
    return read_delimited(path, columns, separator, header)
