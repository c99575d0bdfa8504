"""The interactions that all contenders share, in a form that needs only NumPy."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Interactions(NamedTuple):
    """Train and test interactions, each int64 of shape [2, E]: a user and an item a column."""

    num_users: int
    num_items: int
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    @classmethod
    def from_graph(cls, data: Any) -> "Interactions":
        """Take them from a graph of :mod:`pyg_lth.datasets`."""
        store = data["user", "rates", "item"]
        return cls(
            data["user"].num_nodes,
            data["item"].num_nodes,
            store.edge_index.numpy(),
            store.edge_label_index.numpy(),
        )

    def save(self, folder: Path) -> None:
        """Save them for :meth:`load`."""
        np.savez(folder / "interactions.npz", **self._asdict())

    @classmethod
    def load(cls, folder: str | Path) -> "Interactions":
        """Load what :meth:`save` saved."""
        with np.load(Path(folder) / "interactions.npz") as saved:
            parts = {name: saved[name] for name in cls._fields}
        return cls(int(parts["num_users"]), int(parts["num_items"]), parts["train"], parts["test"])

    def random_embedding(self, dim: int) -> npt.NDArray[np.float32]:
        """Random embeddings of users then items."""
        random = np.random.default_rng(0)
        return random.standard_normal((self.num_users + self.num_items, dim), dtype=np.float32)


def load_embedding(folder: str | Path, name: str) -> npt.NDArray[np.float32]:
    """Embeddings of users then items that were saved under a name, for every contender."""
    embedding: npt.NDArray[np.float32] = np.load(Path(folder) / f"{name}.npy")
    return embedding


def save_embedding(folder: Path, name: str, embedding: npt.NDArray[np.float32]) -> None:
    """Save embeddings for :func:`load_embedding`."""
    np.save(folder / f"{name}.npy", embedding)
