"""The items of each user as sorted gaps of few bytes, from which single lists can be read."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pyg_lth.tickets.container import malformed

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

# A gap has seven bits in each byte, and items are counted in 31.
_BITS, _MORE = 7, 128
_GAP_BYTES_AT_MOST = 5
ITEMS_AT_MOST = (1 << 31) - 1

# Bytes of gaps that are unpacked in one go, or those of one user where they are more.
_BYTES_AT_ONCE = 1 << 14


def smallest_type(largest: int) -> np.dtype[Any]:
    """The smallest type for the integers from 0 to ``largest``."""
    return next(
        kind for kind in map(np.dtype, ("u1", "<u2", "<u4", "<i8")) if largest <= np.iinfo(kind).max
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ItemLists:
    """The items of each user, ascending.

    A list is stored as its first item and the gaps to each next one, less one, each in as many
    bytes of seven bits as it needs, the lowest first, with the highest bit of all but the last set.

    Args:
        num_items: Items there are.
        lengths: Bytes of each user's list, shape ``[users]``.
        gaps: The lists, one after the other, bytes.

    Example:
        >>> import numpy as np
        >>> from pyg_lth.tickets.lists import ItemLists
        >>> lists = ItemLists.from_pairs(np.array([[0, 0, 2], [4, 300, 1]]), 3, 400)
        >>> lists.gaps.tolist()
        [4, 167, 2, 1]
        >>> lists.of_users([2, 0])
        (array([0, 1, 3]), array([  1,   4, 300]))
    """

    num_items: int
    lengths: Array
    gaps: npt.NDArray[np.uint8]

    @classmethod
    def from_pairs(cls, pairs: Integers, num_users: int, num_items: int) -> "ItemLists":
        """Store distinct pairs of user and item, shape ``[2, E]``, in any order."""
        user, item = pairs[:, np.lexsort((pairs[1], pairs[0]))]
        gap = np.diff(item, prepend=-1) - 1
        first = np.diff(user, prepend=-1) != 0
        gap[first] = item[first]
        size = np.ones(gap.size, np.int64)
        for more in range(1, _GAP_BYTES_AT_MOST):
            size += gap >> (_BITS * more) > 0
        begin = np.cumsum(size) - size
        gaps = np.empty(int(size.sum()), np.uint8)
        for place in range(int(size.max(initial=0))):
            there = size > place
            byte = (gap[there] >> (_BITS * place)) & (_MORE - 1)
            gaps[begin[there] + place] = byte + _MORE * (size[there] > place + 1)
        lengths = np.bincount(user, weights=size, minlength=num_users).astype(np.int64)
        return cls(num_items, lengths.astype(smallest_type(int(lengths.max(initial=0)))), gaps)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Array], num_users: int, num_items: int
    ) -> "ItemLists":
        """Check what a file holds of the lists, and take it as them.

        Raises:
            Malformed: If they are not those of so many users and items.
        """
        lengths, gaps = tensors["lengths"], tensors["gaps"]
        if lengths.size != num_users or lengths.dtype.kind not in "ui" or gaps.dtype != np.uint8:
            malformed(f"its interactions are not those of {num_users:,} users")
        if lengths.dtype.kind == "i" and (lengths < 0).any():
            malformed("a list of items in it has a negative length")
        # In floats, which get imprecise where integers would wrap around.
        if float(lengths.sum(dtype=np.float64)) != gaps.size:
            malformed("the lengths of its lists of items do not add up to their bytes")
        lists = cls(num_items, lengths, gaps)
        lists._check()
        return lists

    def tensors(self) -> dict[str, Array]:
        """What is stored."""
        return {"lengths": self.lengths, "gaps": self.gaps}

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return self.lengths.nbytes + self.gaps.nbytes

    @property
    def num_users(self) -> int:
        """Number of lists."""
        return self.lengths.size

    @functools.cached_property
    def degrees(self) -> Integers:
        """How many users have each item, shape ``[items]``."""
        degrees = np.zeros(self.num_items, np.int64)
        for users in self._blocks():
            degrees += np.bincount(self.of_users(users)[1], minlength=self.num_items)
        return degrees

    def of_users(self, users: npt.ArrayLike | slice) -> tuple[Integers, Integers]:
        """The items of some users in CSR form.

        Args:
            users: Which, integers of shape ``[n]`` or a slice.

        Returns:
            Row pointers, shape ``[n + 1]``, and items, ascending within a user.
        """
        if isinstance(users, slice):
            begin, end, _ = users.indices(self.num_users)
            ends = self._ends[begin:end] - self._begin(begin)
            packed = self.gaps[self._begin(begin) : self._begin(max(begin, end))]
        else:
            index = np.asarray(users, np.int64).reshape(-1)
            length = self.lengths[index].astype(np.int64)
            ends = np.cumsum(length)
            at = np.arange(ends[-1] if index.size else 0)
            at += np.repeat(self._ends[index] - ends, length)
            packed = self.gaps[at]
        gap, last = _unpack(packed)
        rowptr = np.zeros(ends.size + 1, np.int64)
        rowptr[1:] = np.searchsorted(last, ends)
        passed = np.cumsum(gap + 1)
        before = np.concatenate([[0], passed])[rowptr[:-1]]
        return rowptr, passed - 1 - np.repeat(before, np.diff(rowptr))

    def _begin(self, user: int) -> int:
        return int(self._ends[user - 1]) if user else 0

    @functools.cached_property
    def _ends(self) -> Integers:
        return np.cumsum(self.lengths, dtype=np.int64)

    def _blocks(self) -> Iterator[slice]:
        """Consecutive users whose lists are few enough bytes to unpack in one go."""
        begin = 0
        while begin < self.num_users:
            limit = self._begin(begin) + _BYTES_AT_ONCE
            end = max(begin + 1, int(np.searchsorted(self._ends, limit, side="right")))
            yield slice(begin, end)
            begin = end

    def _check(self) -> None:
        for users in self._blocks():
            packed = self.gaps[self._begin(users.start) : self._begin(users.stop)]
            ends = self._ends[users][self.lengths[users] > 0] - self._begin(users.start)
            if (packed[ends - 1] >= _MORE).any():
                malformed("a list of items in it ends within a gap")
            last = np.flatnonzero(packed < _MORE)
            size = np.diff(last, prepend=-1)
            if (size > _GAP_BYTES_AT_MOST).any() or (packed[last[size > 1]] == 0).any():
                malformed("a gap between items in it takes more bytes than it needs")
            # First each gap, so that no sum of them can wrap around.
            if size.size and (
                _unpack(packed)[0].max() >= self.num_items
                or self.of_users(users)[1].max() >= self.num_items
            ):
                malformed(f"an item in it is outside its {self.num_items:,}")


def _unpack(packed: npt.NDArray[np.uint8]) -> tuple[Integers, Integers]:
    """The gaps that some bytes stand for, and the place of each one's last byte."""
    last = np.flatnonzero(packed < _MORE)
    gap = packed[last].astype(np.int64)
    size = np.diff(last, prepend=-1)
    for more in range(1, int(size.max(initial=1))):
        there = np.flatnonzero(size > more)
        gap[there] = (gap[there] << _BITS) | (packed[last[there] - more] & (_MORE - 1))
    return gap, last
