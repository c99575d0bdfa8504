"""A user's own interaction log as a data set."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from .adjacency import read_adjacency
from .base import BipartiteDataset, Interactions, Transform
from .columns import IdKind
from .errors import DatasetError
from .files import fingerprint
from .ids import ID_LISTS, read_id_list
from .interaction_log import Log, Repeats, Rules
from .layouts import DEFAULT_COLUMNS, Layout, read_columns
from .parquet import parts_of


class InteractionFile(BipartiteDataset):
    r"""Any interaction log: CSV, TSV, JSON lines, Parquet, MovieLens, RecBole, LightGCN text.

    Tables have a row per interaction: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` (an object a
    line), `.dat`, `.data`, `.base` and `.test` (MovieLens), `.inter` (RecBole), each also with
    `.gz` or `.zst`, `.parquet`, and a folder of Parquet parts. `.txt` is LightGCN text, a user id
    and item ids a line, unless `separator` or `no_header` makes it a table. A folder
    with a `train.txt`, or a `train.txt` beside a `test.txt`, is a split in such files:
    `train.txt`, `test.txt` and, where it is there, `valid.txt`; original ids are taken from
    `user_list.txt` and `item_list.txt`, where they lie beside LightGCN text.

    What happens, in this order:

    1. Repeated interactions of a user and an item are merged; the last one by time stays.
    2. Those rated below `min_rating` are dropped.
    3. The k-core is taken: of the training file if the split is given, else of all.
    4. The interactions are split.
    5. Of a split made here, validation and test lose the users and items that training doesn't
       have. A given split keeps them, unless `drop_cold` or `core` is set.
    6. Users and items are numbered in ascending order of their ids.

    What that merges, drops or guesses is counted in :attr:`notes`.

    The file is read in place. Everything made from it goes to
    `<root>/<file name>-<hash>/processed`, where the hash covers the file's path, size and time of
    change and all options. Beside the tensors lie `user_ids-<hash>.csv` and `item_ids-<hash>.csv`
    with the columns `index` and `id`.

    Args:
        root: The folder that holds the data set's folder.
        path: The file or folder.
        user_col: The column of the user ids (default `user_id`; 1 without a header line).
        item_col: The column of the item ids (default `item_id`; 2 without a header line).
        time_col: The column of the times: numbers of one unit, ISO 8601 text, dates, timestamps.
        rating_col: The column of the ratings: numbers or truth values.
        separator: What stands between two fields, such as `;` or `::`, `tab` or `space`; `auto`
            finds it out. By default the suffix tells.
        no_header: Whether the first line is data; columns then go by number, from 1 on.
        ids: Whether ids are `text` or `integer`. `auto` (default): quoted fields and strings of
            JSON and Parquet are text; other text is integers if all of it is, and refused if it
            is for the most part.
        drop_missing: Whether to drop rows without a value instead of refusing them.
        repeats: Whether to `merge` or to `refuse` what stands twice. By default repeated rows of a
            log are merged; an item twice in LightGCN text and a pair in two parts are refused.
        drop_cold: Whether a given split loses the users and items without a training interaction.
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
        separator: str | None = None,
        no_header: bool | None = None,
        ids: IdKind | None = None,
        drop_missing: bool | None = None,
        repeats: Repeats | None = None,
        drop_cold: bool | None = None,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        self.name = str(path)
        self.path, self.valid_file, self.test_file = Path(path), valid_file, test_file
        stem = self.path.name.split(".")[0]
        if (folder := self._split_folder()) is not None:
            stem = folder.resolve().name
        self.layout = Layout(separator, bool(no_header))
        self.is_lightgcn = self.layout.is_lightgcn(self.path)
        if self.is_lightgcn and (user_col or item_col or time_col or rating_col or ids):
            raise DatasetError(
                f"{path}: LightGCN text has no columns; leave the column options and `ids` out, or "
                "set `separator` if it is a table"
            )
        self.rules = Rules.checked(
            str(path),
            DEFAULT_COLUMNS[self.layout.no_header],
            user_col=user_col,
            item_col=item_col,
            time_col=time_col,
            rating_col=rating_col,
            ids=ids,
            drop_missing=drop_missing,
            min_rating=min_rating,
            core=core,
            split=split,
            split_seed=split_seed,
            repeats=repeats,
            drop_cold=drop_cold,
            is_given=self.test_file is not None,
        )
        if valid_file is not None and test_file is None:
            raise DatasetError(f"{path}: `valid_file` needs `test_file`")
        super().__init__(
            Path(root, f"{stem}-{self._variant}"), transform, pre_transform, force_reload
        )

    def _split_folder(self) -> Path | None:
        """Finds the files of a split in a folder, if that is what the path names."""
        path = self.path
        if path.is_dir():
            if not (path / "train.txt").exists() and parts_of(path):
                return None
            if self.test_file is not None:
                raise DatasetError(
                    f"{path}: a folder brings its own test file; leave `test_file` out or name the "
                    "training file"
                )
            if not (path / "train.txt").exists():
                raise DatasetError(
                    f"{path}: the folder holds neither a train.txt nor Parquet files; name a file"
                )
        elif path.name != "train.txt" or self.test_file or not path.with_name("test.txt").exists():
            return None
        folder = path if path.is_dir() else path.parent
        self.path, self.test_file = folder / "train.txt", folder / "test.txt"
        valid = folder / "valid.txt"
        self.valid_file = valid if valid.exists() else None
        return folder

    @property
    def _files(self) -> list[Path]:
        """The files of the parts: training, validation, test."""
        files = (self.path, self.valid_file, self.test_file)
        return [Path(file) for file in files if file is not None]

    @property
    def _id_lists(self) -> list[Path]:
        lists = [self.path.with_name(name) for name in ID_LISTS]
        has_lists = self.is_lightgcn and all(path.exists() for path in lists)
        return lists if has_lists else []

    @property
    def raw_file_names(self) -> list[str]:
        """The files, which stay where they are."""
        return [str(path.absolute()) for path in self._files]

    @property
    def options(self) -> dict[str, Any]:
        """The state of the files, and everything that can be chosen."""
        files = [
            part
            for path in (*self._files, *self._id_lists)
            for part in (parts_of(path) if path.is_dir() else [path])
        ]
        return {
            "files": [fingerprint(path) for path in files],
            "has_valid": self.valid_file is not None,
            "layout": self.layout._asdict(),
            **self.rules._asdict(),
        }

    def read(self) -> Interactions:
        """Reads the files.

        Raises:
            DatasetError: If one is bad or too little is left.
        """
        train, *others = map(self.read_log, self._files)
        if self.test_file is None:
            found = self.rules.divide(train)
        else:
            found = self.rules.assemble(train, others[0] if others[1:] else None, others[-1])
        if not self._id_lists:
            return found
        lists = [read_id_list(path) for path in self._id_lists]
        for path, ids, used in zip(
            self._id_lists, lists, (found.user_ids, found.item_ids), strict=True
        ):
            assert used is not None
            if used.size and used[-1] >= ids.size:
                raise DatasetError(
                    f"{path}: has no line for {used[-1]}, which occurs beside it; add it, or take "
                    "the list away"
                )
        return found._replace(user_ids=lists[0][found.user_ids], item_ids=lists[1][found.item_ids])

    def read_log(self, path: Path) -> Log:
        """Reads one file: repeated interactions are merged, those of low rating dropped.

        Args:
            path: The file.

        Raises:
            DatasetError: If it is bad, or nothing is left.
        """
        if not self.is_lightgcn:
            return self.rules.read(read_columns(path, self.rules.columns, self.layout))
        text = read_adjacency(path)
        (user_ids, users), (item_ids, items) = (
            np.unique(nodes, return_inverse=True) for nodes in text.pairs
        )
        return Log(str(path), users, items, None, user_ids, item_ids, text.notes, text.repeats)
