"""The form all data sets share: users, items and the interactions between them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch_geometric.data import HeteroData, InMemoryDataset
from torch_geometric.data.data import BaseData

from .errors import DatasetError
from .files import replaced
from .graph import EDGE_TYPE, PARTS, InteractionGraph
from .ids import read_ids, write_ids

Pairs = npt.NDArray[np.int64]
Transform = Callable[[HeteroData], HeteroData]


class Counts(NamedTuple):
    """How much a data set holds.

    Args:
        users: The number of users.
        items: The number of items.
        train: The number of training interactions.
        valid: The number of validation interactions, 0 if there is no such part.
        test: The number of test interactions.
    """

    users: int
    items: int
    train: int
    valid: int
    test: int


class Interactions(NamedTuple):
    """What a data set reads from its raw files.

    Args:
        train: (user, item) index pairs, int64 of shape [2, E], in any order.
        valid: Validation pairs of the same form, or `None` where the data set has none.
        test: Test pairs of the same form.
        num_users: The number of users.
        num_items: The number of items.
        user_ids: The original id of every user index, where the data set keeps them.
        item_ids: The original id of every item index, where the data set keeps them.
        notes: A line for each kind of interaction that was merged, dropped or guessed at.
    """

    train: Pairs
    valid: Pairs | None
    test: Pairs
    num_users: int
    num_items: int
    user_ids: npt.NDArray[Any] | None = None
    item_ids: npt.NDArray[Any] | None = None
    notes: tuple[str, ...] = ()

    def to_graph(self, name: str) -> InteractionGraph:
        """Builds the graph, and refuses interactions that break its promises.

        Args:
            name: What the errors call the data set.
        """

        def shown(user: int, item: int) -> str:
            return (
                f"user {user if self.user_ids is None else self.user_ids[user]}, "
                f"item {item if self.item_ids is None else self.item_ids[item]}"
            )

        return InteractionGraph.from_pairs(
            self.train,
            self.test,
            self.valid,
            num_users=self.num_users,
            num_items=self.num_items,
            name=name,
            shown=shown,
        )


class BipartiteDataset(InMemoryDataset):  # type: ignore[misc]
    r"""The base class of user-item interaction data sets.

    Its one graph is an :class:`InteractionGraph`, a :class:`~torch_geometric.data.HeteroData` with
    the node types `user` and `item` (`num_nodes` each) and the edge type
    `('user', 'rates', 'item')`, whose attributes
    follow PyG's :class:`~torch_geometric.datasets.AmazonBook`, with validation added:

    * `edge_index`: the training interactions,
    * `val_edge_label_index`: the validation interactions, where there are any,
    * `edge_label_index`: the test interactions.

    Each is int64 of shape [2, E] with users in the first row, sorted by user and then item and
    free of duplicates, and the three are disjoint. Reverse edges are left to
    :class:`~torch_geometric.transforms.ToUndirected`.

    The processed file holds plain tensors (safetensors): no pickle is ever loaded. It holds them
    as they are before :obj:`pre_transform`, which may produce anything; so that is applied once
    when the data set is opened, not once for all. The file's name carries a hash of the options
    that shaped the data, so that two variants in one folder never share it.

    A subclass sets the class attributes, defines :meth:`read`, lists in :attr:`options` whatever
    shapes the outcome, and sets its own attributes before it calls this constructor.

    Args:
        root: The folder of the data set, with `raw` and `processed` inside.
        transform: Applied to the graph at every access.
        pre_transform: Applied to the graph once, on opening.
        force_reload: Whether to process the raw files again.

    Attributes:
        name: The name on the command line.
        title: What the data set is, in a few words.
        licence: Under which terms it may be used.
        citation: What to cite.
        source: Where it comes from.
        counts: The numbers of users, items and interactions.
        notes: A line for each kind of interaction that was merged, dropped or guessed at when
            the raw files were read; none is skipped in silence.

    Raises:
        DatasetError: If the raw files are missing or bad, or a folder cannot be written.

    Example:
        >>> import numpy as np
        >>> from pyg_lth.datasets import BipartiteDataset
        >>> from pyg_lth.datasets.base import Interactions
        >>> class Pairs(BipartiteDataset):
        ...     name = "pairs"
        ...
        ...     @property
        ...     def raw_file_names(self):
        ...         return []
        ...
        ...     def read(self):
        ...         train, test = np.array([[0, 1, 1], [0, 0, 2]]), np.array([[0], [1]])
        ...         return Interactions(train, None, test, num_users=2, num_items=3)
        >>> dataset = Pairs("data/pairs")
        >>> dataset
        Pairs(users=2, items=3, train=3, valid=0, test=1)
        >>> dataset[0]["user", "rates", "item"].edge_index
        tensor([[0, 1, 1],
                [0, 0, 2]])
    """

    name: str
    title: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    source: ClassVar[str]
    counts: Counts
    notes: tuple[str, ...]

    def __init__(
        self,
        root: str | Path | None,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        try:
            super().__init__(
                None if root is None else str(root),
                transform,
                pre_transform,
                force_reload=force_reload,
            )
        except OSError as error:
            raise DatasetError(f"{error.filename or root}: {error.strerror or error}") from error
        self._open()

    def _open(self) -> None:
        """Takes the graph that is ready now."""
        self.load(self.processed_paths[0])

    def read(self) -> Interactions:
        """Reads the raw files.

        Raises:
            DatasetError: If they are bad.
        """
        raise NotImplementedError

    @property
    def options(self) -> Mapping[str, Any]:
        """The JSON-able options that shape the processed data."""
        return {}

    @property
    def keeps_ids(self) -> bool:
        """Whether users and items had ids of their own, which are kept."""
        return False

    @cached_property
    def _variant(self) -> str:
        shape = {"format": 1, "class": type(self).__name__, **self.options}
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def processed_file_names(self) -> list[str]:
        """The tensors and, where the original ids are kept, a CSV file of users and of items."""
        tables = ["user_ids", "item_ids"] if self.keeps_ids else []
        return [
            f"data-{self._variant}.safetensors",
            *(f"{table}-{self._variant}.csv" for table in tables),
        ]

    def _process(self) -> None:
        # PyG's version would unpickle the `pre_transform.pt` and `pre_filter.pt` it finds.
        if self.force_reload or not all(Path(path).exists() for path in self.processed_paths):
            self.process()

    def process(self) -> None:
        """Reads the raw files, checks what they say and stores it.

        Raises:
            DatasetError: If the raw files are bad, or the parts are empty, repeat a pair or
                overlap.
        """
        interactions = self.read()
        Path(self.processed_dir).mkdir(parents=True, exist_ok=True)
        for path, ids in zip(
            self.processed_paths[1:], (interactions.user_ids, interactions.item_ids), strict=False
        ):
            assert ids is not None
            write_ids(Path(path), ids)
        # The tensors come last: when they are there, the rest is.
        self.save([interactions.to_graph(self.name)], self.processed_paths[0], interactions.notes)

    @classmethod
    def save(cls, data_list: Sequence[BaseData], path: str, notes: Sequence[str] = ()) -> None:
        """Saves the one graph of `data_list` as plain tensors.

        Args:
            data_list: A sequence of one graph in the form of this class.
            path: The file; it appears under its name only when it is complete.
            notes: What to keep of how the data were read.
        """
        (data,) = data_list
        tensors = {
            "num_nodes": torch.tensor([data["user"].num_nodes, data["item"].num_nodes]),
            **{part: data[EDGE_TYPE][key] for part, key in PARTS.items() if key in data[EDGE_TYPE]},
        }
        # As bytes, since safetensors takes no path that is not UTF-8.
        with replaced(Path(path)) as temporary:
            temporary.write_bytes(save(tensors, {"notes": json.dumps(list(notes))}))

    def load(self, path: str, data_cls: type[BaseData] = InteractionGraph) -> None:
        """Loads the graph that :meth:`save` stored and applies `pre_transform`.

        Args:
            path: The file.
            data_cls: The class of the graph, always the same; PyG's signature has it.

        Raises:
            DatasetError: If the file is damaged.
        """
        try:
            content = Path(path).read_bytes()
            tensors = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            notes = json.loads(header.get("__metadata__", {}).get("notes", "[]"))
            num_users, num_items = tensors["num_nodes"].tolist()
        except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
            raise DatasetError(
                f"{path}: damaged ({error}); delete it and it is made again"
            ) from error
        data = data_cls()
        data["user"].num_nodes = num_users
        data["item"].num_nodes = num_items
        for part, key in PARTS.items():
            if part in tensors:
                data[EDGE_TYPE][key] = tensors[part]
        self._hold(data, notes)

    def _hold(self, data: HeteroData, notes: Sequence[str]) -> None:
        """Makes a graph that of the data set."""
        sizes = {
            part: data[EDGE_TYPE][key].size(1) if key in data[EDGE_TYPE] else 0
            for part, key in PARTS.items()
        }
        self.counts = Counts(data["user"].num_nodes, data["item"].num_nodes, **sizes)
        self.notes = tuple(str(note) for note in notes)
        self.data = data if self.pre_transform is None else self.pre_transform(data)

    @property
    def num_classes(self) -> int:
        """Always 0: interactions carry no class labels."""
        return 0

    @cached_property
    def user_ids(self) -> npt.NDArray[Any]:
        """The original id of every user index: int64 where all are integers, else text.

        Where a data set's ids are the indices already, they are returned.
        """
        return self._ids(1, self.counts.users)

    @cached_property
    def item_ids(self) -> npt.NDArray[Any]:
        """The original id of every item index, as in :attr:`user_ids`."""
        return self._ids(2, self.counts.items)

    def _ids(self, file: int, number: int) -> npt.NDArray[Any]:
        return read_ids(Path(self.processed_paths[file])) if self.keeps_ids else np.arange(number)

    def __repr__(self) -> str:
        counts = ", ".join(f"{key}={value}" for key, value in self.counts._asdict().items())
        return f"{type(self).__name__}({counts})"
