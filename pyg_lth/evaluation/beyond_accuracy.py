"""What accuracy does not tell of a ranking: how much of the items it shows, and which."""

import torch
from torch import Tensor
from torch_geometric.metrics import LinkPredAveragePopularity, LinkPredCoverage

from pyg_lth.evaluation.evaluator import Evaluator, Metrics
from pyg_lth.interactions import InteractionSplit
from pyg_lth.workers import ALONE, Workers

# The most popular items that are no long tail, as a share of all.
HEAD = 0.2


class BeyondAccuracy:
    """Measures ranked lists by what they show.

    Args:
        split: The interactions, on the device to compute on.
        evaluator: Of the same split; its ground truth is what long-tail recall is held against.
        k: Length of the lists.
        workers: Who has the lists of which users.
    """

    def __init__(
        self, split: InteractionSplit, evaluator: Evaluator, k: int, workers: Workers = ALONE
    ):
        popularity = split.item_degree()
        head = popularity.argsort(descending=True, stable=True)[: int(HEAD * split.num_items)]
        self._tail = torch.ones_like(popularity, dtype=torch.bool)
        self._tail[head] = False
        self._coverage = LinkPredCoverage(k, split.num_items).to(popularity.device)
        self._popularity = LinkPredAveragePopularity(k, popularity).to(popularity.device)
        self._evaluator = evaluator
        self._k = k
        self._workers = workers

    def __call__(self, ranked: Tensor) -> Metrics:
        """Measure one ranking.

        Args:
            ranked: What ``evaluator.rank`` returned, shape ``[n, k]``, int64.

        Returns:
            Keyed ``name@k``: ``coverage``, the share of the items that stand in any list;
            ``gini``, how unevenly the places of all lists go to the items, from 0 (to all alike) to
            nearly 1 (to one); ``popularity``, the mean number of train interactions of what is
            listed; ``tail_recall``, Recall with the items outside the most popular fifth alone as
            ground truth, over the users who have any there. What there is nothing to measure by is
            left out: lists with a place that no item takes count for ``tail_recall`` only.
        """
        found: Metrics = {}
        num_items = self._tail.numel()
        listed = self._workers.cat(ranked.t()).t()
        whole = listed[(listed < num_items).all(dim=1)]
        if whole.numel():
            for name, metric in (("coverage", self._coverage), ("popularity", self._popularity)):
                metric.reset()
                metric.update(whole, whole.new_empty(2, 0))
                found[f"{name}@{self._k}"] = float(metric.compute())
            found[f"gini@{self._k}"] = gini(torch.bincount(whole.flatten(), minlength=num_items))
        tail = self._evaluator.per_user(ranked, self._tail)[f"recall@{self._k}"]
        if tail.numel():
            found[f"tail_recall@{self._k}"] = float(tail.mean())
        return found


def gini(counts: Tensor) -> float:
    r"""The Gini coefficient :math:`\sum_i (2i - n - 1) x_i / (n \sum_i x_i)` of ascending counts.

    Args:
        counts: How often each of :math:`n` is chosen, shape ``[n]``, integers, not all 0.

    Example:
        >>> import torch
        >>> from pyg_lth.evaluation.beyond_accuracy import gini
        >>> gini(torch.tensor([3, 3, 3])), gini(torch.tensor([0, 0, 0, 8]))
        (0.0, 0.75)
    """
    ordered, n = counts.sort().values.double(), counts.numel()
    rank = torch.arange(1, n + 1, device=counts.device)
    return float(((2 * rank - n - 1) * ordered).sum() / (n * ordered.sum()))
