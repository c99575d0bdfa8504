"""Columns of a log and what they mean: ids, times, ratings, and what is missing."""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .errors import DatasetError, shown
from .filtering import Codes, Numbers
from .ids import as_integers

IdKind = Literal["auto", "text", "integer"]

# What programs write for a value that is not there, in any case.
MISSING = ("", "none", "null", "nan", "n/a", "<na>", "\\n")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^[+-]?[0-9]+$"
# The decimal digits that every float64 keeps; a sign, a point and some room are added.
_EXACT_WIDTH = 15
# Times after 1973 and before 2128, in seconds; times 1000 in each of the next units.
_EPOCH = (1e8, 5e9)
_UNITS = ("s", "ms", "µs", "ns")


class Columns:
    """Some columns of a file or a frame, checked when they are taken.

    Args:
        source: What the errors call the file.
        columns: The columns by name, all of the same length.
        place: Names the place of a row in the file, such as `line 7`.
        typed: The names of the columns that say themselves that they hold text.
        notes: What was guessed at when they were read.

    Raises:
        DatasetError: If there are no rows.
    """

    def __init__(
        self,
        source: str,
        columns: dict[str, pa.Array],
        place: Callable[[int], str],
        typed: Iterable[str] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.source = source
        self.place = place
        self.typed = frozenset(typed)
        self.notes = notes
        self._columns = {name: plain(array) for name, array in columns.items()}
        if not self.rows:
            raise DatasetError(f"{source}: the file has no rows; a data set needs interactions")

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self._columns.values())))

    def column(self, name: str) -> pa.Array:
        """Returns a column as it is: one array of no dictionary, with text of one type."""
        return self._columns[name]

    def error(self, row: int, reason: str) -> DatasetError:
        """Returns the error about a row."""
        return DatasetError(f"{self.source}, {self.place(row)}: {reason}")

    def without_missing(self, names: Sequence[str]) -> "Columns":
        """Returns the rows that have a value in each of some columns, with a note on the rest.

        Args:
            names: The columns.

        Raises:
            DatasetError: If no row is left.
        """
        missing = self._missing_rows(names)
        if not missing.size:
            return self
        if missing.size == self.rows:
            raise DatasetError(f"{self.source}: every row lacks one of {', '.join(names)}")
        note = (
            f"{self.source}: {missing.size:,} rows without a value in {' or '.join(names)} dropped "
            f"(first: {self.place(int(missing[0]))})"
        )
        return self._without(missing, names, (*self.notes, note))

    def _missing_rows(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Returns the rows that lack a value in one of some columns, ascending."""
        found = np.zeros(self.rows, dtype=bool)
        for name in names:
            found |= missing_in(self.column(name))
        return np.flatnonzero(found)

    def _without(
        self, dropped: npt.NDArray[np.int64], names: Sequence[str], notes: tuple[str, ...]
    ) -> "Columns":
        """Returns some columns without some rows."""
        kept = np.delete(np.arange(self.rows), dropped)
        return Columns(
            self.source,
            {name: self.column(name).take(pa.array(kept)) for name in names},
            lambda row: self.place(int(kept[row])),
            self.typed,
            notes,
        )

    def ids(self, name: str, kind: IdKind = "auto") -> tuple[Codes, npt.NDArray[Any]]:
        """Takes a column of ids: text or integers.

        Args:
            name: The name of the column.
            kind: `text` or `integer`, whatever they look like. `auto` leaves typed text as it is;
                of other text it makes integers if all are (`007` is none). Where at least half of
                the distinct values look like integers but not all do, and none has a leading zero
                as codes have, a column is taken for damaged: shifted, or with a header in the
                middle.

        Returns:
            The position of each row's id among the distinct ids, whole numbers of shape [rows], and
            the distinct ids in ascending order: int64 or text.

        Raises:
            DatasetError: If an id is missing, or of another type than the others.
        """
        array = self.column(name)
        is_text = _is_text(array)
        if is_text and name not in self.typed:
            array = pc.utf8_trim_whitespace(array)
        reason = f"empty id in column {name!r}; give every row one, or set `drop_missing`"
        if array.null_count or not is_text:
            self._refuse(missing_in(array), reason)
        if pa.types.is_floating(array.type) and kind == "integer":
            floats = array.to_numpy(zero_copy_only=False)
            whole = (np.floor(floats) == floats) & (np.abs(floats) < 2.0**53)
            self._refuse(~whole, f"column {name!r} holds no whole number of at most 53 bits")
            array = array.cast(pa.int64(), safe=False)
        elif not is_text and not pa.types.is_integer(array.type):
            raise DatasetError(
                f"{self.source}: column {name!r} holds {shown(array.type)}; store ids as text or "
                "integers"
            )
        encoded = array.dictionary_encode()
        codes = encoded.indices.to_numpy().astype(np.int64)
        if is_text and (missing := missing_in(encoded.dictionary)).any():
            self._refuse(missing[codes], reason)
        numbers = None if is_text or kind == "text" else _int64(encoded.dictionary)
        if numbers is not None:
            distinct, rank = np.unique(numbers, return_inverse=True)
            return rank[codes], distinct
        texts = [str(value) for value in encoded.dictionary.to_pylist()]
        if kind == "text" or (kind == "auto" and is_text and name in self.typed):
            values: npt.NDArray[Any] = np.array(texts, dtype=object)
        elif kind == "integer":
            values = self._as_integers(name, codes, texts)
        else:
            values = as_integers(texts)
            if is_text and values.dtype == object:
                self._refuse_text_among_integers(name, codes, encoded.dictionary)
        distinct, rank = np.unique(values, return_inverse=True)
        return rank[codes], distinct

    def _as_integers(
        self, name: str, codes: npt.NDArray[np.int64], texts: list[str]
    ) -> npt.NDArray[np.int64]:
        whole = pc.match_substring_regex(pa.array(texts), _WHOLE).to_numpy(False)
        limit = np.iinfo(np.int64)
        # Python itself refuses to read integers of thousands of digits.
        values = [
            int(text) if fits and len(text) < 1000 else limit.max + 1
            for text, fits in zip(texts, whole, strict=True)
        ]
        small = np.array([limit.min <= value <= limit.max for value in values])
        for good, reason in ((whole, "is no integer"), (small, "needs more than 64 bits")):
            if not good.all():
                row = int(np.flatnonzero(~good[codes])[0])
                raise self.error(
                    row,
                    f"id {shown(texts[codes[row]])} in column {name!r} {reason}; set `ids=text`",
                )
        return np.array(values, dtype=np.int64)

    def _refuse_text_among_integers(
        self, name: str, codes: npt.NDArray[np.int64], distinct: pa.Array
    ) -> None:
        whole = pc.match_substring_regex(distinct, r"^-?[0-9]+$").to_numpy(False)
        are_codes = pc.any(pc.match_substring_regex(distinct, r"^-?0[0-9]")).as_py()
        if not are_codes and not whole.all() and whole.sum() * 2 >= whole.size:
            row = int(np.flatnonzero(~whole[codes])[0])
            raise self.error(
                row,
                f"id {shown(distinct[int(codes[row])].as_py())} in column {name!r} is text among "
                "integers; repair the row, or set `ids=text`",
            )

    def numbers(self, name: str) -> Numbers:
        """Takes a column of numbers or truth values, as exact as it holds them.

        Args:
            name: The name of the column.

        Returns:
            Shape [rows]: int64 where text holds integers alone, else float64; other columns keep
            their type. `true` is 1 and `false` 0.

        Raises:
            DatasetError: If one is missing or no finite number.
        """
        array = self.column(name)
        if _is_text(array):
            self._refuse_text(array, name)
            array = _numbers_of(array)
        elif pa.types.is_boolean(array.type):
            self._refuse(missing_in(array), self._no_number(name))
            array = array.cast(pa.int8())
        elif pa.types.is_decimal(array.type):
            array = array.cast(pa.string()).cast(pa.float64())  # the nearest, unlike in one step
        elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
            raise DatasetError(
                f"{self.source}: column {name!r} holds {shown(array.type)}; store it as numbers"
            )
        self._refuse(missing_in(array), self._no_number(name))
        numbers: Numbers = array.to_numpy(zero_copy_only=False)
        self._refuse(~np.isfinite(numbers), self._no_number(name))
        return numbers

    def times(self, name: str) -> Numbers:
        """Takes a column of times, for their order alone.

        Args:
            name: The name of the column.

        Returns:
            Shape [rows]: ascending with time.

        Raises:
            DatasetError: If one is missing or no time.
        """
        array = self.time_array(name)
        if _is_text(array) or pa.types.is_decimal(array.type):
            return _ranks(array, Decimal)
        if pa.types.is_date32(array.type):
            array = array.cast(pa.int32())
        elif pa.types.is_temporal(array.type):
            array = array.cast(pa.int64())
        times: Numbers = _numpy(array)
        return times

    def time_array(self, name: str) -> pa.Array:
        """Takes a column of times, checked and in the type that keeps them exactly.

        Numbers of any one unit; ISO 8601 dates and times, all with a zone or none; dates,
        timestamps and durations of Parquet and frames.

        Args:
            name: The name of the column.

        Returns:
            Shape [rows]: numbers or times; text where the numbers have more digits than a float64.

        Raises:
            DatasetError: If one is missing or no time.
        """
        array = self.column(name)
        if _is_text(array):
            trimmed = pc.utf8_trim_whitespace(array)
            if not pc.match_substring_regex(trimmed[:1], NUMBER)[0].as_py():
                self._refuse(missing_in(array), self._no_number(name))
                return self._iso_times(trimmed, name)
            self._refuse_text(array, name)
            array = _numbers_of(trimmed)
            too_exact = pc.max(pc.utf8_length(trimmed)).as_py() > _EXACT_WIDTH
            if pa.types.is_floating(array.type) and too_exact:
                return trimmed
        elif not (
            pa.types.is_integer(array.type)
            or pa.types.is_floating(array.type)
            or pa.types.is_decimal(array.type)
            or (pa.types.is_temporal(array.type) and not pa.types.is_time(array.type))
        ):
            raise DatasetError(
                f"{self.source}: column {name!r} holds {shown(array.type)}; store times as "
                "numbers, ISO 8601 text or timestamps"
            )
        self._refuse(missing_in(array), self._no_number(name))
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            times = _numpy(array)
            self._refuse(~np.isfinite(times), self._no_number(name))
            self._refuse_mixed_units(times, name)
        return array

    def _iso_times(self, array: pa.Array, name: str) -> pa.Array:
        """Reads ISO 8601 text: to the nanosecond, or to the microsecond beyond the year 2262."""
        reached = 0
        for unit in ("ns", "us"):
            for zone in (None, "UTC"):
                kind = pa.timestamp(unit, zone)
                try:
                    return array.cast(kind)
                except pa.ArrowInvalid:
                    reached = max(reached, first_failure(array, kind))
        if reached == 0:
            raise self.error(
                0,
                f"column {name!r} holds no number and no ISO 8601 time: {shown(array[0].as_py())}",
            )
        raise self.error(
            reached,
            f"time {shown(array[reached].as_py())} in column {name!r} is no ISO 8601 time as those "
            "before; write all as dates, or as times with a zone in all rows or in none",
        )

    def _refuse_mixed_units(self, times: Numbers, name: str) -> None:
        low, high = _EPOCH
        with np.errstate(over="ignore"):
            unit = np.full(times.shape, -1)
            for power in range(len(_UNITS)):
                factor = 1000.0**power
                unit[(times >= low * factor) & (times < high * factor)] = power
        if (unit >= 0).all() and (unit != unit[0]).any():
            row = int(np.argmax(unit != unit[0]))
            raise self.error(
                row,
                f"time {times[row]} in column {name!r} looks like {_UNITS[unit[row]]} where those "
                f"before are in {_UNITS[unit[0]]}; use one unit",
            )

    def _refuse_text(self, array: pa.Array, name: str) -> None:
        """Raises the error for the first text that is neither a number nor `true` or `false`."""
        trimmed = pc.utf8_trim_whitespace(array)
        bad = ~pc.match_substring_regex(trimmed, NUMBER).fill_null(False).to_numpy(False)
        if bad.any() and _are_truth_values(trimmed):
            return
        if bad.any():
            row = int(np.argmax(bad))
            value = array[row].as_py()
            hint = ", or set `drop_missing`" if missing_in(array)[row] else ""
            raise self.error(
                row, f"{self._no_number(name)}: {shown(value)}; every row needs one{hint}"
            )

    def _no_number(self, name: str) -> str:
        return f"column {name!r} holds no number"

    def _refuse(self, bad: npt.NDArray[np.bool_], reason: str) -> None:
        """Raises the error for the first row that is bad, if one is."""
        if bad.any():
            raise self.error(int(np.argmax(bad)), reason)


def plain(array: pa.Array) -> pa.Array:
    """Returns one array of no dictionary, with text of one type."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    return array


def _is_text(array: pa.Array) -> bool:
    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type))


