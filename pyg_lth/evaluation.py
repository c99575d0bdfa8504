"""Full ranking of all items, seen ones masked, by PyG's ranking metrics."""

import torch
from torch import Tensor
from torch_geometric.metrics import (
    LinkPredMetricCollection,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)
from torch_geometric.utils import cumsum

from pyg_lth.config import SplitName
from pyg_lth.errors import InputError
from pyg_lth.splits import InteractionSplit

Metrics = dict[str, float]

# Scores held at once, in entries: 64 MiB of float32 whatever the data set.
SCORES_AT_ONCE = 1 << 24


class Evaluator:
    """Ranks all items for every user that has ground truth in one part of the split.

    Train interactions are masked out of the ranking, and validation interactions too when the part
    is ``test``. Users without ground truth leave the mean.

    Args:
        split: The interactions, on the device to compute on.
        part: Which interactions are the ground truth.
        k: Length of the ranked list.

    Raises:
        InputError: If the split has no validation part and that is asked for.
    """

    def __init__(self, split: InteractionSplit, part: SplitName, k: int):
        truth = split.valid if part == "valid" else split.test
        if truth is None or truth.size(1) == 0:
            raise InputError(f"the graph has no {part} interactions to rank against")
        seen = split.train
        if part == "test" and split.valid is not None:
            seen = torch.cat([seen, split.valid], dim=1)
        self._users = torch.unique(truth[0])
        self._truth = _Grouped(truth, self._users)
        self._seen = _Grouped(seen, self._users)
        self._num_users = split.num_users
        self._chunk = max(1, SCORES_AT_ONCE // split.num_items)
        self._k = min(k, split.num_items)
        self._metrics = LinkPredMetricCollection(
            {
                f"precision@{k}": LinkPredPrecision(k),
                f"recall@{k}": LinkPredRecall(k),
                f"ndcg@{k}": LinkPredNDCG(k),
            }
        ).to(truth.device)

    @torch.no_grad()
    def __call__(self, embedding: Tensor) -> Metrics:
        """Return the mean of each metric over the users, keyed ``name@k``.

        Args:
            embedding: Propagated embeddings of users then items, shape ``[num_nodes, dim]``.
        """
        self._metrics.reset()
        items = embedding[self._num_users :].t()
        for first in range(0, self._users.numel(), self._chunk):
            last = min(first + self._chunk, self._users.numel())
            scores = embedding[self._users[first:last]] @ items
            scores[self._seen.rows(first, last)] = -torch.inf
            ranked = scores.topk(self._k, dim=1).indices
            self._metrics.update(ranked, self._truth.rows(first, last))
        return {name: float(value) for name, value in self._metrics.compute().items()}


class _Grouped:
    """Interactions of the evaluated users, cut into runs of consecutive users."""

    def __init__(self, index: Tensor, users: Tensor):
        row = torch.searchsorted(users, index[0]).clamp(max=users.numel() - 1)
        index = torch.stack([row, index[1]])[:, users[row] == index[0]]
        self._index = index[:, index[0].argsort(stable=True)]
        # On the host, so that slicing a chunk waits for nothing.
        self._start = cumsum(torch.bincount(self._index[0], minlength=users.numel())).tolist()

    def rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Row in the chunk and item of every interaction of the users ``first`` to ``last``."""
        index = self._index[:, self._start[first] : self._start[last]]
        return index[0] - first, index[1]


def popularity_embedding(split: InteractionSplit) -> Tensor:
    """One-dimensional embeddings that rank items by train popularity, the same for every user.

    Returns:
        Shape ``[num_users + num_items, 1]``, float.
    """
    degree = torch.bincount(split.train[1], minlength=split.num_items).float()
    return torch.cat([degree.new_ones(split.num_users), degree]).unsqueeze(1)
