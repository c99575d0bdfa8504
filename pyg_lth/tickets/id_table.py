"""Original ids of users or items: what they stand for, and back."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyg_lth.errors import InputError
from pyg_lth.tickets.container import malformed
from pyg_lth.tickets.lists import smallest_type

Array = npt.NDArray[Any]
Id = int | str


@dataclasses.dataclass(frozen=True, eq=False)
class IdTable:
    """The original id of every index: integers, text, or the index itself, which takes no bytes.

    Args:
        number: Number of ids.
        tensors: What is stored: nothing, ``numbers``, or ``lengths`` and ``text`` (UTF-8).

    Example:
        >>> from pyg_lth.tickets.id_table import IdTable
        >>> ids = IdTable.of(["ann", "ben", "zoë"])
        >>> ids.index_of("ben"), ids.index_of("carl"), ids.at([2])
        (1, None, ['zoë'])
        >>> IdTable.of(range(1000)).nbytes
        0
    """

    number: int
    tensors: Mapping[str, Array]

    @classmethod
    def of(cls, ids: Sequence[Id] | Array) -> "IdTable":
        """Store ids.

        Raises:
            InputError: If one stands twice, or some are integers and others text.
        """
        listed: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        kinds = {type(value) for value in listed}
        if not (kinds <= {int} or kinds <= {str}):
            raise InputError("ids are either all integers or all text: turn them all into text")
        if len(set(listed)) < len(listed):
            raise InputError("an id stands for two indices: give each its own")
        if kinds == {str}:
            parts = [value.encode() for value in listed]
            lengths = np.array([len(part) for part in parts])
            text = np.frombuffer(b"".join(parts), np.uint8)
            return cls(
                len(listed),
                {"lengths": lengths.astype(smallest_type(int(lengths.max()))), "text": text},
            )
        if listed == list(range(len(listed))):
            return cls(len(listed), {})
        if not all(-(2**63) <= value < 2**63 for value in listed):
            raise InputError("an id is beyond 64 bits: turn all into text")
        kind = smallest_type(max(listed)) if min(listed) >= 0 else np.dtype("<i8")
        return cls(len(listed), {"numbers": np.array(listed, kind)})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], number: int) -> "IdTable":
        """Check what a file holds of the ids, and take it as them.

        Raises:
            Malformed: If it is not a different id for each of ``number``.
        """
        names = set(tensors)
        if names not in (set(), {"numbers"}, {"lengths", "text"}):
            malformed("its ids are neither integers nor text")
        table = cls(number, tensors)
        if "numbers" in names:
            numbers = tensors["numbers"]
            if numbers.size != number or numbers.dtype.kind not in "ui":
                malformed(f"it has not an id for each of {number:,}")
            ascending = (numbers[1:] > numbers[:-1]).all()
            if not ascending and np.unique(numbers).size != number:
                malformed("an id in it stands for two indices")
        if "text" in names:
            lengths, text = tensors["lengths"], tensors["text"]
            if lengths.size != number or lengths.dtype.kind != "u" or text.dtype != np.uint8:
                malformed(f"it has not an id for each of {number:,}")
            if int(lengths.sum(dtype=np.float64)) != text.size:
                malformed("the lengths of its ids do not add up to their bytes")
            try:
                ids = [bytes(table._bytes(index)).decode() for index in range(number)]
            except UnicodeDecodeError:
                malformed("an id in it is not UTF-8")
            if len(set(ids)) < number:
                malformed("an id in it stands for two indices")
        return table

    @property
    def is_text(self) -> bool:
        """Whether the ids are text."""
        return "text" in self.tensors

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return sum(array.nbytes for array in self.tensors.values())

    def index_of(self, value: Id) -> int | None:
        """The index of an id, :obj:`None` where there is none; text of an integer counts as it."""
        if self.is_text:
            return self._places.get(str(value))
        try:
            number = int(value)
        except (ValueError, OverflowError):
            return None
        if str(number) != str(value):
            return None
        if self.tensors:
            return self._places.get(number)
        return number if 0 <= number < self.number else None

    def at(self, index: npt.ArrayLike) -> list[Any]:
        """The ids of some indices, integers or text."""
        index = np.asarray(index, np.int64)
        if self.is_text:
            return [bytes(self._bytes(place)).decode() for place in index.tolist()]
        found = self.tensors["numbers"][index] if self.tensors else index
        ids: list[Any] = found.tolist()
        return ids

    def __len__(self) -> int:
        return self.number

    def _bytes(self, index: int) -> Array:
        ends = self._ends
        return self.tensors["text"][ends[index - 1] if index else 0 : ends[index]]

    @functools.cached_property
    def _ends(self) -> Array:
        return np.cumsum(self.tensors["lengths"], dtype=np.int64)

    @functools.cached_property
    def _places(self) -> dict[Any, int]:
        return {value: place for place, value in enumerate(self.at(np.arange(self.number)))}
