"""The graph all data sets share: a `HeteroData` whose labels keep to their nodes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.storage import EdgeStorage, NodeStorage
from torch_geometric.utils import bipartite_subgraph

from .errors import DatasetError

EDGE_TYPE = ("user", "rates", "item")
PARTS = {
    "train": "edge_index",
    "valid": "val_edge_label_index",
    "test": "edge_label_index",
}
LABELS = (PARTS["valid"], PARTS["test"])


class _Nodes(NodeStorage):  # type: ignore[misc]
    """Nodes that tell their graph when some of them are taken away."""

    def __setitem__(self, key: str, value: Any) -> None:
        fewer = key == "num_nodes" and value is not None and value < self.get(key, value)
        super().__setitem__(key, value)
        if fewer:
            for store in self._parent().edge_stores:
                store.forget_labels()


class _Edges(EdgeStorage):  # type: ignore[misc]
    """Edges whose labels are no attribute of the edges and end with the numbers of their nodes."""

    def is_edge_attr(self, key: str) -> bool:
        return key not in LABELS and super().is_edge_attr(key)

    def forget_labels(self) -> None:
        for key in LABELS:
            if key in self:
                del self[key]
                self._forgotten = True

    def __getattr__(self, key: str) -> Any:
        if key in LABELS and key not in self and self.__dict__.get("_forgotten"):
            raise AttributeError(
                f"'{key}' went when nodes were taken away, since it holds the old numbers; "
                "take nodes away with data.subgraph, which renumbers it"
            )
        return super().__getattr__(key)


class InteractionGraph(HeteroData):  # type: ignore[misc]
    r"""A :class:`~torch_geometric.data.HeteroData` of users, items and who rates what.

    The form of PyG's :class:`~torch_geometric.datasets.AmazonBook` with validation added: see
    :class:`BipartiteDataset`. PyG itself renumbers `edge_index` alone where nodes change, and
    `edge_label_index` in :meth:`to_homogeneous`. Here the labels of validation and test go along
    in :meth:`to_homogeneous` and :meth:`subgraph`. A transform that takes nodes away in another
    manner, such as :class:`~torch_geometric.transforms.RemoveIsolatedNodes`, or a loader that
    samples, leaves no labels behind: asking for them then is an error that says so.

    Example:
        >>> import torch
        >>> from pyg_lth.datasets import InteractionGraph
        >>> data = InteractionGraph.from_pairs(
        ...     train=[[0, 0, 1], [0, 2, 1]], test=[[1], [2]], valid=[[0], [1]]
        ... )
        >>> data["user"].num_nodes, data["item"].num_nodes
        (2, 3)
        >>> data.to_homogeneous().val_edge_label_index  # items follow the two users
        tensor([[0],
                [3]])
        >>> data.subgraph({"item": torch.tensor([2, 1])})["user", "rates", "item"].edge_label_index
        tensor([[1],
                [0]])
    """

    @classmethod
    def from_pairs(
        cls,
        train: Any,
        test: Any,
        valid: Any = None,
        *,
        num_users: int | None = None,
        num_items: int | None = None,
        name: str = "graph",
        shown: Callable[[int, int], str] = "user {}, item {}".format,
    ) -> "InteractionGraph":
        """Builds the graph from arrays, and refuses interactions that break its promises.

        Args:
            train: The training interactions: whole numbers of shape [2, E], users in the first
                row; a tensor, an array or lists, in any order.
            test: The test interactions, in the same form.
            valid: The validation interactions, in the same form, if there are any.
            num_users: The number of users, by default one more than the largest.
            num_items: The number of items, by default one more than the largest.
            name: What the errors call the graph.
            shown: What the errors call a user and an item, given their indices.

        Raises:
            DatasetError: If a part has another form, is empty, repeats a pair, shares one with
                another part, or goes beyond the number of users or items.
        """
        given = {"train": train, "valid": valid, "test": test}
        parts = {part: _pairs(given[part], name, part) for part in PARTS if given[part] is not None}
        if "valid" in parts and not parts["valid"].size:
            del parts["valid"]
        for part, pairs in parts.items():
            if not pairs.size:
                raise DatasetError(
                    f"{name}: no interactions are left for {part}; a larger data set is needed"
                )
        largest = np.max([pairs.max(axis=1) for pairs in parts.values()], axis=0).tolist()
        num_users, num_items = (
            1 + most if number is None else number
            for most, number in zip(largest, (num_users, num_items), strict=True)
        )
        if num_users * num_items > np.iinfo(np.int64).max:
            raise DatasetError(
                f"{name}: {num_users} users and {num_items} items are too many to number the pairs"
            )

        def first(keys: npt.NDArray[np.int64]) -> str:
            return shown(*divmod(int(keys[0]), num_items))

        data = cls()
        data["user"].num_nodes = num_users
        data["item"].num_nodes = num_items
        seen: dict[str, npt.NDArray[np.int64]] = {}
        for part, (users, items) in parts.items():
            if (
                min(users.min(), items.min()) < 0
                or users.max() >= num_users
                or items.max() >= num_items
            ):
                raise DatasetError(
                    f"{name}: {part} has a user or item beyond the {num_users} users and "
                    f"{num_items} items of the data set; check the raw files"
                )
            keys = np.sort(users * num_items + items)
            repeated = np.unique(keys[1:][np.diff(keys) == 0])
            if repeated.size:
                more = f" and {repeated.size - 1} more" if repeated.size > 1 else ""
                raise DatasetError(
                    f"{name}: {part} has a pair twice ({first(repeated)}{more}); remove one"
                )
            for other, other_keys in seen.items():
                shared = np.intersect1d(keys, other_keys, assume_unique=True)
                if shared.size:
                    raise DatasetError(
                        f"{name}: {part} shares {shared.size} pairs with {other} (first: "
                        f"{first(shared)}); remove them from one of the two"
                    )
            seen[part] = keys
            data[EDGE_TYPE][PARTS[part]] = torch.from_numpy(np.stack(np.divmod(keys, num_items)))
        return data

    def get_node_store(self, key: str) -> NodeStorage:
        """As PyG's, of nodes that take their labels along."""
        if key not in self._node_store_dict:
            self._check_type_name(key)
            self._node_store_dict[key] = _Nodes(_parent=self, _key=key)
        return self._node_store_dict[key]

    def get_edge_store(self, src: str, rel: str, dst: str) -> EdgeStorage:
        """As PyG's, of edges whose labels end with the numbers of their nodes."""
        key = (src, rel, dst)
        if key not in self._edge_store_dict:
            self._check_type_name(rel)
            self._edge_store_dict[key] = _Edges(_parent=self, _key=key)
        return self._edge_store_dict[key]

    def to_homogeneous(self, *args: Any, **kwargs: Any) -> Data:
        """As PyG's, with the labels of both parts in the numbers of users, then items."""
        plain = HeteroData()
        for key, store in (*self.node_items(), *self.edge_items()):
            for name, value in store.items():
                if name not in LABELS:
                    plain[key][name] = value
        for name, value in self._global_store.items():
            plain[name] = value
        data = plain.to_homogeneous(*args, **kwargs)
        first, start = 0, {}
        for key, nodes in self.node_items():
            start[key] = first
            first += nodes.num_nodes
        for (src, _, dst), store in self.edge_items():
            for name in LABELS:
                if name in store and (src, dst) == (EDGE_TYPE[0], EDGE_TYPE[-1]):
                    data[name] = store[name] + torch.tensor(
                        [[start[src]], [start[dst]]], device=store[name].device
                    )
        return data

    def subgraph(self, subset_dict: dict[str, Tensor]) -> "InteractionGraph":
        """As PyG's, with the labels among the nodes that stay, renumbered as these are."""
        data: InteractionGraph = super().subgraph(subset_dict)
        size = tuple(self[kind].num_nodes for kind in (EDGE_TYPE[0], EDGE_TYPE[-1]))
        kept = tuple(
            subset_dict.get(kind, torch.arange(number))
            for kind, number in zip((EDGE_TYPE[0], EDGE_TYPE[-1]), size, strict=True)
        )
        for name in LABELS:
            if name in self[EDGE_TYPE]:
                index, _ = bipartite_subgraph(
                    kept, self[EDGE_TYPE][name], relabel_nodes=True, size=size
                )
                data[EDGE_TYPE][name] = index if index.size(1) or name == PARTS["test"] else None
        return data


def _pairs(given: Any, name: str, part: str) -> npt.NDArray[np.int64]:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
    try:
        pairs = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{name}: {part} is no array ({error}); give shape [2, E]") from error
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise DatasetError(
            f"{name}: {part} has shape {list(pairs.shape)}; give users, then items: [2, E]"
        )
    if pairs.size and not (
        np.issubdtype(pairs.dtype, np.integer)
        and (pairs.dtype.kind != "u" or pairs.max() <= np.iinfo(np.int64).max)
    ):
        raise DatasetError(f"{name}: {part} holds {pairs.dtype}; give indices, as int64")
    return pairs.astype(np.int64)
