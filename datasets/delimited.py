"""Text whose lines are divided into fields: CSV, TSV and what resembles them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from .columns import NUMBER, Columns
from .errors import DatasetError, shown
from .files import line_of, read_text

SEPARATORS = ("\t", "::", ";", "|", ",", " ")
# Text with these follows the rules of CSV: a quoted field may hold anything. In the rest a line is
# a record, and a quote is data unless it encloses the whole field.
_QUOTING = (",", ";", "|")
_SPARE = "\t\x1f\x1e\x1d\x1c\x01\x02\x03"
_NAMES = {"\t": "tab", " ": "space"}
_SAMPLE = 1 << 16
_SAMPLE_LINES = 100
_QUOTE, _LF, _CR = b'"\n\r'
_WHOLLY_QUOTED = r'^"(?:[^"]|"")*"$'
_MOST_NAMES_SHOWN = 20


class Header(NamedTuple):
    """How the columns of a file are called.

    Args:
        names: Their names, where the file has no header line and they are known; `None` stands for
            a header line, an empty list for numbers from 1 on.
        guess: Whether a first line of numbers alone is no header line, and `names` hold then.
        typed: Whether the header line gives types after a colon, as in RecBole's files.
    """

    names: Sequence[str] | None = None
    guess: bool = False
    typed: bool = False


def read_delimited(
    path: Path, columns: Sequence[str], separator: str = ",", header: Header | None = None
) -> Columns:
    """Reads columns of a text file with a fixed number of fields a line.

    Blank lines are skipped. Other columns are not looked at.

    Args:
        path: The file.
        columns: The names of the columns, or their numbers from 1 on where there is no header line.
        separator: What stands between two fields, or `auto`: what divides the first lines alike.
        header: How the columns are called; by a header line unless it says otherwise.

    Returns:
        The columns, as text; those whose fields are all quoted count as typed.

    Raises:
        DatasetError: If the file or a column is missing, a line has too many or few fields, or a
            quote swallows lines.
    """
    content = read_text(path)
    header = header or Header()
    notes: tuple[str, ...] = ()
    if separator == "auto":
        separator = _sniffed(path, content)
        name = _NAMES.get(separator, separator)
        notes = (f"{path}: fields taken to be divided by {name!r}",)
    if len(separator.encode()) > 1:
        # Arrow divides by one byte, so one that the text lacks stands in.
        spare = next((byte for byte in _SPARE if byte.encode() not in content), None)
        if spare is None:
            raise DatasetError(f"{path}: too many control characters; clean the file")
        content = content.replace(separator.encode(), spare.encode())
        text = _Text(path, content, spare, False)
    else:
        text = _Text(path, content, separator, separator in _QUOTING)
    try:
        return text.columns(columns, header, notes)
    except _UnevenError as uneven:
        # Lines that don't add up may be parts of quoted fields, if the quotes add up.
        if text.quoting or not (quoted := _Text(path, content, text.separator, True)).is_strict:
            raise DatasetError(str(uneven)) from None
        if quoted.swallows(uneven.fields):
            raise DatasetError(str(uneven)) from None
        return quoted.columns(columns, header, notes)


class _UnevenError(DatasetError):
    """A line with too many or too few fields."""

    fields: int


class _Text:
    """Delimited text, and where its records begin."""

    def __init__(self, path: Path, content: bytes, separator: str, quoting: bool) -> None:
        self.path = path
        self.content = content
        self.separator = separator
        self.quoting = quoting and b'"' in content
        self.bytes = np.frombuffer(content, dtype=np.uint8)
        self.is_strict = True
        self.quoted_fields = 0  # counted where they are strict
        self.inside = self._inside() if self.quoting else None

    def _inside(self) -> npt.NDArray[np.bool_]:
        """Tells which bytes are quoted, and refuses quotes that swallow lines."""
        is_quote = self.bytes == _QUOTE
        quotes = np.flatnonzero(is_quote)
        opening, closing = quotes[0::2], quotes[1::2]
        # Before the text and after it stands a line end, as it were.
        before = self.bytes[opening - 1]
        before[0] = before[0] if opening[0] else _LF
        after = self.bytes[np.minimum(closing + 1, self.bytes.size - 1)]
        if closing.size and closing[-1] == self.bytes.size - 1:
            after[-1] = _LF
        # A quote beside a quote is a quote in a field; as such it closes the field and opens it.
        bounds = np.zeros(256, dtype=np.bool_)
        bounds[[ord(self.separator), _LF, _CR, _QUOTE]] = True
        self.is_strict = bool(quotes.size % 2 == 0 and bounds[before].all() and bounds[after].all())
        if self.is_strict:
            self.quoted_fields = opening.size - int((before == _QUOTE).sum())
            inside: npt.NDArray[np.bool_] = np.logical_xor.accumulate(is_quote)
            return inside
        return self._loosely_inside()

    def _loosely_inside(self) -> npt.NDArray[np.bool_]:
        """As :meth:`_inside`, of text with quotes that are data: a field's quotes come first."""
        inside = np.zeros(self.bytes.size, dtype=np.bool_)
        bound = re.escape(self.separator.encode()) + rb"\r\n"
        field = re.compile(rb"(?:(?<=[" + bound + rb'])|\A)"([^"]*(?:""[^"]*)*)("?)(.?)', re.DOTALL)
        for found in field.finditer(self.content):
            lines = re.search(rb"[\r\n]", found[1])
            ends_well = found[3] in (b"", b"\n", b"\r", self.separator.encode())
            if not found[2] or (lines and not ends_well):
                where = (
                    f"closes on line {line_of(self.content, found.end(2))} amid a field"
                    if found[2]
                    else "is never closed"
                )
                raise DatasetError(
                    f"{self.path}, line {line_of(self.content, found.start())}: a quote opens a "
                    f"field and {where}; close it where the field ends, or double it if it is "
                    "part of the text"
                )
            inside[found.start() : found.end(2) - 1] = True
        return inside

    def ends(self, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Returns the bytes before `stop` that end a line, those in quoted fields left out."""
        ends = (self.bytes[:stop] == _LF) | (self.bytes[:stop] == _CR)
        if self.inside is not None:
            ends &= ~self.inside[:stop]
        return np.flatnonzero(ends)

    def starts(self) -> npt.NDArray[np.int64]:
        """Returns where each record begins; blank lines are none."""
        starts = np.append(0, self.ends() + 1)
        starts = starts[starts < self.bytes.size]
        return starts[~np.isin(self.bytes[starts], (_LF, _CR))]

    def place(self, record: int) -> str:
        """Names the line that a record begins on."""
        return f"line {line_of(self.content, int(self.starts()[record]))}"

    def swallows(self, fields: int) -> bool:
        """Tells whether a record of several lines begins and ends with what are records alone."""
        lines = _Text(self.path, self.content, self.separator, False)
        bounds = [*self.starts().tolist(), self.bytes.size]
        line_starts = lines.starts()
        firsts = np.searchsorted(line_starts, bounds)
        for record in np.flatnonzero(np.diff(firsts) > 1).tolist():
            pieces = self.content[bounds[record] : bounds[record + 1]].strip(b"\r\n")
            first, *_, last = re.split(rb"[\r\n]+", pieces)
            separator = self.separator.encode()
            if first.count(separator) + 1 == last.count(separator) + 1 == fields:
                return True
        return False

    def columns(self, wanted: Sequence[str], header: Header, notes: tuple[str, ...]) -> Columns:
        """Takes columns, having named them by the header."""
        first, second = self._first_record()
        names = [name.strip() for name in self._fields(first, second)]
        numeric = all(re.match(NUMBER, name) for name in names)
        typed: set[str] = set()
        skipped = 0
        found = wanted
        if header.names is None or (header.guess and not numeric):
            skipped = 1
            if header.typed:
                typed = {name.split(":")[0] for name in names if name.endswith(":token")}
                names = [name.split(":")[0] for name in names]
                found = [name.split(":")[0] for name in wanted]
            if numeric:
                raise DatasetError(
                    f"{self.path}, {self.place(0)}: the first line holds numbers alone, so it is "
                    "no header; set `no_header`, and name the columns by number, from 1 on"
                )
        else:
            numbers = [str(number) for number in range(1, len(names) + 1)]
            names = [*header.names[: len(names)], *numbers[len(header.names) :]]
            # A known name serves as well as the number of its column.
            found = [
                names[int(name) - 1] if name not in names and name in numbers else name
                for name in wanted
            ]
        self._require(found, names, self.place(0))
        places = [names.index(name) for name in found]
        body = memoryview(self.content)[second if skipped else 0 :]
        if not bytes(body[:_SAMPLE]).strip(b"\r\n") and not bytes(body).strip(b"\r\n"):
            raise DatasetError(f"{self.path}: the file has no rows; a data set needs interactions")
        arrays = self._parsed(pa.py_buffer(body), len(names), places, skipped)
        quoted = [False] * len(places)
        if self.quoting:
            every = self.quoted_fields == len(names) * (len(arrays[0]) + skipped)
            quoted = [True] * len(places) if every else self._quoted(places, len(names), skipped)
        elif b'"' in self.content:
            arrays, quoted = map(list, zip(*map(_unquoted, arrays), strict=True))
        typed = {
            name
            for name, real, is_quoted in zip(wanted, found, quoted, strict=True)
            if is_quoted or real in typed
        }
        return Columns(
            str(self.path),
            dict(zip(wanted, arrays, strict=True)),
            lambda row: self.place(row + skipped),
            typed,
            notes,
        )

    def _first_record(self) -> tuple[int, int]:
        """Returns where the first record begins and ends."""
        start = len(self.content) - len(self.content.lstrip(b"\r\n"))
        if self.inside is None:
            end = re.compile(rb"[\r\n]|\Z").search(self.content, start)
            assert end is not None
            return start, end.start()
        for stop in (start + _SAMPLE, None):
            ends = self.ends(stop)
            after = np.searchsorted(ends, start)
            if after < ends.size:
                return start, int(ends[after])
        return start, len(self.content)

    def _fields(self, start: int, end: int) -> list[str]:
        """Returns the fields of one record, read as the others are."""
        record = self.content[start:end]
        number = self._number_of_fields(record)
        arrays = self._parsed(pa.py_buffer(record), number, range(number), 0)
        if not self.quoting and b'"' in record:
            arrays = [_unquoted(array)[0] for array in arrays]
        return [array[0].as_py() for array in arrays]

    def _parsed(
        self, body: pa.Buffer, fields: int, places: Sequence[int], skipped: int
    ) -> list[pa.Array]:
        """Parses records of so many fields and returns those at the places, as text."""
        names = [str(field) for field in range(fields)]
        wanted = [names[place] for place in places]
        invalid: list[Any] = []

        def remember(row: Any) -> str:
            invalid.append(row)
            return "error"

        def parse(block: int) -> pa.Table:
            return pa.csv.read_csv(
                pa.BufferReader(body),
                # Only a single thread counts the rows.
                read_options=pa.csv.ReadOptions(
                    use_threads=False, block_size=block, column_names=names
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self.separator,
                    quote_char='"' if self.quoting else False,
                    newlines_in_values=self.quoting,
                    invalid_row_handler=remember,
                ),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
                ),
            )

        try:
            try:
                table = parse(1 << 20)
            except pa.ArrowInvalid as error:
                if "block" not in str(error):
                    raise
                table = parse(min(body.size + 1, 2**31 - 1))  # a line is longer than that
        except pa.ArrowInvalid as error:
            if not invalid:
                reason = " ".join(str(error).split())
                raise DatasetError(f"{self.path}: {shown(reason)}; repair the file") from error
            bad = invalid[0]
            uneven = _UnevenError(
                f"{self.path}, {self.place(bad.number - 1 + skipped)}: {bad.actual_columns} fields "
                f"where {bad.expected_columns} are expected; repair the line"
            )
            uneven.fields = bad.expected_columns
            raise uneven from error
        return [column.combine_chunks() for column in table.columns]

    def _number_of_fields(self, record: bytes) -> int:
        separator = self.separator.encode()
        if self.quoting:
            record = re.sub(
                rb"(?:(?<=" + re.escape(separator) + rb')|\A)"[^"]*(?:""[^"]*)*"', b"", record
            )
        return record.count(separator) + 1

    def _quoted(self, columns: list[int], fields: int, skipped: int) -> list[bool]:
        """Tells for each column whether each of its fields is quoted."""
        assert self.inside is not None
        is_end = (self.bytes == _LF) | (self.bytes == _CR)
        before = np.flatnonzero((is_end | (self.bytes == ord(self.separator))) & ~self.inside)
        starts = before + 1
        starts = starts[starts < self.bytes.size]
        blank = is_end[starts] & is_end[starts - 1]
        starts = starts[~blank]
        if not is_end[0]:
            starts = np.append(0, starts)
        if starts.size % fields:
            return [False] * len(columns)  # a field without a byte ends the file
        table = self.bytes[starts].reshape(-1, fields)[skipped:]
        return [bool((table[:, column] == _QUOTE).all()) for column in columns]

    def _require(self, wanted: Sequence[str], names: Sequence[str], place: str) -> None:
        for name in wanted:
            if names.count(name) == 1:
                continue
            if name in names:
                raise DatasetError(
                    f"{self.path}, {place}: two columns {shown(name)}; rename one of them"
                )
            listed = ", ".join(
                name if len(name) < 60 else shown(name) for name in names[:_MOST_NAMES_SHOWN]
            )
            more = (
                f" and {len(names) - _MOST_NAMES_SHOWN} more" if names[_MOST_NAMES_SHOWN:] else ""
            )
            hint = ""
            if len(names) == 1:
                other = next((sep for sep in SEPARATORS if sep in names[0]), None)
                hint = f", or set `separator={_NAMES.get(other, other)!r}`" if other else ""
            raise DatasetError(
                f"{self.path}, {place}: no column {shown(name)}; name one of {listed}{more}{hint}"
            )


def _unquoted(array: pa.Array) -> tuple[pa.Array, bool]:
    """Takes the quotes off the fields that are wholly quoted; tells whether all are."""
    quoted = pc.match_substring_regex(array, _WHOLLY_QUOTED)
    if not pc.any(quoted).as_py():
        return array, False
    bare = pc.replace_substring(pc.utf8_slice_codeunits(array, 1, -1), '""', '"')
    return pc.if_else(quoted, bare, array), bool(pc.all(quoted).as_py())


def _sniffed(path: Path, content: bytes) -> str:
    """Finds the separator that divides each of the first lines into as many fields."""
    lines = re.split(rb"[\r\n]+", content[:_SAMPLE].strip(b"\r\n"))
    if len(content) > _SAMPLE and len(lines) > 1:
        lines.pop()
    sample = [re.sub(rb'"[^"]*"', b'""', line) for line in lines[:_SAMPLE_LINES]]
    for separator in SEPARATORS:
        numbers = {line.count(separator.encode()) for line in sample}
        if len(numbers) == 1 and numbers != {0}:
            return separator
    raise DatasetError(
        f"{path}: no separator divides each of the first {len(sample)} lines into as many fields; "
        "set `separator` to the right one"
    )
