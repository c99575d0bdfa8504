"""What all trainings of a search share: the graph prepared for training and ranking."""

import dataclasses

import torch
from torch import Tensor

from pyg_lth import seeding
from pyg_lth.config import TrainConfig
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.propagation import Propagation
from pyg_lth.training.losses import LOSSES
from pyg_lth.training.sampling import TripletSampler


@dataclasses.dataclass(frozen=True)
class Problem:
    """What all trainings of a search share: the graph prepared for training and ranking.

    Args:
        config: The settings.
        split: The interactions, on ``device``.
        device: Where to compute.
        propagation: The normalised adjacency, :obj:`None` for a backbone without layers.
        sampler: Draws the batches.
        evaluator: Ranks on the part that chooses epochs.
    """

    config: TrainConfig
    split: InteractionSplit
    device: torch.device
    propagation: Propagation | None
    sampler: TripletSampler
    evaluator: Evaluator

    @classmethod
    def prepare(
        cls, split: InteractionSplit, config: TrainConfig, device: torch.device
    ) -> "Problem":
        """Prepare a split for training on ``device``."""
        split = split.to(device)
        num_nodes = split.num_users + split.num_items
        return cls(
            config,
            split,
            device,
            propagation=Propagation(split.joint_edge_index(), num_nodes, config.propagation)
            if config.layers
            else None,
            sampler=TripletSampler(
                split,
                config.batch_size,
                LOSSES[config.loss].negatives(config),
                config.batch_by,
            ),
            evaluator=Evaluator(split, config.select_on, config.topk),
        )

    def nodes(self, batch: Tensor) -> Tensor:
        """Return the rows of the joint table that a batch refers to, in its shape.

        Args:
            batch: Users in its first row and items below, int64, shape ``[2 + n, B]``.
        """
        nodes = batch + self.split.num_users
        nodes[0] = batch[0]
        return nodes

    def initialize(self) -> Tensor:
        """Draw θ₀, Xavier-uniform over the joint table (design, Section 3), on the CPU.

        Returns:
            Shape ``[num_users + num_items, dim]``, float.
        """
        weight = torch.empty(self.split.num_users + self.split.num_items, self.config.dim)
        source = seeding.generator(self.config.seed, "initialization")
        return torch.nn.init.xavier_uniform_(weight, generator=source)
