"""Full ranking of all items, seen ones masked, by PyG's ranking metrics."""

import torch
from torch import Tensor
from torch_geometric.metrics import LinkPredNDCG, LinkPredPrecision, LinkPredRecall
from torch_geometric.metrics.link_pred import LinkPredMetricData
from torch_geometric.utils import cumsum

from pyg_lth.config import SplitName
from pyg_lth.errors import InputError
from pyg_lth.evaluation.ranking import rank_items
from pyg_lth.interactions import InteractionSplit
from pyg_lth.workers import ALONE, Workers

Metrics = dict[str, float]


class Evaluator:
    """Ranks all items for every user that has ground truth in one part of the split.

    Train interactions are masked out of the ranking, and validation interactions too when the part
    is ``test``. Users without ground truth leave the mean.

    Args:
        split: The interactions, on the device to compute on.
        part: Which interactions are the ground truth.
        k: Length of the ranked list.
        workers: Who has which columns of the embeddings. Each ranks for some of the users.

    Attributes:
        users: The users with ground truth, ascending, shape ``[n]``, int64.

    Raises:
        InputError: If the split has no validation part and that is asked for.
    """

    def __init__(self, split: InteractionSplit, part: SplitName, k: int, workers: Workers = ALONE):
        truth = split.valid if part == "valid" else split.test
        if truth is None or truth.size(1) == 0:
            raise InputError(f"the graph has no {part} interactions to rank against")
        seen = split.train
        if part == "test" and split.valid is not None:
            seen = torch.cat([seen, split.valid], dim=1)
        self.users, row = torch.unique(truth[0], return_inverse=True)
        self._workers = workers
        own = workers.share(self.users.numel())
        mine = (row >= own.start) & (row < own.stop)
        self._truth = torch.stack([row[mine] - own.start, truth[1, mine]])
        self._seen = _by_user(seen, self.users[own])
        self._num_users = split.num_users
        self._k = k
        self._metrics = {
            f"precision@{k}": LinkPredPrecision(k).to(truth.device),
            f"recall@{k}": LinkPredRecall(k).to(truth.device),
            f"ndcg@{k}": LinkPredNDCG(k).to(truth.device),
        }

    def __call__(self, embedding: Tensor) -> Metrics:
        """Return the mean of each metric over the users, keyed ``name@k``.

        Args:
            embedding: As in :meth:`rank`.
        """
        values = self.per_user(self.rank(embedding))
        return {name: float(value.mean()) for name, value in values.items()}

    def rank(self, embedding: Tensor) -> Tensor:
        """Return the ranked list of each of :attr:`users`, best first.

        Args:
            embedding: Propagated embeddings of users then items, shape ``[num_nodes, dim]``; of
                several workers each gives its columns.

        Returns:
            Items, shape ``[n, min(k, num_items)]``, int64; a place that no item takes holds
            ``num_items`` (see :func:`~pyg_lth.evaluation.ranking.rank_items`). Of several workers
            each gets the lists of its share of the users.
        """
        workers = self._workers
        own = [self.users[workers.share(self.users.numel(), r)] for r in range(workers.size)]
        users, items = workers.rows(embedding, own, slice(self._num_users, None))
        return rank_items(users, items, self._seen, self._k)

    def per_user(self, ranked: Tensor, among: Tensor | None = None) -> dict[str, Tensor]:
        """Return each metric of each user, keyed ``name@k``.

        Args:
            ranked: What :meth:`rank` returned.
            among: The items that count as ground truth, shape ``[num_items]``, bool; all by
                default. The lists stay as they are, and NDCG's ideal list holds these items alone.

        Returns:
            Shape ``[n]``, float32, in the order of :attr:`users`; with ``among`` only those users
            who have ground truth among these items. All workers get those of all users.
        """
        truth = self._truth
        if among is not None:
            truth = truth[:, among[truth[1]]]
            rows, row = torch.unique(truth[0], return_inverse=True)
            ranked, truth = ranked[rows], torch.stack([row, truth[1]])
        # PyG's public methods give sums over users only; this hook of theirs is what they sum.
        data = LinkPredMetricData(ranked, truth)
        own = torch.stack([metric._compute(data) for metric in self._metrics.values()])
        values = self._workers.cat(own)
        return {name: v.clone() for name, v in zip(self._metrics, values, strict=True)}


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
    degree = split.item_degree().float()
    return torch.cat([degree.new_ones(split.num_users), degree]).unsqueeze(1)
