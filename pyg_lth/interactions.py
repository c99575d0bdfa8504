"""The interactions of one graph, split into train, validation and test."""

import dataclasses
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import cumsum

from pyg_lth.errors import InputError

EDGE_TYPE = ("user", "rates", "item")
VALIDATION_FRACTION = 0.1


@dataclasses.dataclass(frozen=True)
class InteractionSplit:
    """Train, validation and test interactions of a bipartite graph.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        train: Interactions to learn from, shape ``[2, E]``, int64, sorted by user then item.
        valid: Interactions that choose epochs, in the same form, or :obj:`None`.
        test: Interactions to report on, in the same form.

    Example:
        >>> from pyg_lth.datasets import Synthetic
        >>> from pyg_lth.interactions import InteractionSplit
        >>> data = Synthetic("data/synthetic", 50, 40, 500)[0]
        >>> split = InteractionSplit.from_data(data)
        >>> split.num_users, split.num_items
        (50, 40)
        >>> split.joint_edge_index().size(1) == 2 * split.train.size(1)
        True
    """

    num_users: int
    num_items: int
    train: Tensor
    valid: Tensor | None
    test: Tensor

    @classmethod
    def from_data(cls, data: HeteroData) -> "InteractionSplit":
        """Read and check a graph in the form of :mod:`pyg_lth.datasets`.

        Args:
            data: Node types ``user`` and ``item``; on the edge type ``('user', 'rates', 'item')``
                the attributes ``edge_index`` (train), ``edge_label_index`` (test) and, where there
                is one, ``val_edge_label_index`` (validation).

        Raises:
            InputError: If a part is missing, empty, out of range, or overlaps another.
        """
        missing = [name for name in ("user", "item") if name not in data.node_types]
        if missing or EDGE_TYPE not in data.edge_types:
            raise InputError(
                f"the graph needs node types 'user' and 'item' and edge type {EDGE_TYPE}; "
                f"it has {data.node_types} and {data.edge_types}"
            )
        num_users, num_items = data["user"].num_nodes, data["item"].num_nodes
        if num_users is None or num_items is None:
            raise InputError("the graph needs 'num_nodes' on node types 'user' and 'item'")
        store = data[EDGE_TYPE]
        parts: dict[str, Tensor] = {}
        for name in ("edge_index", "val_edge_label_index", "edge_label_index"):
            if name in store:
                parts[name] = _checked(store[name], name, num_users, num_items)
        for name in ("edge_index", "edge_label_index"):
            if name not in parts or parts[name].size(1) == 0:
                raise InputError(f"the graph has no interactions in {EDGE_TYPE} '{name}'")
        keys = torch.cat([index[0] * num_items + index[1] for index in parts.values()])
        if torch.unique(keys).numel() != keys.numel():
            raise InputError(
                "an interaction stands twice in the graph: train, validation and test must be "
                "disjoint and free of duplicates"
            )
        return cls(
            num_users,
            num_items,
            train=parts["edge_index"],
            valid=parts.get("val_edge_label_index"),
            test=parts["edge_label_index"],
        )

    def with_validation(self) -> "InteractionSplit":
        """Give validation back to train, where there is one."""
        if self.valid is None:
            return self
        together = torch.cat([self.train, self.valid], dim=1)
        order = (together[0] * self.num_items + together[1]).argsort()
        return dataclasses.replace(self, train=together[:, order], valid=None)

    def to_data(self) -> HeteroData:
        """The graph that :meth:`from_data` reads as this."""
        data = HeteroData()
        data["user"].num_nodes, data["item"].num_nodes = self.num_users, self.num_items
        store = data[EDGE_TYPE]
        store.edge_index, store.edge_label_index = self.train, self.test
        if self.valid is not None:
            store.val_edge_label_index = self.valid
        return data

    def to_tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` takes: counts and interactions, in int32 where that holds."""
        counts = torch.tensor([self.num_users, self.num_items])
        kind = torch.int32 if int(counts.max()) <= torch.iinfo(torch.int32).max else torch.int64
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        kept = {name: part.to(kind) for name, part in parts.items() if part is not None}
        return {"num_nodes": counts, **kept}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "InteractionSplit":
        """Read what :meth:`to_tensors` gives.

        Raises:
            InputError: If it is no such graph.
            KeyError: If a part is missing.
        """
        num_users, num_items = tensors["num_nodes"].tolist()
        valid = tensors["valid"].long() if "valid" in tensors else None
        given = cls(num_users, num_items, tensors["train"].long(), valid, tensors["test"].long())
        return cls.from_data(given.to_data())

    def hold_out_validation(self, seed: int) -> "InteractionSplit":
        """Move a tenth of each user's train interactions to validation (design, Section 3).

        The tenth is rounded to the nearest whole number, so users with fewer than five train
        interactions keep them all.

        Args:
            seed: Seed of the choice.

        Raises:
            InputError: If no user has enough interactions to give one.
        """
        generator = torch.Generator().manual_seed(seed)
        user = self.train[0]
        order = torch.rand(user.numel(), generator=generator, dtype=torch.float64).argsort()
        order = order[user[order].argsort(stable=True)]
        degree = torch.bincount(user, minlength=self.num_users)
        rank = torch.arange(user.numel()) - cumsum(degree)[user]
        quota = (degree * VALIDATION_FRACTION + 0.5).floor().long()
        held_out = torch.empty_like(user, dtype=torch.bool)
        held_out[order] = rank < quota[user]
        if not held_out.any():
            raise InputError(
                "no user has five train interactions to hold a tenth out for validation: give the "
                "graph a 'val_edge_label_index', or select on test"
            )
        return dataclasses.replace(
            self, train=self.train[:, ~held_out], valid=self.train[:, held_out]
        )

    def item_degree(self) -> Tensor:
        """Return the train interactions of each item, int64, shape ``[num_items]``."""
        return torch.bincount(self.train[1], minlength=self.num_items)

    def joint_edge_index(self) -> Tensor:
        """Train interactions in both directions over users then items, shape ``[2, 2E]``."""
        user, item = self.train[0], self.train[1] + self.num_users
        return torch.stack([torch.cat([user, item]), torch.cat([item, user])])

    def to(self, device: torch.device) -> "InteractionSplit":
        """Return the split with its tensors on ``device``."""
        return dataclasses.replace(
            self,
            train=self.train.to(device),
            valid=None if self.valid is None else self.valid.to(device),
            test=self.test.to(device),
        )

    def fingerprint(self) -> str:
        """SHA-256 over counts and interactions: equal for equal graphs."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for part in (self.train, self.valid, self.test):
            digest.update(b"none" if part is None else part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _checked(index: Tensor, name: str, num_users: int, num_items: int) -> Tensor:
    """Return ``index`` sorted by user then item, after checking its form and range."""
    if index.dim() != 2 or index.size(0) != 2 or index.dtype != torch.long:
        raise InputError(
            f"'{name}' must be int64 of shape [2, E], not {index.dtype} of {list(index.shape)}"
        )
    index = index.cpu()
    for row, (kind, count) in enumerate((("user", num_users), ("item", num_items))):
        bad = (index[row] < 0) | (index[row] >= count)
        if bad.any():
            column = int(bad.nonzero()[0])
            raise InputError(
                f"'{name}' column {column}: {kind} {int(index[row, column])} is outside "
                f"0..{count - 1}"
            )
    return index[:, (index[0] * num_items + index[1]).argsort()]
