"""Challenge logs that only their publishers may hand out: TikTok and Kwai."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import BipartiteDataset, Interactions, Transform
from .delimited import Header, read_delimited
from .errors import DatasetError
from .files import fingerprint
from .filtering import k_core, last_of_pairs
from .interaction_log import nobody_left
from .published import read_split
from .registry import DATASETS
from .splitting import TEST, TRAIN, VALID, split_per_user


class ChallengeLog(BipartiteDataset):
    """The base class of the challenge logs.

    `raw` holds either the log of the challenge or, where the log is not there, a split of it that
    somebody made already: `train.txt`, `test.txt` and, if there is one, `valid.txt` in LightGCN
    text (a line: user id, then item ids), whose ids are the indices. The options then don't apply.

    The log is text with a line per shown video, without a header, its fields divided by tabs (or
    by single spaces, if the first line has no tab). What happens to it, in this order: the time
    window, the positive actions, merging repeated pairs, the k-core, the 7:1:2 split per user.
    All users and items left are numbered in ascending order of their ids, those without a training
    interaction too; the ids are kept.

    Args:
        root: The folder of the data set.
        positive: Which action counts as an interaction, a key of `actions`; the first by default.
        start_time: Drop what happened before this time, in the log's own unit.
        end_time: Drop what happened at this time or later.
        core: The least number of interactions of each user and item (default 0).
        split_seed: The seed of the split (default 0).
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Attributes:
        columns: The columns of the log: users and items first, then the rest in the log's order.
        actions: For each choice of `positive` the columns of which one has to be 1.

    Raises:
        DatasetError: If the raw file is missing or bad, or an option doesn't apply.
    """

    columns: ClassVar[tuple[str, ...]]
    user_column: ClassVar[str]
    item_column: ClassVar[str]
    actions: ClassVar[dict[str, tuple[str, ...]]]
    keeps_ids = True

    def __init__(
        self,
        root: str | Path,
        positive: str | None = None,
        start_time: int | None = None,
        end_time: int | None = None,
        core: int | None = None,
        split_seed: int | None = None,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        if positive is not None and positive not in self.actions:
            raise DatasetError(
                f"{self.name}: unknown action {positive!r}; positive is one of "
                f"{', '.join(self.actions)}"
            )
        self.given = {
            "positive": positive,
            "start_time": start_time,
            "end_time": end_time,
            "core": core,
            "split_seed": split_seed,
        }
        self.positive = positive or next(iter(self.actions))
        self.start_time = start_time
        self.end_time = end_time
        self.core = core or 0
        self.split_seed = split_seed or 0
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_file_names(self) -> list[str]:
        """The log or the split, whichever is there; the log if none is."""
        entry = DATASETS[self.name]
        log, split = entry.raw_files
        if entry.present_files(Path(self.raw_dir)) != split:
            return list(log)
        has_valid = Path(self.raw_dir, "valid.txt").exists()
        return [*split, *(["valid.txt"] if has_valid else [])]

    @property
    def options(self) -> dict[str, Any]:
        """The state of the raw files, and everything that can be chosen."""
        return {
            "files": [fingerprint(Path(path)) for path in self.raw_paths],
            "positive": self.positive,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "core": self.core,
            "split_seed": self.split_seed,
        }

    def download(self) -> None:
        """Says where to ask for the raw file.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(
            f"{self.raw_paths[0]}: missing, and only its publisher may hand it out; ask for it at "
            f"{self.source} and put it there, or put train.txt and test.txt in LightGCN text "
            "beside it"
        )

    def read(self) -> Interactions:
        """Reads the log, or the split.

        Raises:
            DatasetError: If a file is bad, nothing is left, or an option doesn't apply.
        """
        log_name = DATASETS[self.name].raw_files[0][0]
        if log_name not in self.raw_file_names:
            return self._read_split()
        return self._read_log(Path(self.raw_dir, log_name))

    def _read_split(self) -> Interactions:
        for name, value in self.given.items():
            if value is not None:
                raise DatasetError(
                    f"{self.raw_dir}: `{name}` applies to the log, but here is a split; leave it "
                    "out"
                )
        split = read_split(Path(self.raw_dir))
        return split._replace(
            user_ids=np.arange(split.num_users), item_ids=np.arange(split.num_items)
        )

    def _read_log(self, path: Path) -> Interactions:
        actions = self.actions[self.positive]
        has_window = self.start_time is not None or self.end_time is not None
        try:
            with path.open("rb") as file:
                delimiter = "\t" if b"\t" in file.readline() else " "
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
        table = read_delimited(
            path,
            [self.user_column, self.item_column, *actions, *(["time"] if has_window else [])],
            delimiter,
            Header(self.columns),
        )
        users, user_ids = table.ids(self.user_column)
        items, item_ids = table.ids(self.item_column)
        counts = np.zeros(users.size, dtype=bool)
        for action in actions:
            flags = table.numbers(action)
            wrong = np.flatnonzero((flags != 0) & (flags != 1))
            if wrong.size:
                raise table.error(
                    int(wrong[0]), f"{action} is {flags[wrong[0]]}; it has to be 0 or 1"
                )
            counts |= flags == 1
        if has_window:
            times = table.numbers("time")
            if self.start_time is not None:
                counts &= times >= self.start_time
            if self.end_time is not None:
                counts &= times < self.end_time
        users, items = users[counts], items[counts]
        notes = [
            f"{path}: {counts.size - counts.sum():,} of {counts.size:,} rows are no "
            f"{self.positive} in the time window, dropped"
        ]
        merged = last_of_pairs(users, items)
        notes.append(f"{path}: {users.size - merged.size:,} repeated interactions merged")
        users, items = users[merged], items[merged]
        kept = k_core(users, items, self.core)
        notes.append(f"{path}: {users.size - kept.size:,} interactions not in the core, dropped")
        users, items = users[kept], items[kept]
        if not users.size:
            raise DatasetError(
                f"{path}: no interactions are left; choose another action or time window, or lower "
                "`core`"
            )
        (used_users, users), (used_items, items) = (
            np.unique(nodes, return_inverse=True) for nodes in (users, items)
        )
        part = split_per_user(users, self.split_seed)
        pairs = np.stack([users, items])
        train, valid, test = (pairs[:, part == which] for which in (TRAIN, VALID, TEST))
        if not test.size:
            raise DatasetError(f"{path}: {nobody_left(users, 'random')}; give the whole log")
        return Interactions(
            train,
            valid,
            test,
            used_users.size,
            used_items.size,
            user_ids[used_users],
            item_ids[used_items],
            tuple(note for note in notes if ": 0 " not in note),
        )


