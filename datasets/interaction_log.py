"""From the interactions of a log, or of a split in several, to a data set."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .base import Interactions
from .columns import Columns, IdKind
from .errors import DatasetError, shown
from .filtering import Codes, Numbers, k_core, last_of_pairs
from .splitting import RATIO, TEST, TRAIN, VALID, leave_last_out, split_per_user

Repeats = Literal["merge", "refuse"]


class Log(NamedTuple):
    """The distinct interactions of one source, in its order.

    Args:
        source: What the errors call the source.
        users: The user of each interaction, as a position in `user_ids`, shape [E].
        items: The item of each interaction, as a position in `item_ids`, shape [E].
        times: The time of each interaction, shape [E], or `None`.
        user_ids: The distinct user ids, ascending.
        item_ids: The distinct item ids, ascending.
        notes: What was merged, dropped or guessed at.
        repeats: What stands in the source more than once though its form has it once, in words.
    """

    source: str
    users: Codes
    items: Codes
    times: Numbers | None
    user_ids: npt.NDArray[Any]
    item_ids: npt.NDArray[Any]
    notes: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()

    def take(self, positions: npt.NDArray[np.int64], *notes: str) -> "Log":
        """Returns the log of the interactions at `positions`, with notes on the rest."""
        return self._replace(
            users=self.users[positions],
            items=self.items[positions],
            times=None if self.times is None else self.times[positions],
            notes=(*self.notes, *notes),
        )


class Rules(NamedTuple):
    """What is made of a log; see :class:`InteractionFile`."""

    user_col: str
    item_col: str
    time_col: str | None
    rating_col: str | None
    ids: IdKind
    drop_missing: bool
    min_rating: float | None
    core: int
    split: Literal["random", "last"]
    split_seed: int
    repeats: Repeats | None
    drop_cold: bool

    @classmethod
    def checked(
        cls,
        source: str,
        defaults: tuple[str, str],
        *,
        user_col: str | None,
        item_col: str | None,
        is_given: bool,
        **options: Any,
    ) -> "Rules":
        """Returns the rules that options ask for, if these go together.

        Args:
            source: What the errors call the log.
            defaults: The columns of the user and the item ids, if they aren't named.
            user_col: The column of the user ids, if it is named.
            item_col: The column of the item ids, if it is named.
            is_given: Whether the split is given.
            options: The other options, `None` where they aren't given.

        Raises:
            DatasetError: If they don't.
        """
        columns = [user_col or defaults[0], item_col or defaults[1]]
        named = [options[name] for name in ("time_col", "rating_col") if options[name]]
        for wrong, reason in (
            (
                len({*columns, *named}) < len(columns + named),
                "one column cannot play two parts; name different ones",
            ),
            (
                options["min_rating"] is not None and not options["rating_col"],
                "`min_rating` needs `rating_col`",
            ),
            (
                options["min_rating"] is not None and not math.isfinite(options["min_rating"]),
                "`min_rating` has to be finite",
            ),
            (
                options["split"] == "last" and not options["time_col"],
                "`split=last` needs `time_col`",
            ),
            (
                is_given and (options["split"] is not None or options["split_seed"] is not None),
                "the test file is given, so nothing is split; leave `split` and `split_seed` out",
            ),
            (
                not is_given and bool(options["drop_cold"]),
                "`drop_cold` is for given splits; one made here has no cold ones; leave it out",
            ),
        ):
            if wrong:
                raise DatasetError(f"{source}: {reason}")
        defaults_of_rest: dict[str, Any] = {
            "ids": "auto",
            "drop_missing": False,
            "core": 0,
            "split": "random",
            "split_seed": 0,
            "drop_cold": False,
        }
        given = {name: value for name, value in options.items() if value is not None}
        rest: dict[str, Any] = {**dict.fromkeys(options), **defaults_of_rest, **given}
        return cls(user_col=columns[0], item_col=columns[1], **rest)

    @property
    def columns(self) -> list[str]:
        """The columns that play a part."""
        named = (self.user_col, self.item_col, self.time_col, self.rating_col)
        return [name for name in named if name]

    def read(self, columns: Columns) -> Log:
        """Reads a log: repeated interactions are merged, then those of low rating dropped.

        Args:
            columns: The columns that play a part.

        Raises:
            DatasetError: If a value is bad, or nothing is left.
        """
        if self.drop_missing:
            columns = columns.without_missing(self.columns)
        users, user_ids = columns.ids(self.user_col, self.ids)
        items, item_ids = columns.ids(self.item_col, self.ids)
        times = columns.times(self.time_col) if self.time_col else None
        ratings = columns.numbers(self.rating_col) if self.rating_col else None
        log = Log(columns.source, users, items, times, user_ids, item_ids, columns.notes)
        kept = last_of_pairs(users, items, times)
        if repeated := users.size - kept.size:
            if self.repeats == "refuse":
                row = int(np.setdiff1d(np.arange(users.size), kept)[0])
                raise columns.error(
                    row,
                    f"user {shown(user_ids[users[row]])} and item "
                    f"{shown(item_ids[items[row]])} come again later, as do {repeated - 1:,} more; "
                    "repair, or set `repeats=merge`",
                )
            log = log._replace(
                notes=(*log.notes, f"{log.source}: {repeated:,} repeated interactions merged")
            )
        if ratings is not None and self.min_rating is not None:
            high = kept[_at_least(ratings[kept], self.min_rating)]
            if not high.size:
                raise DatasetError(
                    f"{log.source}: no {self.rating_col} is {self.min_rating} or more; lower "
                    "`min_rating`"
                )
            if kept.size > high.size:
                low = f"{log.source}: {kept.size - high.size:,} interactions rated below "
                log = log._replace(notes=(*log.notes, f"{low}{self.min_rating:g} dropped"))
            kept = high
        return log.take(kept)

    def divide(self, log: Log) -> Interactions:
        """Takes the k-core of a log and splits it.

        Args:
            log: All interactions.

        Raises:
            DatasetError: If too little is left.
        """
        log = self._core(log._replace(notes=(*log.notes, *self._settled([log], []))))
        if self.split == "last":
            assert log.times is not None
            part = leave_last_out(log.users, log.times)
        else:
            part = split_per_user(log.users, self.split_seed)
        places = [np.flatnonzero(part == which) for which in (TRAIN, VALID, TEST)]
        if not places[2].size:
            raise DatasetError(
                f"{log.source}: {nobody_left(log.users, self.split)}; give a larger log, or set "
                "`test_file`"
            )
        train, valid, test = (log.take(place) for place in places)
        return _number(train, valid, test, log.notes, drop_cold=True)

    def assemble(self, train: Log, valid: Log | None, test: Log) -> Interactions:
        """Puts the parts of a given split together.

        Args:
            train: The training interactions; the k-core is theirs.
            valid: The validation interactions, where there are any.
            test: The test interactions.

        Raises:
            DatasetError: If an interaction stands in two parts and that is refused, or too little
                is left.
        """
        train = self._core(train)
        notes = [*train.notes, *(valid.notes if valid else ()), *test.notes]
        # Who is too rare for the core is not to come back as one without any interaction.
        found = _number(train, valid, test, (), drop_cold=self.drop_cold or self.core > 0)
        parts = {"train": found.train, "valid": found.valid, "test": found.test}
        seen = np.empty(0, dtype=np.int64)
        overlaps: list[str] = []
        for name, pairs in parts.items():
            if pairs is None:
                continue
            keys = pairs[0] * found.num_items + pairs[1]
            shared = np.isin(keys, seen)
            if shared.any():
                user, item = pairs[:, shared][:, 0]
                assert found.user_ids is not None and found.item_ids is not None
                overlaps.append(
                    f"{shared.sum():,} pairs of {name} are in a part before it (first: user "
                    f"{shown(found.user_ids[user])}, item {shown(found.item_ids[item])})"
                )
                parts[name] = pairs[:, ~shared]
            seen = np.append(seen, keys)
        logs = [log for log in (train, valid, test) if log is not None]
        notes += self._settled(logs, overlaps)
        train_pairs, test_pairs = parts["train"], parts["test"]
        assert train_pairs is not None and test_pairs is not None
        return found._replace(
            train=train_pairs,
            valid=parts["valid"],
            test=test_pairs,
            notes=(*notes, *found.notes),
        )

    def _settled(self, logs: Sequence[Log], overlaps: Sequence[str]) -> list[str]:
        """Returns notes on all that stands twice, or refuses it."""
        twice = [f"{log.source}, {text}" for log in logs for text in log.repeats]
        twice += [f"{logs[0].source}: {text}" for text in overlaps]
        if twice and self.repeats != "merge":
            raise DatasetError(
                f"{'; '.join(twice)}; repair that, or set `repeats=merge`, which keeps the first"
            )
        return [f"{text}; merged" for text in twice]

    def _core(self, log: Log) -> Log:
        kept = k_core(log.users, log.items, self.core)
        if not kept.size:
            raise DatasetError(
                f"{log.source}: nothing is left when each user and item needs {self.core} "
                "interactions; lower `core`"
            )
        if lost := log.users.size - kept.size:
            users, items = (
                np.unique(nodes).size - np.unique(nodes[kept]).size
                for nodes in (log.users, log.items)
            )
            log = log.take(
                kept,
                f"{log.source}: {lost:,} interactions, {users:,} users and {items:,} items are not "
                f"in the {self.core}-core, dropped",
            )
        for what, nodes, ids in (
            ("user", log.users, log.user_ids),
            ("item", log.items, log.item_ids),
        ):
            if (nodes == nodes[0]).all():
                raise DatasetError(
                    f"{log.source}: only one {what} ({shown(ids[nodes[0]])}) has interactions that "
                    "count; at least 2 are needed"
                )
        return log


def _at_least(ratings: Numbers, least: float) -> npt.NDArray[np.bool_]:
    """Compares in the type of the ratings, so that a float32 0.7 is at least 0.7."""
    kind: Any = ratings.dtype.type
    if ratings.dtype.kind == "f":
        with np.errstate(over="ignore"):
            bound = kind(least)
    else:
        whole = math.ceil(least)
        limits = np.iinfo(kind)
        if whole > limits.max:
            return np.zeros(ratings.shape, dtype=np.bool_)
        bound = kind(max(whole, int(limits.min)))
    found: npt.NDArray[np.bool_] = ratings >= bound
    return found


def nobody_left(users: Codes, split: Literal["random", "last"]) -> str:
    """Says why a split leaves nobody to test.

    Args:
        users: The user of each interaction, shape [E].
        split: How the interactions are split.
    """
    times = np.unique(users, return_counts=True)[1]
    needed = {"random": sum(RATIO) // RATIO[-1], "last": 2}[split]
    return (
        f"no interactions are left for test: {(times == 1).sum():,} of {times.size:,} users occur "
        f"once, and this split takes a test interaction from those who occur {needed} times"
    )


def _number(
    train: Log, valid: Log | None, test: Log, notes: Sequence[str], drop_cold: bool
) -> Interactions:
    """Numbers users and items in ascending order of their ids.

    Those without a training interaction are left out with their pairs, or numbered too.
    """
    logs = {"train": train, "valid": valid, "test": test}
    given = {name: log for name, log in logs.items() if log is not None}
    pairs: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in given}
    numbered: list[npt.NDArray[Any]] = []
    cold: list[int] = []
    for side in ("user", "item"):
        used = {name: _used(log, side, train) for name, log in given.items()}
        ids = used["train"][1]
        if not drop_cold:
            everyone = np.unique(np.concatenate([ids for _, ids in used.values()]))
            cold.append(everyone.size - ids.size)
            ids = everyone
        numbered.append(ids)
        for name, (nodes, own) in used.items():
            pairs[name].append(_positions(own, ids)[nodes])
    stacked = {name: np.stack(sides) for name, sides in pairs.items()}
    found = list(notes)
    for name, part in stacked.items():
        known = (part >= 0).all(axis=0)
        if not known.all():
            found.append(
                f"{given[name].source}: {(~known).sum():,} {name} interactions with a user or item "
                "that training lacks dropped"
            )
            stacked[name] = part[:, known]
    if any(cold):
        found.append(
            f"{train.source}: {cold[0]:,} users and {cold[1]:,} items without a training "
            "interaction kept (`drop_cold` leaves them out)"
        )
    return Interactions(
        stacked["train"],
        stacked.get("valid"),
        stacked["test"],
        numbered[0].size,
        numbered[1].size,
        numbered[0],
        numbered[1],
        tuple(found),
    )


def _used(log: Log, side: str, train: Log) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Returns one side of a log over the ids that occur, in the type of training's ids."""
    nodes, ids, known = {
        "user": (log.users, log.user_ids, train.user_ids),
        "item": (log.items, log.item_ids, train.item_ids),
    }[side]
    distinct, nodes = np.unique(nodes, return_inverse=True)
    ids = ids[distinct]
    if known.dtype == object and ids.dtype != object:
        text = np.array([str(value) for value in ids.tolist()], dtype=object)
        ids, order = np.unique(text, return_inverse=True)
        nodes = order[nodes]
    elif known.dtype != object and ids.dtype == object:
        raise DatasetError(
            f"{log.source}: its ids are text (first: {shown(ids[0])}) where those of the training "
            "file are integers; use the same ids, or set `ids=text`"
        )
    return nodes, ids


def _positions(ids: npt.NDArray[Any], known: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns the place of each id among the known ones, ascending, -1 for those not there."""
    if not known.size:
        return np.full(ids.size, -1)
    place = np.searchsorted(known, ids).clip(max=known.size - 1)
    return np.where(known[place] == ids, place, -1)
