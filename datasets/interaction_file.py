"""A user's own interaction log as a data set."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .adjacency import read_adjacency
from .base import BipartiteDataset, Interactions, Pairs, Transform
from .errors import DatasetError
from .files import fingerprint
from .filtering import k_core, last_of_pairs
from .splitting import TEST, TRAIN, VALID, leave_last_out, split_per_user
from .tables import read_table


class Log(NamedTuple):
    """The distinct interactions of one file, in its order.

    Args:
        users: The user of each interaction, as a position in `user_ids`; int64 of shape [E].
        items: The item of each interaction, as a position in `item_ids`; int64 of shape [E].
        times: The time of each interaction, shape [E], or `None`.
        user_ids: The distinct user ids, ascending.
        item_ids: The distinct item ids, ascending.
    """

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None
    user_ids: npt.NDArray[Any]
    item_ids: npt.NDArray[Any]

    def take(self, positions: npt.NDArray[np.int64]) -> "Log":
        """Returns the log of the interactions at `positions`."""
        return self._replace(
            users=self.users[positions],
            items=self.items[positions],
            times=None if self.times is None else self.times[positions],
        )


class InteractionFile(BipartiteDataset):
    r"""Any interaction log: CSV, TSV, JSONL, Parquet or LightGCN text.

    `.csv`, `.tsv`, `.jsonl` (each also with `.gz`) and `.parquet` are tables with a row per
    interaction. `.txt` is LightGCN text, a user id and item ids a line. A folder, or a
    `train.txt` beside a `test.txt`, is a split in LightGCN text: `train.txt`, `test.txt` and,
    where it is there, `valid.txt`.

    What happens, in this order:

    1. Repeated interactions of a user and an item are merged; the last one by time stays.
    2. Those rated below `min_rating` are dropped.
    3. The k-core is taken: of the training file if the split is given, else of all.
    4. The interactions are split.
    5. Validation and test lose the users and items that training doesn't have.
    6. The users and items of training are numbered in ascending order of their ids.

    Ids are text or integers. A text column of integers only counts as integers; one of integers
    and a few other values is refused.

    The file is read in place. Everything made from it goes to
    `<root>/<file name>-<hash>/processed`, where the hash covers the file's path, size and time of
    change and all options. Beside the tensors lie `user_ids-<hash>.csv` and `item_ids-<hash>.csv`
    with the columns `index` and `id`.

    Args:
        root: The folder that holds the data set's folder.
        path: The file or folder.
        user_col: The column of the user ids (default `user_id`).
        item_col: The column of the item ids (default `item_id`).
        time_col: The column of the times: numbers, or timestamps in Parquet.
        rating_col: The column of the ratings: numbers.
        min_rating: The lowest rating that counts as an interaction.
        core: The least number of interactions of each user and item.
        split: `random` (default) gives 10% of each user's interactions to validation and 20% to
            test; `last` gives the last one by time to test and the one before to validation.
        valid_file: The validation interactions, in the form of `path`; goes with `test_file`.
        test_file: The test interactions, in the form of `path`. Then `path` is training only.
        split_seed: The seed of the random split (default 0).
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Raises:
        DatasetError: If a file is missing or bad, options don't go together, or too little is
            left.

    Example:
        >>> from pathlib import Path
        >>> from pyg_lth.datasets import InteractionFile
        >>> rows = [f"ann,{song},{song}\nben,{song},{9 - song}" for song in range(5)]
        >>> _ = Path("log.csv").write_text("\n".join(["user,song,when", *rows]))
        >>> dataset = InteractionFile(
        ...     "data", "log.csv", user_col="user", item_col="song", time_col="when", split="last"
        ... )
        >>> dataset
        InteractionFile(users=2, items=5, train=6, valid=2, test=2)
        >>> dataset.user_ids.tolist(), dataset.item_ids.tolist()
        (['ann', 'ben'], [0, 1, 2, 3, 4])
    """

    title = "interactions from a file"
    licence = "as the file's owner says"
    citation = "as the file's owner says"
    source = "a local file"
    keeps_ids = True

    def __init__(
        self,
        root: str | Path,
        path: str | Path,
        user_col: str | None = None,
        item_col: str | None = None,
        time_col: str | None = None,
        rating_col: str | None = None,
        min_rating: float | None = None,
        core: int | None = None,
        split: Literal["random", "last"] | None = None,
        valid_file: str | Path | None = None,
        test_file: str | Path | None = None,
        split_seed: int | None = None,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.valid_file = None if valid_file is None else Path(valid_file)
        self.test_file = None if test_file is None else Path(test_file)
        is_folder = self.path.is_dir()
        folder = self.path if is_folder else self.path.parent
        stem = self.path.name.split(".")[0]
        if is_folder or (
            self.path.name == "train.txt" and not test_file and (folder / "test.txt").exists()
        ):
            self.path = folder / "train.txt"
            self.test_file = folder / "test.txt"
            self.valid_file = folder / "valid.txt" if (folder / "valid.txt").exists() else None
            stem = folder.resolve().name
        columns = [
            user_col or "user_id",
            item_col or "item_id",
            *(column for column in (time_col, rating_col) if column),
        ]
        for wrong, reason in (
            (
                _is_text(self.path) and bool(user_col or item_col or time_col or rating_col),
                "LightGCN text has no columns; leave the column options out",
            ),
            (
                len(set(columns)) < len(columns),
                "one column cannot play two parts; name different ones",
            ),
            (min_rating is not None and not rating_col, "min_rating needs rating_col"),
            (split == "last" and not time_col, "split last needs time_col"),
            (valid_file is not None and test_file is None, "valid_file needs test_file"),
            (
                is_folder and test_file is not None,
                "a folder brings its own test file; leave test_file out or name the training file",
            ),
            (
                self.test_file is not None and (split is not None or split_seed is not None),
                "the test file is given, so nothing is split; leave split and split_seed out",
            ),
        ):
            if wrong:
                raise DatasetError(f"{path}: {reason}")
        self.columns = {
            "user": user_col or "user_id",
            "item": item_col or "item_id",
            "time": time_col or "",
            "rating": rating_col or "",
        }
        self.min_rating = min_rating
        self.core = core or 0
        self.split = split or "random"
        self.split_seed = split_seed or 0
        super().__init__(
            Path(root, f"{stem}-{self._variant}"), transform, pre_transform, force_reload
        )

    @property
    def raw_file_names(self) -> list[str]:
        """The files, which stay where they are."""
        return [
            str(path.absolute())
            for path in (self.path, self.valid_file, self.test_file)
            if path is not None
        ]

    @property
    def options(self) -> dict[str, Any]:
        """The state of the files, and everything that can be chosen."""
        return {
            "files": [
                None if path is None else fingerprint(path)
                for path in (self.path, self.valid_file, self.test_file)
            ],
            "columns": self.columns,
            "min_rating": self.min_rating,
            "core": self.core,
            "split": self.split,
            "split_seed": self.split_seed,
        }

    def read(self) -> Interactions:
        """Reads the files.

        Raises:
            DatasetError: If one is bad or too little is left.
        """
        log = self._read_log(self.path)
        log = log.take(k_core(log.users, log.items, self.core))
        if not log.users.size:
            raise DatasetError(
                f"{self.path}: nothing is left when each user and item needs {self.core} "
                "interactions; lower `core`"
            )
        for what, nodes, ids in (
            ("user", log.users, log.user_ids),
            ("item", log.items, log.item_ids),
        ):
            if (nodes == nodes[0]).all():
                raise DatasetError(
                    f"{self.path}: only one {what} ({ids[nodes[0]]}) has interactions that count; "
                    "at least 2 are needed"
                )
        valid: Log | None
        if self.test_file is not None:
            train, test = log, self._read_log(self.test_file)
            valid = None if self.valid_file is None else self._read_log(self.valid_file)
        else:
            if self.split == "last":
                assert log.times is not None
                part = leave_last_out(log.users, log.times)
            else:
                part = split_per_user(log.users, self.split_seed)
            train, valid, test = (
                log.take(np.flatnonzero(part == which)) for which in (TRAIN, VALID, TEST)
            )

        user_ids = train.user_ids[np.unique(train.users)]
        item_ids = train.item_ids[np.unique(train.items)]

        def known_pairs(part: Log, path: Path | None) -> Pairs:
            pairs = np.stack(
                [
                    _positions(part.user_ids, user_ids, path or self.path)[part.users],
                    _positions(part.item_ids, item_ids, path or self.path)[part.items],
                ]
            )
            return pairs[:, (pairs >= 0).all(axis=0)]

        return Interactions(
            known_pairs(train, self.path),
            None if valid is None else known_pairs(valid, self.valid_file),
            known_pairs(test, self.test_file),
            user_ids.size,
            item_ids.size,
            user_ids,
            item_ids,
        )

    def _read_log(self, path: Path) -> Log:
        """Reads one file, merges repeated interactions and drops those of low rating."""
        if _is_text(path):
            pairs = read_adjacency(path)
            (user_ids, users), (item_ids, items) = (
                np.unique(nodes, return_inverse=True) for nodes in pairs
            )
            return Log(users, items, None, user_ids, item_ids)
        time_col, rating_col = self.columns["time"], self.columns["rating"]
        table = read_table(path, [column for column in self.columns.values() if column])
        users, user_ids = table.ids(self.columns["user"])
        items, item_ids = table.ids(self.columns["item"])
        times = table.numbers(time_col) if time_col else None
        kept = last_of_pairs(users, items, times)
        if rating_col:
            ratings = table.numbers(rating_col)
            if self.min_rating is not None:
                kept = kept[ratings[kept] >= self.min_rating]
        if not kept.size:
            raise DatasetError(
                f"{path}: no {rating_col} is {self.min_rating} or more; lower `min_rating`"
            )
        return Log(users, items, times, user_ids, item_ids).take(kept)


def _is_text(path: Path) -> bool:
    return Path(path.name.removesuffix(".gz")).suffix == ".txt"


def _positions(
    ids: npt.NDArray[Any], vocabulary: npt.NDArray[Any], path: Path
) -> npt.NDArray[np.int64]:
    """Returns the place of each id of the file in the vocabulary, -1 for those it lacks."""
    values = ids.tolist()
    if vocabulary.dtype == object:
        values = [str(value) for value in values]
    elif ids.dtype == object:
        raise DatasetError(
            f"{path}: its ids are text (first: {values[0]!r}) where those of the training file are "
            "integers; use the same ids"
        )
    place = {value: position for position, value in enumerate(vocabulary.tolist())}
    return np.array([place.get(value, -1) for value in values], dtype=np.int64)
