"""Interactions as a CSR matrix of int32, read from Parquet without holding their rows."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .columns import IdKind
from .errors import DatasetError
from .parquet import PIECE, ParquetColumns

# As many items can be numbered in int32.
MOST_ITEMS = 2**31


class InteractionCSR(NamedTuple):
    """The distinct interactions of a log, user by user.

    The items of user `u` are `indices[indptr[u] : indptr[u + 1]]`, ascending.

    Args:
        indptr: Where the items of each user begin, and the end of the last: int64 of shape [U + 1].
        indices: The items, int32 of shape [E].
        user_ids: The original id of every user, ascending: int64 where all are integers, else text.
        item_ids: The original id of every item, likewise.
        notes: What was merged or dropped.

    Example:
        >>> import numpy as np
        >>> from pyg_lth.datasets import InteractionCSR
        >>> ids = np.arange(3)
        >>> csr = InteractionCSR(np.array([0, 1, 1, 3]), np.array([2, 0, 1], np.int32), ids, ids)
        >>> csr.pairs().tolist(), csr.nbytes
        ([[0, 2, 2], [2, 0, 1]], 44)
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    user_ids: npt.NDArray[Any]
    item_ids: npt.NDArray[Any]
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """The bytes of the matrix, without the ids."""
        return self.indptr.nbytes + self.indices.nbytes

    def pairs(self) -> npt.NDArray[np.int64]:
        """Returns the interactions as :meth:`InteractionGraph.from_pairs` takes them.

        Returns:
            Users, then items, int64 of shape [2, E], sorted: 16 bytes an interaction.
        """
        found = np.empty((2, self.indices.size), dtype=np.int64)
        found[0] = np.repeat(np.arange(self.indptr.size - 1), np.diff(self.indptr))
        found[1] = self.indices
        return found


def read_csr(
    path: str | Path,
    user_col: str = "user_id",
    item_col: str = "item_id",
    ids: IdKind = "auto",
    drop_missing: bool = False,
) -> InteractionCSR:
    """Reads a Parquet file, or a folder of parts, larger than memory would hold as rows.

    It is read twice, a piece at a time: first to learn the ids and how many interactions each user
    has, then to put each interaction in its place. Ids, merging and refusals are those of
    :class:`InteractionFile`, which makes a split of it besides.

    Args:
        path: The file or the folder; folders in it are read too, and what starts with `.` or `_`
            is not.
        user_col: The column of the user ids.
        item_col: The column of the item ids.
        ids: As in :class:`InteractionFile`.
        drop_missing: As there.

    Raises:
        DatasetError: If there are no parts or rows, one is damaged, an id is missing or of another
            type than the others, or there are more than 2³¹ items.

    Example:
        >>> import pandas
        >>> from pathlib import Path
        >>> from pyg_lth.datasets import read_csr
        >>> Path("log").mkdir()
        >>> for part, songs in enumerate(([7, 9, 7], [5, 5, 7])):
        ...     frame = pandas.DataFrame({"user_id": ["ben", "ann", "ben"], "item_id": songs})
        ...     frame.to_parquet(f"log/part-{part}.parquet")
        >>> csr = read_csr("log")
        >>> csr.user_ids.tolist(), csr.item_ids.tolist()
        (['ann', 'ben'], [5, 7, 9])
        >>> csr.indptr.tolist(), csr.indices.tolist()
        ([0, 2, 4], [0, 2, 0, 1])
        >>> csr.notes
        ('log: 2 repeated interactions merged',)
    """
    path = Path(path)
    if user_col == item_col:
        raise DatasetError(f"{path}: one column cannot play two parts; name different ones")
    names = [user_col, item_col]
    columns = ParquetColumns(path, names)
    if drop_missing:
        rest = columns.without_missing(names)
        assert isinstance(rest, ParquetColumns)
        columns = rest
    for name in names:
        if not columns.can_learn(name):
            columns.ids(name, ids)  # Refuses it, as it would any other reader.
    users, items = (columns.distinct(name) for name in names)
    found, row = np.zeros(0, dtype=np.int64), 0
    for user_piece, item_piece in columns.pieces(names):
        codes = users.learn(user_piece, row)
        items.learn(item_piece, row)
        counts = np.bincount(codes, minlength=len(users.values))
        counts[: found.size] += found
        found, row = counts, row + len(codes)
    user_rank, user_ids = columns.rank(user_col, ids, users)
    item_rank, item_ids = columns.rank(item_col, ids, items)
    if item_ids.size > MOST_ITEMS:
        raise DatasetError(f"{path}: {item_ids.size:,} items are more than int32 can number")
    degrees = np.zeros(user_ids.size, dtype=np.int64)
    np.add.at(degrees, user_rank, found)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.empty(row, dtype=np.int32)
    free = indptr[:-1].copy()
    for user_piece, item_piece in columns.pieces(names):
        _fill(indices, free, user_rank[users.find(user_piece)], item_rank[items.find(item_piece)])
    indptr = _sort_and_merge(indptr, indices, item_ids.size)
    repeated = row - int(indptr[-1])
    merged = (f"{path}: {repeated:,} repeated interactions merged",) if repeated else ()
    # In place: a copy would be half as much again.
    indices.resize(int(indptr[-1]), refcheck=False)
    return InteractionCSR(indptr, indices, user_ids, item_ids, columns.notes + merged)


def _fill(
    indices: npt.NDArray[np.int32],
    free: npt.NDArray[np.int64],
    users: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
) -> None:
    """Puts interactions in the next free places of their users."""
    order = np.argsort(users, kind="stable")
    users = users[order]
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    lengths = np.diff(starts, append=users.size)
    within = np.arange(users.size) - np.repeat(starts, lengths)
    indices[free[users] + within] = items[order]
    free[users[starts]] += lengths


def _sort_and_merge(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], num_items: int
) -> npt.NDArray[np.int64]:
    """Sorts each row and drops what it has twice, some rows at a time and in place."""
    num_users, first, end = indptr.size - 1, 0, 0
    degrees = np.empty(num_users, dtype=np.int64)
    while first < num_users:
        last = int(np.searchsorted(indptr, indptr[first] + PIECE, side="right")) - 1
        last = max(last, first + 1)
        rows = np.repeat(np.arange(last - first), np.diff(indptr[first : last + 1]))
        keys = rows * num_items + indices[indptr[first] : indptr[last]]
        keys.sort()
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        rows, items = np.divmod(keys, num_items)
        degrees[first:last] = np.bincount(rows, minlength=last - first)
        indices[end : end + items.size] = items
        first, end = last, end + items.size
    return np.concatenate([[0], np.cumsum(degrees)])
