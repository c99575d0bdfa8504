"""Every data set by name: what is known of it without opening it, and how to open it.

Nothing here imports torch until a data set is opened.
"""

import difflib
import inspect
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from .errors import DatasetError

if TYPE_CHECKING:
    from .base import BipartiteDataset

QUANTILES = {
    "min": 0.0,
    "25%": 0.25,
    "50%": 0.5,
    "75%": 0.75,
    "90%": 0.9,
    "99%": 0.99,
    "max": 1.0,
}


class Entry(NamedTuple):
    """What is known of a named data set without opening it.

    Args:
        location: `module:class` within this package.
        availability: `bundled` (generated), `download` (fetched when missing), `manual` (public,
            the user converts it) or `gated` (the user asks the publisher for it).
        users: The number of users that the literature or the publisher states.
        items: The number of items, likewise.
        parts: The numbers of interactions: train, validation and test, or all in one.
        raw_files: The files that have to be in `raw`, or several choices of them.
    """

    location: str
    availability: Literal["bundled", "download", "manual", "gated"]
    users: int
    items: int
    parts: tuple[int, ...]
    raw_files: tuple[tuple[str, ...], ...]

    def present_files(self, folder: Path) -> tuple[str, ...] | None:
        """Returns the first choice of raw files that `folder` holds in full, or `None`."""
        return next(
            (files for files in self.raw_files if all((folder / name).exists() for name in files)),
            None,
        )


_SPLIT = ("train.txt", "test.txt")
_VALID_SPLIT = ("train.txt", "valid.txt", "test.txt")
_TIKTOK_LOG = ("final_track2_train.txt",)
_KWAI_LOG = ("train_interaction.txt",)

DATASETS: dict[str, Entry] = {
    "synthetic": Entry("synthetic:Synthetic", "bundled", 1000, 800, (30_000,), ((),)),
    "yelp2018": Entry(
        "published:Yelp2018", "download", 31_668, 38_048, (1_237_259, 0, 324_147), (_SPLIT,)
    ),
    "gowalla": Entry(
        "published:Gowalla", "download", 29_858, 40_981, (810_128, 0, 217_242), (_SPLIT,)
    ),
    "amazon-book": Entry(
        "published:AmazonBook", "download", 52_643, 91_599, (2_380_730, 0, 603_378), (_SPLIT,)
    ),
    "tiktok-mmssl": Entry(
        "published:TikTokMMSSL", "manual", 9_308, 6_710, (59_541, 3_051, 6_130), (_VALID_SPLIT,)
    ),
    "tiktok": Entry("gated:TikTok", "gated", 36_638, 97_117, (746_546,), (_TIKTOK_LOG, _SPLIT)),
    "kwai": Entry("gated:Kwai", "gated", 7_010, 80_631, (292_042,), (_KWAI_LOG, _SPLIT)),
}


