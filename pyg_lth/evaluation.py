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
from pyg_lth.ranking import rank_items
from pyg_lth.splits import InteractionSplit

Metrics = dict[str, float]


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
        self._users, row = torch.unique(truth[0], return_inverse=True)
        self._truth = torch.stack([row, truth[1]])
        self._seen = _by_user(seen, self._users)
        self._num_users = split.num_users
        self._k = k
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
        users, items = embedding[self._users], embedding[self._num_users :]
        self._metrics.reset()
        self._metrics.update(rank_items(users, items, self._seen, self._k), self._truth)
        return {name: float(value) for name, value in self._metrics.compute().items()}


def _by_user(index: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
    """Interactions of some users in CSR form: row pointers, and items sorted within a user."""
    user, item = index[:, torch.isin(index[0], users)]
    order = item.argsort()
    order = order[user[order].argsort(stable=True)]
    degree = torch.bincount(torch.searchsorted(users, user), minlength=users.numel())
    return cumsum(degree), item[order]


def popularity_embedding(split: InteractionSplit) -> Tensor:
    """One-dimensional embeddings that rank items by train popularity, the same for every user.

    Returns:
        Shape ``[num_users + num_items, 1]``, float.
    """
    degree = torch.bincount(split.train[1], minlength=split.num_items).float()
    return torch.cat([degree.new_ones(split.num_users), degree]).unsqueeze(1)
