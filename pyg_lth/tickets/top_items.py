"""The best unseen items of users by inner product, in the order that the evaluator gives them.

A matrix product finds the items that may be among the best; these few are scored again as the
kernel of the evaluator scores all, dimension by dimension with fused multiply-add, so that the
lists are the same whatever the matrix product rounds differently.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyg_lth.tickets import native

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Lists = tuple[Integers, Integers]

# Scores, and entries of embeddings, that are held at once.
_SCORES_AT_ONCE = 1 << 22
_ENTRIES_AT_ONCE = 1 << 15

# From so many users on, the items are laid out densely once, if that takes no more than this.
_MANY_USERS = 64
_DENSE_BYTES_AT_MOST = 1 << 30

# Up to so many users, each is multiplied with the items as they are stored.
_FEW_USERS = 4

# Items that a first look takes together.
_GROUP = 64

# More items than this for each place of a list are no close call but ties.
_CLOSE_AT_MOST = 8


class Rows(Protocol):
    """Embeddings that can be read by row."""

    def rows(self, index: Any) -> Floats:
        """Some rows, shape ``[n, dim]``: of integers or a slice."""

    def dot(self, vector: Floats, rows: slice) -> Floats:
        """The inner products of some rows with a vector, to rounding, shape ``[n]``."""


class DenseRows:
    """Embeddings of an array."""

    def __init__(self, table: Floats):
        self._table = table

    def rows(self, index: Any) -> Floats:
        """Some rows, shape ``[n, dim]``."""
        rows: Floats = self._table[index]
        return rows

    def dot(self, vector: Floats, rows: slice) -> Floats:
        """The inner products of some rows with a vector, shape ``[n]``."""
        products: Floats = self._table[rows] @ vector
        return products


class BiasedRows:
    """Embeddings with one more column, by which inner products have a bias of each item added.

    Args:
        table: The embeddings of users then items.
        bias: Of each item, shape ``[items]``; what is added is its float32.
        num_users: Number of users, who have a 1 in that column.
    """

    def __init__(self, table: Rows, bias: Array, num_users: int):
        self._table = table
        self._column = np.concatenate([np.ones(num_users, np.float32), bias.astype(np.float32)])

    def rows(self, index: Any) -> Floats:
        """Some rows, shape ``[n, dim + 1]``: of integers or a slice."""
        return np.column_stack([self._table.rows(index), self._column[index]])

    def dot(self, vector: Floats, rows: slice) -> Floats:
        """The inner products of some rows with a vector, to rounding, shape ``[n]``."""
        products: Floats = self._table.dot(vector[:-1], rows) + vector[-1] * self._column[rows]
        return products


class Items:
    """The items that are ranked: some consecutive rows of a table.

    Args:
        table: The embeddings.
        begin: The first item's row.
        number: Number of items.
        dim: Columns of the table.
    """

    def __init__(self, table: Rows, begin: int, number: int, dim: int):
        self.table, self.begin, self.number, self.dim = table, begin, number, dim
        self._largest_norm: float | None = None
        self._native: native.Ranking | None = None

    def rows(self, index: Any) -> Floats:
        """Embeddings of some items, shape ``[n, dim]``: of integers or a slice with both ends."""
        if isinstance(index, slice):
            return self.table.rows(slice(self.begin + index.start, self.begin + index.stop))
        return self.table.rows(self.begin + index)

    def blocks(self) -> list[slice]:
        """Consecutive items that are few enough to read at once."""
        size = max(1, _ENTRIES_AT_ONCE // self.dim)
        return [
            slice(begin, min(begin + size, self.number)) for begin in range(0, self.number, size)
        ]

    def scores(self, users: Floats) -> Floats:
        """The score of each item for each user, to rounding, shape ``[n, items]``."""
        scores = np.empty((len(users), self.number), np.float32)
        if len(users) <= _FEW_USERS:
            for user, row in zip(users, scores, strict=True):
                row[:] = self.table.dot(user, slice(self.begin, self.begin + self.number))
            return scores
        for block in self.blocks():
            np.matmul(users, self.rows(block).T, out=scores[:, block])
        return scores

    @property
    def largest_norm(self) -> float:
        """Of all embeddings."""
        if self._largest_norm is None:
            self._largest_norm = max(
                float(np.sqrt((self.rows(block).astype(np.float64) ** 2).sum(axis=1).max()))
                for block in self.blocks()
            )
        return self._largest_norm

    def kept(self) -> "Items":
        """The same items, read once and kept in memory; as they are where that is too much."""
        if isinstance(self.table, DenseRows) or not self.fits:
            return self
        return Items(DenseRows(self.rows(slice(0, self.number))), 0, self.number, self.dim)

    @property
    def fits(self) -> bool:
        """Whether the dense items are few enough to be kept in memory."""
        return 4 * self.number * self.dim <= _DENSE_BYTES_AT_MOST

    def native_ranking(self) -> native.Ranking:
        """The items laid out for the kernel, which is kept."""
        if self._native is None:
            self._native = native.Ranking(np.ascontiguousarray(self.rows(slice(0, self.number))))
        return self._native


def rank(users: Floats, items: Items, seen: Lists, k: int) -> tuple[Integers, Floats]:
    """Rank the items that each user has not seen, best first; of equal scores the lower index.

    Args:
        users: Embeddings, shape ``[n, dim]``.
        items: The items.
        seen: The items of each user to leave out in CSR form: row pointers, shape ``[n + 1]``, and
            items, ascending within a user.
        k: Length of the lists, at least 1.

    Returns:
        Items and their scores, shape ``[n, min(k, m)]``; a place that no item takes holds the
        number of items ``m``, and no score.
    """
    k = min(k, items.number)
    if len(users) >= _MANY_USERS:
        if native.library() and k <= native.LONGEST_LIST and items.fits:
            return items.native_ranking()(users, seen, k)
        items = items.kept()
    ranked = np.full((len(users), k), items.number, np.int64)
    best = np.full((len(users), k), -np.inf, np.float32)
    chunk = max(1, _SCORES_AT_ONCE // items.number)
    rowptr, item = seen
    for begin in range(0, len(users), chunk):
        part = slice(begin, begin + chunk)
        ends = rowptr[begin : begin + chunk + 1]
        own = ends - ends[0], item[ends[0] : ends[-1]]
        ranked[part], best[part] = _rank_some(users[part], items, own, k)
    return ranked, best


def _rank_some(users: Floats, items: Items, seen: Lists, k: int) -> tuple[Integers, Floats]:
    with np.errstate(over="ignore", invalid="ignore"):
        scores = items.scores(users)
    rowptr, seen_item = seen
    scores[np.repeat(np.arange(len(users)), np.diff(rowptr)), seen_item] = -np.inf
    # What is no number is ranked by no one.
    np.nan_to_num(scores, copy=False, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    row, item = _candidates(users, items, scores, k)
    exact = _score_again(users, items, row, item)
    real = exact > -np.inf
    row, item, exact = row[real], item[real], exact[real]
    order = np.lexsort((item, -exact, row))
    row, item, exact = row[order], item[order], exact[order]
    place = np.arange(row.size) - np.searchsorted(row, row)
    listed = place < k
    row, item, exact, place = row[listed], item[listed], exact[listed], place[listed]
    ranked = np.full((len(users), k), items.number, np.int64)
    best = np.full((len(users), k), -np.inf, np.float32)
    ranked[row, place], best[row, place] = item, exact
    return ranked, best


def _candidates(users: Floats, items: Items, scores: Floats, k: int) -> tuple[Integers, Integers]:
    """Users and items that may be in a list: what rounding can lift to the k-th best, and more."""
    group = max(1, min(_GROUP, items.number // (4 * k)))
    whole = items.number // group * group
    tops = scores[:, :whole].reshape(len(users), -1, group).max(axis=2)
    # The k-th best of the groups' best is no better than the k-th best of all.
    bound = np.partition(tops, tops.shape[1] - k, axis=1)[:, tops.shape[1] - k]
    norm = np.sqrt((users.astype(np.float64) ** 2).sum(axis=1)) * items.largest_norm
    slack = 2 * (items.dim + 4) * float(np.finfo(np.float32).eps) * norm
    slack = np.minimum(slack, np.finfo(np.float32).max).astype(np.float32)
    close = scores >= (bound - slack)[:, None]
    close &= scores > -np.inf
    tied = np.flatnonzero(np.count_nonzero(close, axis=1) > _CLOSE_AT_MOST * k + _GROUP)
    if tied.size:
        # Without an entry in common the score is exactly 0: of these the first ones suffice.
        apart = _apart(users[tied], items) & close[tied]
        close[tied] &= ~apart | (np.cumsum(apart, axis=1) <= k)
    row, item = np.nonzero(close)
    return row, item


def _apart(users: Floats, items: Items) -> npt.NDArray[np.bool_]:
    """Whether a user and an item have no entry in common, shape ``[n, items]``."""
    entries = (users != 0).astype(np.float32)
    apart = np.empty((len(users), items.number), np.bool_)
    for block in items.blocks():
        apart[:, block] = entries @ (items.rows(block) != 0).astype(np.float32).T == 0
    return apart


def _score_again(users: Floats, items: Items, row: Integers, item: Integers) -> Floats:
    """The score of some pairs, summed dimension by dimension with fused multiply-add."""
    exact = np.empty(row.size, np.float32)
    size = max(1, _ENTRIES_AT_ONCE // items.dim)
    for begin in range(0, row.size, size):
        part = slice(begin, begin + size)
        pairs = zip(users[row[part]].T, items.rows(item[part]).T, strict=True)
        total = np.zeros(row[part].size, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for user, other in pairs:
                # The product of two float32 is exact in double precision.
                wide = user.astype(np.float64) * other
                wide += total
                total = wide.astype(np.float32)
        exact[part] = total
    return exact