def missing_in(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Returns which values are missing: none at all, NaN, or what programs write for it."""
    if _is_text(array):
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(array))
        found = pc.is_in(lowered, value_set=pa.array(MISSING, array.type))
        found = pc.or_(found, array.is_null())
    else:
        found = array.is_null(nan_is_null=True)
    missing: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return missing


def _are_truth_values(array: pa.Array) -> bool:
    lowered = pc.utf8_lower(array)
    return bool(
        pc.all(pc.is_in(lowered, value_set=pa.array(["true", "false"], array.type))).as_py()
    )


def _numbers_of(array: pa.Array) -> pa.Array:
    """Turns text that is known to hold numbers, or truth values, into them."""
    array = pc.utf8_trim_whitespace(array)
    if _are_truth_values(array):
        return pc.equal(pc.utf8_lower(array), "true").cast(pa.int8())
    if pc.any(pc.starts_with(array, "+")).as_py():
        array = pc.replace_substring_regex(array, r"^\+", "")
    if pc.all(pc.match_substring_regex(array, _WHOLE)).as_py():
        try:
            return array.cast(pa.int64())
        except pa.ArrowInvalid:
            pass  # more than 64 bits
    return array.cast(pa.float64())


def _ranks(array: pa.Array, key: Callable[[Any], Any]) -> npt.NDArray[np.int64]:
    """Numbers exact values by their order, equal ones alike."""
    encoded = array.dictionary_encode()
    values = [key(value) for value in encoded.dictionary.to_pylist()]
    place = {value: rank for rank, value in enumerate(sorted(set(values)))}
    ranks = np.array([place[value] for value in values], dtype=np.int64)
    found: npt.NDArray[np.int64] = ranks[encoded.indices.to_numpy()]
    return found


def _int64(array: pa.Array) -> npt.NDArray[np.int64] | None:
    """Returns whole numbers, or nothing if one of them needs more than 64 bits and a sign."""
    try:
        found: npt.NDArray[np.int64] = array.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return found


def _numpy(array: pa.Array) -> Any:
    return array.to_numpy(zero_copy_only=False)


def first_failure(array: pa.Array, kind: pa.DataType) -> int:
    """Returns the first row that cannot be cast, by halving."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            array.slice(low, middle - low).cast(kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