class TikTok(ChallengeLog):
    r"""TikTok short videos: track 2 of the ICME 2019 challenge. Gated.

    Ask for the data at https://www.biendata.xyz/competition/icmechallenge2019/ and put
    `final_track2_train.txt` into `raw`. Its fields are uid, user_city, item_id, author_id,
    item_city, channel, finish, like, music_id, device, time, duration. `positive` is
    `finish_or_like` (the default), `finish` or `like`. The paper states 36,638 users, 97,117 items
    and 746,546 interactions but not how it chose them, so no counts are checked.

    See :class:`ChallengeLog` for the arguments, the processing and the split in LightGCN text.

    Example:
        >>> from pathlib import Path
        >>> from pyg_lth.datasets import TikTok
        >>> raw = Path("data/tiktok/raw")
        >>> raw.mkdir(parents=True)
        >>> like = [f"{user} 0 {item} 0 0 0 0 1 0 0 0 9" for user in range(2) for item in range(10)]
        >>> _ = (raw / "final_track2_train.txt").write_text("\n".join(like))  # a made-up log
        >>> TikTok("data/tiktok", positive="like")
        TikTok(users=2, items=10, train=14, valid=2, test=4)
    """

    name = "tiktok"
    title = "TikTok short videos, ICME 2019 challenge, track 2"
    licence = "as agreed with the publisher"
    citation = (
        "ByteDance. Short Video Understanding Challenge. IEEE International Conference on "
        "Multimedia and Expo (ICME) 2019"
    )
    source = "https://www.biendata.xyz/competition/icmechallenge2019/"
    columns = (
        "uid",
        "user_city",
        "item_id",
        "author_id",
        "item_city",
        "channel",
        "finish",
        "like",
        "music_id",
        "device",
        "time",
        "duration",
    )
    user_column = "uid"
    item_column = "item_id"
    actions: ClassVar[dict[str, tuple[str, ...]]] = {
        "finish_or_like": ("finish", "like"),
        "finish": ("finish",),
        "like": ("like",),
    }


class Kwai(ChallengeLog):
    r"""Kwai short videos: the user interest modeling challenge (UIMC) of Kuaishou. Gated.

    Ask for the data at https://www.kuaishou.com/activity/uimc and put `train_interaction.txt` into
    `raw`. Its fields are user_id, photo_id, click, like, follow, time, playing_time, duration_time.
    `positive` is `click` (the default), `like` or `follow`. The paper states 7,010 users, 80,631
    items and 292,042 interactions but not how it chose them, so no counts are checked.

    See :class:`ChallengeLog` for the arguments, the processing and the split in LightGCN text.

    Example:
        >>> from pathlib import Path
        >>> from pyg_lth.datasets import Kwai
        >>> raw = Path("data/kwai/raw")
        >>> raw.mkdir(parents=True)
        >>> clicks = [f"{user} {item} 1 0 0 0 5 9" for user in range(2) for item in range(10)]
        >>> _ = (raw / "train_interaction.txt").write_text("\n".join(clicks))  # a made-up log
        >>> Kwai("data/kwai")
        Kwai(users=2, items=10, train=14, valid=2, test=4)
    """

    name = "kwai"
    title = "Kwai short videos, user interest modeling challenge"
    licence = "as agreed with the publisher"
    citation = "Kuaishou and China Computer Federation. User Interest Modeling Challenge, 2018"
    source = "https://www.kuaishou.com/activity/uimc"
    columns = (
        "user_id",
        "photo_id",
        "click",
        "like",
        "follow",
        "time",
        "playing_time",
        "duration_time",
    )
    user_column = "user_id"
    item_column = "photo_id"
    actions: ClassVar[dict[str, tuple[str, ...]]] = {
        "click": ("click",),
        "like": ("like",),
        "follow": ("follow",),
    }
