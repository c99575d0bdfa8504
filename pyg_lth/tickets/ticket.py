"""The ticket: a table, the graph it was trained on, the ids, and answers from them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyg_lth.errors import InputError
from pyg_lth.tickets import container
from pyg_lth.tickets.container import malformed
from pyg_lth.tickets.folding import FoldIn, fold_in
from pyg_lth.tickets.id_table import Id, IdTable
from pyg_lth.tickets.layers import propagate, unit_rows
from pyg_lth.tickets.lists import ITEMS_AT_MOST, ItemLists
from pyg_lth.tickets.table import CompactTable
from pyg_lth.tickets.top_items import BiasedRows, DenseRows, Items, Lists, Rows, rank

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# What an answer rests on: the user's own embedding, their items, or what everyone likes.
Basis = Literal["trained", "history", "popularity", "similarity"]

# What ranks: inner products of the embeddings, or the cosines between them.
Score = Literal["dot", "cosine"]

# Users answered at once where all are.
USERS_AT_ONCE = 4096

# Bytes that a propagated table may take unless told otherwise.
MEMORY_LIMIT = 8 << 30

# What a file's arrays are parts of.
_PARTS = ("table", "bias", "train", "valid", "user_ids", "item_ids")

# Layers that a file may ask to propagate through.
_LAYERS_AT_MOST = 64


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """The best items for someone.

    Args:
        user: Their id, :obj:`None` where only their items were given.
        items: Ids of the items, best first.
        scores: The score of each.
        basis: ``trained`` (their embedding), ``history`` (folded in from their items),
            ``popularity`` (nothing is known of them) or ``similarity`` (to an item).
    """

    user: Id | None
    items: list[Id]
    scores: list[float]
    basis: Basis


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """A recommender in a small file, which answers with numpy alone.

    Args:
        backbone: Name of the backbone.
        table: Embeddings of users then items.
        train: The items of each user that the model was trained on.
        user_ids: The original id of each user.
        item_ids: The original id of each item.
        valid: The items of each user that chose its epochs, :obj:`None` where there are none.
        layer_weights: Of the layers to propagate ``table`` through before it answers;
            :obj:`None` where it answers as it is.
        score: What ranks, inner products or cosines of the propagated embeddings.
        fold_in: How people who were not in training are embedded.
        bias: Added to every score of each item, float16, shape ``[items]``; :obj:`None` where
            nothing is.
        notes: What is known of it beside, for JSON: ``metrics``, ``density``, ``provenance``.
        memory_limit: Bytes that the propagated table may take.

    Example:
        >>> import numpy as np
        >>> from pyg_lth.tickets import CompactTable, IdTable, ItemLists, Ticket
        >>> table = np.array([[1, 0], [0, 1], [3, 0], [2, 1], [0, 2]])  # two users, three items
        >>> ticket = Ticket(
        ...     "mf",
        ...     CompactTable.from_dense(table),
        ...     train=ItemLists.from_pairs(np.array([[0], [0]]), num_users=2, num_items=3),
        ...     user_ids=IdTable.of(["ann", "ben"]),
        ...     item_ids=IdTable.of(["a", "b", "c"]),
        ... )
        >>> ticket.recommend(["ann"], k=2)  # who has a
        [Recommendation(user='ann', items=['b', 'c'], scores=[2.0, 0.0], basis='trained')]
        >>> ticket.recommend_for(["c"], k=1)
        Recommendation(user=None, items=['b'], scores=[0.25], basis='history')
        >>> ticket.similar("b", k=1)
        [('a', 0.894...)]
    """

    backbone: str
    table: CompactTable
    train: ItemLists
    user_ids: IdTable
    item_ids: IdTable
    valid: ItemLists | None = None
    layer_weights: tuple[float, ...] | None = None
    score: Score = "dot"
    fold_in: FoldIn = "ridge"
    bias: npt.NDArray[np.float16] | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    memory_limit: int = MEMORY_LIMIT

    def __post_init__(self) -> None:
        if self.num_users + self.num_items != self.table.num_rows:
            raise InputError(
                f"the table has {self.table.num_rows:,} rows for {self.num_users:,} users and "
                f"{self.num_items:,} items"
            )
        if len(self.user_ids) != self.num_users or len(self.item_ids) != self.num_items:
            raise InputError(
                f"there are {len(self.user_ids):,} ids of users and {len(self.item_ids):,} of "
                f"items for {self.num_users:,} users and {self.num_items:,} items"
            )
        if self.bias is not None and (wrong := _wrong_bias(self.bias, self.num_items)):
            raise InputError(wrong)

    def save(self, path: str | Path) -> None:
        """Write the ticket to one file; it appears under its name when it is whole.

        Raises:
            InputError: If it cannot be written.
        """
        about = {
            "backbone": self.backbone,
            "users": self.num_users,
            "items": self.num_items,
            "table": self.table.about(),
            "layer_weights": self.layer_weights,
            "score": self.score,
            "fold_in": self.fold_in,
            "notes": dict(self.notes),
        }
        version = container.VERSION if self.bias is None else container.VERSION_WITH_BIAS
        container.write(Path(path), "ticket", about, self._tensors(), version)

    @classmethod
    def load(cls, path: str | Path, memory_limit: int = MEMORY_LIMIT) -> "Ticket":
        """Map a ticket's file; what lies in it is checked, but not copied.

        Args:
            path: The file.
            memory_limit: Bytes that a propagated table may take.

        Raises:
            InputError: If it is missing, no ticket or damaged.
        """
        with container.naming(Path(path)):
            about, tensors = container.read(Path(path), "ticket")
            return cls._checked(about, tensors, memory_limit)

    @classmethod
    def _checked(
        cls, about: Mapping[str, Any], tensors: Mapping[str, Array], memory_limit: int
    ) -> "Ticket":
        match {"score": "dot", **about}:
            case {
                "backbone": str(backbone),
                "users": int(num_users),
                "items": int(num_items),
                "table": dict(of_table),
                "layer_weights": list() | None as weights,
                "score": "dot" | "cosine" as score,
                "fold_in": "propagation" | "ridge" as fold_in,
                "notes": dict(notes),
            } if num_users > 0 and 0 < num_items <= ITEMS_AT_MOST:
                pass
            case _:
                malformed("its header does not say what ticket it holds")
        parts: dict[str, dict[str, Array]] = {name: {} for name in _PARTS}
        for name, array in tensors.items():
            part, _, rest = name.partition(".")
            if part not in parts or not rest:
                malformed(f"it has an array {name[:40]!r} too many")
            parts[part][rest] = array
        table = CompactTable.from_tensors(of_table, parts["table"])
        if table.num_rows != num_users + num_items:
            malformed("its table is not that of its users and items")
        if weights is None and score == "cosine":
            malformed("it ranks by cosine, which is for propagated tables")
        if weights is not None:
            real = [isinstance(weight, float) and abs(weight) < 1e6 for weight in weights]
            if not all(real) or not 1 <= len(real) <= _LAYERS_AT_MOST:
                malformed("its layers have weights that cannot be")
            if 4 * table.num_rows * table.dim > memory_limit:
                malformed(
                    f"its propagated table takes {4 * table.num_rows * table.dim:,} bytes, more "
                    f"than the limit of {memory_limit:,}"
                )
        bias = parts["bias"].pop("item", None)
        for name in parts["bias"]:
            malformed(f"it has an array {f'bias.{name}'[:40]!r} too many")
        if bias is not None and (wrong := _wrong_bias(bias, num_items)):
            malformed(wrong)
        lists = {
            name: ItemLists.from_tensors(parts[name], num_users, num_items)
            for name in ("train", "valid")
            if parts[name] or name == "train"
        }
        return cls(
            backbone,
            table,
            lists["train"],
            IdTable.from_tensors(parts["user_ids"], num_users),
            IdTable.from_tensors(parts["item_ids"], num_items),
            lists.get("valid"),
            None if weights is None else tuple(weights),
            score,
            fold_in,
            bias,
            notes,
            memory_limit,
        )

    def _tensors(self) -> dict[str, Array]:
        parts = {
            "table": self.table.tensors,
            "bias": {} if self.bias is None else {"item": self.bias},
            "train": self.train.tensors(),
            "valid": {} if self.valid is None else self.valid.tensors(),
            "user_ids": self.user_ids.tensors,
            "item_ids": self.item_ids.tensors,
        }
        return {
            f"{part}.{name}": array
            for part, arrays in parts.items()
            for name, array in arrays.items()
        }

    @property
    def num_users(self) -> int:
        """Number of users."""
        return self.train.num_users

    @property
    def num_items(self) -> int:
        """Number of items."""
        return self.train.num_items

    @property
    def dim(self) -> int:
        """Columns of the table."""
        return self.table.dim

    def nbytes(self) -> dict[str, int]:
        """Bytes of each part of what is stored.

        Returns:
            ``table`` (values, places, scales), ``bias`` (of the items), ``graph`` (the items of
            each user in training), ``held_out`` (those held out of it, which are left out of lists
            too), ``ids``; ``to_answer``, what scores need: the table, the bias, and the graph where
            it has to be propagated through; ``to_answer_unseen``, what lists without seen items
            need.
        """
        graph, held_out = self.train.nbytes, 0 if self.valid is None else self.valid.nbytes
        bias = 0 if self.bias is None else self.bias.nbytes
        scored = self.table.nbytes + bias
        return {
            "table": self.table.nbytes,
            "bias": bias,
            "graph": graph,
            "held_out": held_out,
            "ids": self.user_ids.nbytes + self.item_ids.nbytes,
            "to_answer": scored + (0 if self.layer_weights is None else graph),
            "to_answer_unseen": scored + graph + held_out,
        }

    def embedding(self) -> Floats:
        """What is multiplied for scores: of users then items, shape ``[users + items, dim]``.

        For a ticket of ``layer_weights`` that is the propagated table, its rows of length one where
        ``score`` is ``cosine``. Of a ticket with a bias there is one more column, 1 for users and
        the bias for items. It is what the file holds, so its metrics are those of quantised values.
        """
        return self._ranked.rows(slice(0, self.table.num_rows))

    def propagated(self) -> "Ticket":
        """The same answers from the propagated table in float32, which takes more bytes.

        A ticket that answers as it is is returned as it is.
        """
        if self.layer_weights is None:
            return self
        final = self._final.rows(slice(0, self.table.num_rows))
        table = CompactTable.from_dense(final, form="dense")
        return dataclasses.replace(self, table=table, layer_weights=None, score="dot")

    def seen(self, users: npt.ArrayLike | slice) -> Lists:
        """What users had in training and validation, which lists leave out.

        Args:
            users: Their indices, shape ``[n]``, or a slice.

        Returns:
            Row pointers, shape ``[n + 1]``, and indices of items, ascending within a user.
        """
        train = self.train.of_users(users)
        if self.valid is None:
            return train
        return _merged(train, self.valid.of_users(users), self.num_items)

    def item_keys(self) -> Integers:
        """An integer for each item, shape ``[items]``: its id, or its index where ids are text."""
        every = np.arange(self.num_items)
        return every if self.item_ids.is_text else np.array(self.item_ids.at(every), np.int64)

    def rank(
        self, users: npt.ArrayLike | slice, k: int = 20, exclude_seen: bool = True
    ) -> tuple[Integers, Floats]:
        """Rank items for users by index, as the evaluator does.

        Args:
            users: Their indices, shape ``[n]``, or a slice.
            k: Length of the lists.
            exclude_seen: Whether to leave out what they had in training and validation.

        Returns:
            Indices of items and their scores, shape ``[n, min(k, items)]``, best first and of equal
            scores the lower index; a place that no item takes holds the number of items.
        """
        index = np.arange(self.num_users)[users] if isinstance(users, slice) else np.asarray(users)
        seen = self.seen(users) if exclude_seen else _empty(index.size)
        return rank(self._ranked.rows(index), self._items, seen, k)

    def recommend(
        self,
        users: Sequence[Id],
        k: int = 20,
        exclude_seen: bool = True,
        exclude: Sequence[Id] | Mapping[Id, Sequence[Id]] = (),
    ) -> list[Recommendation]:
        """The best items for some users; one who is not known gets the most popular ones.

        Args:
            users: Their ids.
            k: Items for each, at least 1.
            exclude_seen: Whether to leave out what they had in training and validation.
            exclude: Ids of items to leave out: for all, or for each user; unknown ones are ignored.

        Raises:
            InputError: If ``k`` is not positive.
        """
        _check_length(k)
        index = [self.user_ids.index_of(user) for user in users]
        known = np.array([place for place in index if place is not None], np.int64)
        rows = [row for row, place in enumerate(index) if place is not None]
        seen = self.seen(known) if exclude_seen else _empty(known.size)
        out = _merged(seen, self._excluded([users[row] for row in rows], exclude), self.num_items)
        answers: dict[int, Recommendation] = {}
        if rows:
            ranked = rank(self._ranked.rows(known), self._items, out, k)
            named = zip(rows, self.user_ids.at(known), *ranked, strict=True)
            answers = {
                row: self._named(user, items, scores, "trained")
                for row, user, items, scores in named
            }
        unknown = [row for row, place in enumerate(index) if place is None]
        if unknown:
            without = self._excluded([users[row] for row in unknown], exclude)
            popular = zip(unknown, *self._popular(without, k), strict=True)
            answers |= {
                row: self._named(users[row], items, scores, "popularity")
                for row, items, scores in popular
            }
        return [answers[row] for row in range(len(users))]

    def recommend_all(self, k: int = 20, exclude_seen: bool = True) -> Iterator[Recommendation]:
        """The best items for every user, in the order of their indices, in bounded memory."""
        _check_length(k)
        for begin in range(0, self.num_users, USERS_AT_ONCE):
            users = slice(begin, min(begin + USERS_AT_ONCE, self.num_users))
            ranked = self.rank(users, k, exclude_seen)
            ids = self.user_ids.at(np.arange(users.start, users.stop))
            for user, items, scores in zip(ids, *ranked, strict=True):
                yield self._named(user, items, scores, "trained")

    def recommend_for(
        self, history: Sequence[Id], k: int = 20, exclude: Sequence[Id] = ()
    ) -> Recommendation:
        """The best items for someone who was not in training, by the items that they have.

        They are embedded by :func:`~pyg_lth.tickets.folding.fold_in`, and where items have a bias
        made as long as users in training are, for whom it was meant. Items that are not known are
        ignored; where none is, the answer is by popularity.

        Args:
            history: Ids of their items, which are left out of the answer.
            k: Length of the list, at least 1.
            exclude: Ids of more items to leave out.

        Raises:
            InputError: If ``k`` is not positive.
        """
        _check_length(k)
        items = np.unique(self._known(history))
        out = _merged(
            (np.array([0, items.size]), items), self._excluded([None], exclude), self.num_items
        )
        if not items.size:
            ranked, scores = self._popular(out, k)
            return self._named(None, ranked[0], scores[0], "popularity")
        liked, degrees = self._final.rows(self.num_users + items), self.train.degrees[items]
        if self.bias is None:
            user = fold_in(liked, degrees, self.fold_in)
        else:
            user = fold_in(liked, degrees, self.fold_in, self._length_of_users)
            user = np.append(user, np.float32(1))
        ranked, scores = rank(user[None], self._items, out, k)
        return self._named(None, ranked[0], scores[0], "history")

    def similar(self, item: Id, k: int = 20) -> list[tuple[Id, float]]:
        """The items whose embeddings point most nearly the same way, with the cosine to each.

        Raises:
            InputError: If the item is not known, or ``k`` is not positive.
        """
        _check_length(k)
        place = self.item_ids.index_of(item)
        if place is None:
            raise InputError(f"item {item} is not in the ticket: give one of its items")
        items = Items(self._final, self.num_users, self.num_items, self.dim)
        wanted = items.rows(np.array([place]))
        cosine = np.empty(self.num_items, np.float32)
        for block in items.blocks():
            rows = items.rows(block).astype(np.float64)
            norm = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted.astype(np.float64))
            cosine[block] = (rows @ wanted[0]) / np.where(norm > 0, norm, 1)
        cosine[place] = -np.inf
        best = np.argsort(-cosine, kind="stable")[: min(k, self.num_items - 1)]
        return list(zip(self.item_ids.at(best), cosine[best].tolist(), strict=True))

    @functools.cached_property
    def _final(self) -> Rows:
        """The embeddings, without the bias."""
        if self.layer_weights is None:
            return self.table
        final = propagate(self.table.to_dense(), self.train, self.layer_weights)
        return DenseRows(unit_rows(final) if self.score == "cosine" else final)

    @functools.cached_property
    def _ranked(self) -> Rows:
        """The embeddings, with the bias where there is one."""
        if self.bias is None:
            return self._final
        return BiasedRows(self._final, self.bias, self.num_users)

    @functools.cached_property
    def _items(self) -> Items:
        dim = self.dim + (self.bias is not None)
        return Items(self._ranked, self.num_users, self.num_items, dim)

    @functools.cached_property
    def _length_of_users(self) -> float:
        """The mean length of users' embeddings, without those of which pruning has left nothing."""
        users = Items(self._final, 0, self.num_users, self.dim)
        blocks = (users.rows(block).astype(np.float64) for block in users.blocks())
        length = np.concatenate([np.linalg.norm(rows, axis=1) for rows in blocks])
        return float(length[length > 0].mean()) if length.any() else 1.0

    @functools.cached_property
    def _popularity(self) -> Items:
        degrees = self.train.degrees.astype(np.float32)
        return Items(DenseRows(degrees[:, None]), 0, self.num_items, 1)

    def _popular(self, without: Lists, k: int) -> tuple[Integers, Floats]:
        return rank(np.ones((without[0].size - 1, 1), np.float32), self._popularity, without, k)

    def _known(self, items: Sequence[Id]) -> Integers:
        places = (self.item_ids.index_of(item) for item in items)
        return np.array([place for place in places if place is not None], np.int64)

    def _excluded(
        self, users: Sequence[Id | None], exclude: Sequence[Id] | Mapping[Id, Sequence[Id]]
    ) -> Lists:
        if isinstance(exclude, Mapping):
            own = (() if user is None else exclude.get(user, ()) for user in users)
            lists = [np.unique(self._known(items)) for items in own]
        else:
            lists = [np.unique(self._known(exclude))] * len(users)
        rowptr = np.cumsum([0, *map(len, lists)])
        return rowptr, np.concatenate(lists) if lists else np.zeros(0, np.int64)

    def _named(
        self, user: Id | None, items: Integers, scores: Floats, basis: Basis
    ) -> Recommendation:
        there = items < self.num_items
        return Recommendation(user, self.item_ids.at(items[there]), scores[there].tolist(), basis)


def _wrong_bias(bias: Array, num_items: int) -> str | None:
    """What is wrong with a bias, if anything is."""
    if bias.dtype != np.float16 or bias.shape != (num_items,):
        return f"its bias is not one float16 for each of {num_items:,} items"
    return None if np.isfinite(bias).all() else "its bias is not finite"


def _check_length(k: int) -> None:
    if k < 1:
        raise InputError(f"a list of {k} items cannot be: ask for 1 at least")


def _empty(rows: int) -> Lists:
    return np.zeros(rows + 1, np.int64), np.zeros(0, np.int64)


def _merged(one: Lists, other: Lists, num_items: int) -> Lists:
    """Two lists of each user in one, ascending; what is in both stands twice."""
    if not other[1].size:
        return one
    keys, more = (
        np.repeat(np.arange(rowptr.size - 1), np.diff(rowptr)) * num_items + item
        for rowptr, item in (one, other)
    )
    return one[0] + other[0], np.insert(keys, np.searchsorted(keys, more), more) % num_items