class DatasetOptions(BaseModel):
    """Which data set, and how it is read; the fields are the flags of the command line.

    `None` means "not given": the data set's own default holds.

    Raises:
        pydantic.ValidationError: If a key is unknown or a value is out of range.

    Example:
        >>> from pyg_lth.datasets import DatasetOptions
        >>> options = DatasetOptions(dataset="log.csv", user_col="user", core=10)
        >>> options.model_dump(exclude_none=True)
        {'dataset': 'log.csv', 'root': 'data', 'user_col': 'user', 'core': 10}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field("synthetic", description="Name of a data set, or path of a file.")
    root: str = Field("data", description="Folder that holds the data sets' folders.")
    user_col: str | None = Field(None, description="Column of the user ids.")
    item_col: str | None = Field(None, description="Column of the item ids.")
    time_col: str | None = Field(None, description="Column of the times: numbers or ISO 8601.")
    rating_col: str | None = Field(None, description="Column of the ratings, as numbers.")
    separator: str | None = Field(
        None, description="What divides fields: such as ';', '::', tab, space; auto finds it out."
    )
    no_header: bool | None = Field(
        None, description="The first line is data: name columns by number, from 1."
    )
    ids: Literal["auto", "text", "integer"] | None = Field(
        None, description="Whether ids are text or integers; auto goes by what they look like."
    )
    drop_missing: bool | None = Field(
        None, description="Drop rows without a value instead of refusing them."
    )
    repeats: Literal["merge", "refuse"] | None = Field(
        None, description="What to do with interactions that stand twice."
    )
    drop_cold: bool | None = Field(
        None, description="Leave out users and items that a given split does not train on."
    )
    min_rating: float | None = Field(
        None, allow_inf_nan=False, description="Lowest rating that counts as an interaction."
    )
    core: int | None = Field(
        None, ge=0, description="Keep users and items with this many interactions or more."
    )
    split: Literal["random", "last"] | None = Field(
        None, description="7:1:2 per user at random, or the last interactions out by time."
    )
    valid_file: str | None = Field(None, description="File of the validation interactions.")
    test_file: str | None = Field(None, description="File of the test interactions.")
    positive: str | None = Field(
        None, description="Which action counts as an interaction (tiktok, kwai)."
    )
    start_time: int | None = Field(None, description="Drop what happened before this time.")
    end_time: int | None = Field(None, description="Drop what happened at this time or later.")
    split_seed: int | None = Field(None, ge=0, description="Seed of the random split.")


def load_dataset(options: DatasetOptions) -> "BipartiteDataset":
    """Opens the data set that the options name, preparing it first where that is needed.

    A name of :data:`DATASETS` lives in `<root>/<name>`. Anything else is the path of a file or
    folder for :class:`InteractionFile`; a file called like a data set is reached by `./name`.

    Args:
        options: Which data set, and how it is read.

    Returns:
        The data set.

    Raises:
        DatasetError: If there is no such data set, an option doesn't apply to it, or it can't be
            read.

    Example:
        >>> from pyg_lth.datasets import DatasetOptions, load_dataset
        >>> load_dataset(DatasetOptions(dataset="synthetic", root="data"))
        Synthetic(users=1000, items=800, train=21835, valid=2552, test=5613)
    """
    dataset_class = _resolve(options.dataset)
    given = options.model_dump(exclude_none=True, exclude={"dataset", "root"})
    applicable = [
        name
        for name in inspect.signature(dataset_class).parameters
        if name in DatasetOptions.model_fields and name != "root"
    ]
    for name in given:
        if name not in applicable:
            raise DatasetError(
                f"option `{name}` does not apply to {options.dataset}, which takes "
                f"{', '.join(map('`{}`'.format, applicable)) or 'no options'}; leave it out"
            )
    if options.dataset in DATASETS:
        given["root"] = Path(options.root, options.dataset)
    else:
        given |= {"root": options.root, "path": options.dataset}
    return dataset_class(**given)


def _resolve(dataset: str) -> "type[BipartiteDataset]":
    """Finds the class for a name or a path."""
    if dataset in DATASETS:
        location = DATASETS[dataset].location
    elif dataset and Path(dataset).exists():
        location = "interaction_file:InteractionFile"
    elif os.sep in dataset or Path(dataset).suffix:
        raise DatasetError(f"{dataset}: no such file; give the path of a file or a data set's name")
    else:
        close = difflib.get_close_matches(dataset.lower(), DATASETS)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        raise DatasetError(
            f"unknown data set {dataset!r}: {guess}choose a file or one of {', '.join(DATASETS)}"
        )
    module, name = location.split(":")
    found: type[BipartiteDataset] = getattr(import_module(f".{module}", __package__), name)
    return found


def list_datasets(root: str | Path) -> list[dict[str, Any]]:
    """Lists the named data sets without opening any.

    Args:
        root: The folder that holds the data sets' folders.

    Returns:
        For each its `name`, the documented numbers of `users`, `items` and `interactions`, its
        `availability` (see :class:`Entry`) and `ready`, whether it can be opened without a
        download.

    Example:
        >>> from pyg_lth.datasets import list_datasets
        >>> [about["name"] for about in list_datasets("data") if about["ready"]]
        ['synthetic']
    """
    return [
        {
            "name": name,
            "users": entry.users,
            "items": entry.items,
            "interactions": sum(entry.parts),
            "availability": entry.availability,
            "ready": entry.present_files(Path(root, name, "raw")) is not None,
        }
        for name, entry in DATASETS.items()
    ]


def describe(options: DatasetOptions) -> dict[str, Any]:
    """Describes a data set; it prepares what is at hand, but downloads nothing.

    Args:
        options: Which data set, and how it is read.

    Returns:
        A JSON-able dictionary: `name`, `title`, `licence`, `citation`, `source`, `folder`,
        `availability`, `ready` (whether the raw files are there), `users`, `items`, `train`,
        `valid`, `test`, `interactions`, `density` (of all parts together), `user_degrees` and
        `item_degrees` (quantiles of the number of training interactions, keyed `min`, `25%`,
        `50%`, `75%`, `90%`, `99%`, `max`) and `files` (`path`, `bytes`, `sha256` of the raw and
        the processed ones) and `notes` (what was merged, dropped or guessed at). Of a data set that
        isn't ready the numbers are the documented ones, those not documented and the degrees are
        `None`, and there are no files.

    Raises:
        DatasetError: As :func:`load_dataset`.

    Example:
        >>> from pyg_lth.datasets import DatasetOptions, describe
        >>> about = describe(DatasetOptions(dataset="gowalla"))
        >>> about["users"], about["items"], about["train"], about["test"], about["ready"]
        (29858, 40981, 810128, 217242, False)
    """
    dataset_class = _resolve(options.dataset)
    entry = DATASETS.get(options.dataset)
    folder = Path(options.root, options.dataset)
    about: dict[str, Any] = {
        "name": options.dataset,
        "title": dataset_class.title,
        "licence": dataset_class.licence,
        "citation": dataset_class.citation,
        "source": dataset_class.source,
        "availability": "file" if entry is None else entry.availability,
    }
    if entry is not None and entry.present_files(folder / "raw") is None:
        parts = entry.parts if len(entry.parts) == 3 else (None, None, None)
        return about | {
            "folder": str(folder),
            "ready": False,
            "users": entry.users,
            "items": entry.items,
            **dict(zip(("train", "valid", "test"), parts, strict=True)),
            "interactions": sum(entry.parts),
            "density": sum(entry.parts) / (entry.users * entry.items),
            "user_degrees": None,
            "item_degrees": None,
            "files": [],
            "notes": [],
        }

    from .files import sha256

    dataset = load_dataset(options)
    counts = dataset.counts
    interactions = counts.train + counts.valid + counts.test
    users, items = dataset[0]["user", "rates", "item"].edge_index.numpy()
    paths = [Path(path) for path in (*dataset.raw_paths, *dataset.processed_paths)]
    return about | {
        "folder": dataset.root,
        "ready": True,
        **counts._asdict(),
        "interactions": interactions,
        "density": interactions / (counts.users * counts.items),
        "user_degrees": _degree_quantiles(users, counts.users),
        "item_degrees": _degree_quantiles(items, counts.items),
        "files": [
            {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in paths
            if path.is_file()
        ],
        "notes": list(dataset.notes),
    }


def _degree_quantiles(nodes: Any, number: int) -> dict[str, int]:
    """Returns degrees that occur, not interpolations between them."""
    import numpy as np

    degrees = np.bincount(nodes, minlength=number)
    found = np.quantile(degrees, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, found.astype(int).tolist(), strict=True))
