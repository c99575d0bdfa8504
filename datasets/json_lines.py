"""Text that holds a JSON object on each line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from .columns import Columns
from .errors import DatasetError, shown
from .files import read_text


def read_json_lines(path: Path, columns: Sequence[str]) -> Columns:
    """Reads columns of a text file with a JSON object on each line; blank lines are skipped.

    Args:
        path: The file.
        columns: The keys of the objects.

    Raises:
        DatasetError: If the file is missing, a line is no object or lacks a key, or the values of a
            key differ in type.
    """
    values: dict[str, list[Any]] = {name: [] for name in columns}
    lines: list[int] = []
    content = read_text(path)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        # Not JSON alone: integers of thousands of digits, and objects in objects without end.
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or " ".join(str(error).split())[:80]
            hint = (
                "; a file that is one array has to be written as one object a line"
                if text.lstrip().startswith(b"[")
                else "; each line has to be one object"
            )
            raise DatasetError(f"{path}, line {line}: not JSON ({reason}){hint}") from error
        if not isinstance(record, dict):
            raise DatasetError(f"{path}, line {line}: not an object; each line has to be one")
        for name, column in values.items():
            if name not in record:
                known = ", ".join(key if len(key) < 60 else shown(key) for key in list(record)[:20])
                raise DatasetError(f"{path}, line {line}: no column {name!r}; name one of {known}")
            column.append(record[name])
        lines.append(line)

    def to_array(name: str) -> pa.Array:
        column = values[name]
        try:
            return pa.array(column)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            kind = type(next(value for value in column if value is not None))
            other = (
                row for row, value in enumerate(column) if type(value) not in (kind, type(None))
            )
            row = next(other, None)
            if row is None:
                reason = "cannot be stored: more than 64 bits, or half of a character"
                row = next(row for row, value in enumerate(column) if not _fits(value))
            else:
                first = json.dumps(next(value for value in column if value is not None))
                reason = f"is not of the type of the first row's {first[:40]}; use one type"
            raise DatasetError(
                f"{path}, line {lines[row]}: {json.dumps(column[row])[:60]} in column {name!r} "
                f"{reason}"
            ) from error

    arrays = {name: to_array(name) for name in columns}
    return Columns(str(path), arrays, lambda row: f"line {lines[row]}", columns)


def _fits(value: Any) -> bool:
    try:
        pa.array([value])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return True
