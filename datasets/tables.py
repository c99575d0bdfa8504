"""Columns of CSV, TSV, Parquet and JSONL files, with errors that name the row."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from .errors import DatasetError
from .files import read_text
from .ids import as_integers

_WHOLE = r"^-?[0-9]+$"
_SHORT_WHOLE = r"^-?[0-9]{1,18}$"
_NUMBER = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


class Table:
    """Some columns of a file, checked when they are taken.

    Args:
        path: The file.
        columns: The columns by name, all of the same length.
        place: Names the place of a row in the file, such as `line 7`.

    Raises:
        DatasetError: If there are no rows.
    """

    def __init__(
        self, path: Path, columns: dict[str, pa.Array], place: Callable[[int], str]
    ) -> None:
        if not len(next(iter(columns.values()))):
            raise DatasetError(f"{path}: the file has no rows; a data set needs interactions")
        self.path = path
        self.columns = columns
        self.place = place

    def error(self, row: int, reason: str) -> DatasetError:
        """Returns the error about a row."""
        return DatasetError(f"{self.path}, {self.place(row)}: {reason}")

    def ids(self, column: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Takes a column of ids: text or integers.

        A column of text whose values are all integers is one of integers. One where at least
        half of the distinct values are, but not all, is taken for damaged: a column shifted, or a
        header in the middle.

        Args:
            column: The name of the column.

        Returns:
            The position of each row's id among the distinct ids, int64 of shape [rows], and the
            distinct ids in ascending order: int64, or text if not all are integers of 64 bits.

        Raises:
            DatasetError: If an id is empty or of another type than the others.
        """
        array = self.columns[column]
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        empty = array.is_null()
        if is_text:
            empty = pc.or_(empty, pc.equal(pc.utf8_trim_whitespace(array), "").fill_null(True))
        self._refuse(empty, f"empty id in column {column!r}; give every row a user and an item")
        if not is_text and not pa.types.is_integer(array.type):
            raise DatasetError(
                f"{self.path}, row 1: column {column!r} holds {array.type}; store ids as text or "
                "integers"
            )
        encoded = array.dictionary_encode()
        codes = encoded.indices.to_numpy()
        values = as_integers([str(value) for value in encoded.dictionary.to_pylist()])
        if is_text and values.dtype == object:
            whole = pc.match_substring_regex(encoded.dictionary, _WHOLE).to_numpy(False)
            if not whole.all() and whole.sum() * 2 >= whole.size:
                row = int(np.flatnonzero(~whole[codes])[0])
                raise self.error(
                    row,
                    f"id {array[row].as_py()[:40]!r} in column {column!r} is text among integers; "
                    "repair the row, or prefix all ids with a letter",
                )
        order = np.argsort(values, kind="stable")
        rank = np.empty(order.size, dtype=np.int64)
        rank[order] = np.arange(order.size)
        return rank[codes], values[order]

    def numbers(self, column: str) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
        """Takes a column of numbers.

        Args:
            column: The name of the column.

        Returns:
            The numbers, shape [rows]: int64 where all are integers (or Parquet timestamps), else
            float64.

        Raises:
            DatasetError: If one is empty or no number.
        """
        array = self.columns[column]
        reason = f"column {column!r} holds no number; every row needs one"
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = pc.utf8_trim_whitespace(array)
            self._refuse(
                pc.invert(pc.match_substring_regex(array, _NUMBER).fill_null(False)), reason
            )
            whole = pc.all(pc.match_substring_regex(array, _SHORT_WHOLE)).as_py()
            array = array.cast(pa.int64() if whole else pa.float64())
        elif pa.types.is_timestamp(array.type) or pa.types.is_integer(array.type):
            array = array.cast(pa.int64(), safe=False)
        elif pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
            array = array.cast(pa.float64())
        else:
            raise self.error(0, reason)
        self._refuse(array.is_null(nan_is_null=True), reason)
        numbers: npt.NDArray[np.int64] | npt.NDArray[np.float64] = array.to_numpy()
        return numbers

    def _refuse(self, bad: pa.Array, reason: str) -> None:
        """Raises the error for the first row that is bad, if one is."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise self.error(row, reason)


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Reads columns of a file whose suffix says what it is.

    `.csv` and `.tsv` have a header line; in `.jsonl` each line is an object; both may be packed
    (`.gz`). Other columns are not looked at.

    Args:
        path: The file.
        columns: The names of the columns.

    Returns:
        The columns.

    Raises:
        DatasetError: If the file or a column is missing, or the file is damaged.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".csv":
        return read_delimited(path, columns, ",")
    if suffix == ".tsv":
        return read_delimited(path, columns, "\t")
    if suffix == ".jsonl":
        return _read_json_lines(path, columns)
    if suffix == ".parquet":
        return _read_parquet(path, columns)
    raise DatasetError(
        f"{path}: unknown suffix {suffix!r}; name it .csv, .tsv, .jsonl, .parquet or .txt"
    )


def read_delimited(
    path: Path, columns: Sequence[str], delimiter: str, header: Sequence[str] | None = None
) -> Table:
    """Reads columns of a text file with a fixed number of fields a line.

    Args:
        path: The file.
        columns: The names of the columns.
        delimiter: What stands between two fields.
        header: The names of all columns, if the file doesn't begin with them.

    Returns:
        The columns, as text.

    Raises:
        DatasetError: If the file or a column is missing, or a line has too many or few fields.
    """
    content = read_text(path)
    header_rows = 0 if header else 1

    def text() -> io.StringIO:
        return io.StringIO(content.decode("utf-8"), newline="")

    def place(row: int) -> str:
        """Counts as Arrow does: a record may span lines, and blank lines are none."""
        reader = csv.reader(text(), delimiter=delimiter)
        start = 1
        try:
            for record in reader:
                if record:
                    if row == -header_rows:
                        return f"line {start}"
                    row -= 1
                start = reader.line_num + 1
        except csv.Error:
            pass
        return f"line {start}"

    if header is None:
        header = next(record for record in csv.reader(text(), delimiter=delimiter) if record)
        _require(path, columns, header, "line 1")

    invalid: list[Any] = []

    def remember(row: Any) -> str:
        invalid.append(row)
        return "error"

    try:
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            # Only a single thread counts the rows.
            read_options=pa.csv.ReadOptions(
                use_threads=False, column_names=header, skip_rows=header_rows
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=remember
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(columns), column_types=dict.fromkeys(columns, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        if not invalid:
            raise DatasetError(f"{path}: {_one_line(error)}; repair the file") from error
        raise DatasetError(
            f"{path}, {place(invalid[0].number - 1 - header_rows)}: {invalid[0].actual_columns} "
            f"fields where {invalid[0].expected_columns} are expected; repair the line"
        ) from error
    return Table(path, {name: table[name].combine_chunks() for name in columns}, place)


def _read_json_lines(path: Path, columns: Sequence[str]) -> Table:
    values: dict[str, list[Any]] = {name: [] for name in columns}
    lines: list[int] = []
    for line, text in enumerate(read_text(path).split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise DatasetError(
                f"{path}, line {line}: not JSON ({error.msg}); each line has to be one object"
            ) from error
        if not isinstance(record, dict):
            raise DatasetError(f"{path}, line {line}: not an object; each line has to be one")
        for name, column in values.items():
            if name not in record:
                _require(path, [name], list(record), f"line {line}")
            column.append(record[name])
        lines.append(line)

    def to_array(name: str) -> pa.Array:
        column = values[name]
        try:
            return pa.array(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            kind = type(column[0])
            row = next((row for row, value in enumerate(column) if type(value) is not kind), 0)
            raise DatasetError(
                f"{path}, line {lines[row]}: {json.dumps(column[row])[:40]} in column {name!r} is "
                f"not of the type of the first row's {json.dumps(column[0])[:40]}; use one type"
            ) from error

    return Table(path, {name: to_array(name) for name in columns}, lambda row: f"line {lines[row]}")


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    try:
        file = pa.parquet.ParquetFile(path)
        _require(path, columns, file.schema_arrow.names, "schema")
        table = file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path}: damaged Parquet file ({_one_line(error)}); write it again"
        ) from error
    return Table(
        path,
        {name: table[name].combine_chunks() for name in columns},
        lambda row: f"row {row + 1}",
    )


def _require(path: Path, columns: Sequence[str], header: Sequence[str], place: str) -> None:
    for name in columns:
        if list(header).count(name) != 1:
            raise DatasetError(
                f"{path}, {place}: {'two columns' if name in header else 'no column'} {name!r}; "
                f"name one of {', '.join(header)}"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
