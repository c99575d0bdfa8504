"""What all trainings of a search share: the graph prepared for training and ranking."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from pyg_lth import seeding
from pyg_lth.config import TrainConfig
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE, Weights
from pyg_lth.registry import BACKBONES, LOSSES
from pyg_lth.training.sampling import TripletSampler


@dataclasses.dataclass(frozen=True)
class Problem:
    """What all trainings of a search share: the graph prepared for training and ranking.

    Args:
        config: The settings.
        split: The interactions, on ``device``.
        device: Where to compute.
        propagation: What the backbone propagates through, most often a
            :class:`~pyg_lth.nn.propagation.Propagation`; :obj:`None` without layers.
        sampler: Draws the batches.
        evaluator: Ranks on the part that chooses epochs.
    """

    config: TrainConfig
    split: InteractionSplit
    device: torch.device
    propagation: Any
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
            propagation=BACKBONES[config.model].propagation(
                split.joint_edge_index(), num_nodes, config
            )
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

    def initialize(self) -> Weights:
        """Draw θ₀ on the CPU: Xavier-uniform over the joint table (design, Section 3).

        Returns:
            The table, shape ``[num_users + num_items, dim]``, float, and what other parameters the
            backbone has, as it draws them itself.
        """
        weight = torch.empty(self.split.num_users + self.split.num_items, self.config.dim)
        source = seeding.generator(self.config.seed, "initialization")
        torch.nn.init.xavier_uniform_(weight, generator=source)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(source.get_state())
            model = BACKBONES[self.config.model].build(weight.size(0), self.config)
        drawn = {name: value.detach() for name, value in model.named_parameters()}
        return {**drawn, TABLE: weight}
