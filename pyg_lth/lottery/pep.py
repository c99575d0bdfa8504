"""Thresholds learned together with the embeddings: the search for masks of PEP."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pyg_lth.config import PruneConfig, ThresholdName
from pyg_lth.nn.backbones import TABLE, Weights
from pyg_lth.pruning.masks import Mask
from pyg_lth.training.optimizers import DenseUpdate
from pyg_lth.training.problem import Problem
from pyg_lth.training.progress import EpochRecord, Progress
from pyg_lth.training.trainer import Training

# The defaults of the reference: where s starts, and its weight decay, which is what raises it.
START, DECAY = -10.0, 0.1

# The search ends when within so many epochs no more than such a share of the entries above their
# thresholds fell below, which counts from when so many have fallen. A threshold rises to one half
# at most, and slowly, so that what is well above it grows as fast.
PATIENCE, FALL, BITE = 50, 0.01, 0.1


class SoftThreshold(nn.Module):
    r"""Parametrization of a table :math:`V` as :math:`\mathrm{sign}(V)\max(0, |V| - σ(s))`.

    From `"Learnable Embedding Sizes for Recommender Systems" <https://arxiv.org/abs/2101.07577>`_,
    Equation 5.

    Args:
        shape: Of the table, ``[num_nodes, dim]``.
        shares: What shares one threshold: the ``table``, a row (``feature``) or an ``entry``.
    """

    def __init__(self, shape: torch.Size, shares: ThresholdName):
        super().__init__()
        num_nodes, dim = shape
        size = {"table": (1, 1), "feature": (num_nodes, 1), "entry": (num_nodes, dim)}[shares]
        self.s = nn.Parameter(torch.full(size, START))

    def margin(self, weight: Tensor) -> Tensor:
        """Return how far each entry lies above its threshold, in the shape of the table."""
        return weight.abs() - self.s.sigmoid()

    def forward(self, weight: Tensor) -> Tensor:
        """Return the table with its entries drawn towards zero by their thresholds."""
        return weight.sign() * F.relu(self.margin(weight))


class ThresholdSearch(Training):
    """A training that learns thresholds too; it ends when nothing falls below them any more.

    No evaluation chooses an epoch: the masks on the way are what it is for.

    Args:
        problem: What the trainings of a search share; its config is a
            :class:`~pyg_lth.config.PruneConfig`.
        initial: Where to start from.
    """

    def __init__(self, problem: Problem, initial: Weights):
        super().__init__(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
        # The share above the thresholds when it last fell enough, and the epoch of that.
        self._fallen = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def _build_update(self, mask: Mask) -> DenseUpdate:
        config = self.problem.config
        assert isinstance(config, PruneConfig)
        embedding = self._model.embedding
        self._threshold = SoftThreshold(embedding.weight.shape, config.threshold)
        self._threshold.to(embedding.weight.device)
        parametrize.register_parametrization(embedding, "weight", self._threshold)
        self._table: nn.Parameter = embedding.get_parameter("parametrizations.weight.original")
        parameters = {"weight": self._table, "threshold": self._threshold.s, **self._others}
        decay = {"threshold": DECAY}
        return DenseUpdate(self._model, parameters, self.problem.propagation, config.lr, decay)

    @torch.no_grad()
    def margin(self) -> Tensor:
        """Return how far each entry lies above its threshold, shape ``[num_nodes, dim]``."""
        return self._threshold.margin(self._table).cpu()

    def _evaluate(self, record: EpochRecord) -> None:
        """Choose no epoch."""

    def _is_finished(self) -> bool:
        above = float((self.margin() > 0).double().mean())
        if above > 1 - BITE or above < (1 - FALL) * self._fallen[0]:
            self._fallen = self._fallen.new_tensor([above, self.progress.epoch])
        waited = self.progress.epoch - int(self._fallen[1])
        return self.progress.epoch >= self.problem.config.max_epochs or waited >= PATIENCE

    def tensors(self) -> dict[str, Tensor]:
        """As in the parent, and how far the thresholds have come."""
        return {**super().tensors(), "fallen": self._fallen}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """As in the parent."""
        super().restore(tensors, progress)
        self._fallen = tensors["fallen"]
