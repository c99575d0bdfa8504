"""What all trainings of a search share: the graph prepared for training and ranking."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyg_lth import seeding
from pyg_lth.config import TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import (
    BACKBONES,
    TABLE,
    LightGCN,
    TableModel,
    Weights,
    build_backbone,
)
from pyg_lth.training.losses import LOSSES, unit_rows
from pyg_lth.training.sampling import TripletSampler
from pyg_lth.workers import ALONE, Workers

# Entries of θ₀ drawn in one go, so that no worker needs the whole table.
ENTRIES_AT_ONCE = 1 << 22


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
        workers: Who has which columns of the table.
        teacher: Propagated embeddings to learn from beside the interactions, shape ``[num_nodes,
            dim]``, on ``device``; see :func:`~pyg_lth.training.losses.distilled`.
    """

    config: TrainConfig
    split: InteractionSplit
    device: torch.device
    propagation: Any
    sampler: TripletSampler
    evaluator: Evaluator
    workers: Workers = ALONE
    teacher: Tensor | None = None

    @classmethod
    def prepare(
        cls,
        split: InteractionSplit,
        config: TrainConfig,
        device: torch.device,
        workers: Workers = ALONE,
    ) -> "Problem":
        """Prepare a split for training on ``device``."""
        split = split.to(device)
        return cls(
            config,
            split,
            device,
            propagation=_propagation(split, config),
            sampler=TripletSampler(
                split,
                LOSSES[config.loss].layout(config),
                config.batch_by,
                config.negatives_by,
                config.disjoint_parts,
            ),
            evaluator=Evaluator(split, config.select_on, config.topk, workers),
            workers=workers,
        )

    def with_validation(self) -> "Problem":
        """Prepare the same with validation given back to train; what is left to rank on is test.

        It has no teacher.
        """
        config = self.config.model_copy(update={"select_on": "test"})
        return Problem.prepare(self.split.with_validation(), config, self.device, self.workers)

    def taught_by(self, weights: Weights, config: TrainConfig | None = None) -> "Problem":
        """Return the same with a trained model as the teacher.

        Args:
            weights: Its parameters.
            config: Its settings, where they are others.
        """
        propagation = self.propagation if config is None else _propagation(self.split, config)
        model = build_backbone(config or self.config, weights, self.device)
        with torch.no_grad():
            return dataclasses.replace(self, teacher=model.get_embedding(propagation))

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Any, Tensor]]:
        """Yield the batches of one epoch, each with what it propagates through.

        That is the whole of train, or what is left of it without the part that the batch is from:
        an embedding that has gone along an interaction says that there is one, and what is learned
        from that is of no use where none is known. PyG's ``RandomLinkSplit`` splits train likewise,
        once, by its ``disjoint_train_ratio``.

        Args:
            generator: Random generator on :attr:`device`.
        """
        if self.config.disjoint_parts == 1:
            for batch in self.sampler.epoch(generator):
                yield self.propagation, batch
            return
        edge_index = self.split.joint_edge_index()
        for edges in self.sampler.parts(generator):
            left = torch.ones_like(self.split.train[0], dtype=torch.bool)
            left[edges] = False
            propagation = BACKBONES[self.config.model].propagation(
                edge_index[:, left.repeat(2)], self.shape[0], self.config
            )
            for batch in self.sampler.epoch(generator, edges):
                yield propagation, batch

    def nodes(self, batch: Tensor) -> Tensor:
        """Return the rows of the joint table that a batch refers to, in its shape.

        Args:
            batch: Users and items as ``sampler.layout`` says, int64.
        """
        nodes = batch + self.split.num_users
        users = slice(self.sampler.layout.positives)
        nodes[users] = batch[users]
        return nodes

    def loss(self, out: Tensor, batch: Tensor) -> Tensor:
        """Return the loss of a batch, without the L2 term.

        Args:
            out: Propagated embeddings of the batch, shape ``[layout.size, dim]``.
            batch: As in :meth:`nodes`.
        """
        layout, config = self.sampler.layout, self.config
        more: dict[str, Any] = {}
        if self.workers.size > 1:
            more["total"] = self.workers.total
        if self.teacher is not None:
            more["taught"] = layout.split(self.teacher[self.nodes(batch)])
            more["share"] = config.distill
        return LOSSES[config.loss].of_batch(
            layout.split(out), layout.split(batch), config, self.sampler.item_degree, **more
        )

    def embed(self, model: LightGCN | TableModel) -> Tensor:
        """Return the embeddings that rank by inner product as ``score`` says, for all nodes.

        Returns:
            Propagated embeddings, of length one where cosines rank, shape ``[num_nodes, dim]``; of
            several workers each has its columns. Where popularity ranks too, a last column holds
            1 for users and :func:`item_bias` for items.
        """
        with torch.no_grad():
            embedding = model.get_embedding(self.propagation)
            if self.config.score != "dot":
                embedding = self._of_length_one(embedding)
            bias = item_bias(self.split, self.config)
            if bias is None or self.workers.rank < self.workers.size - 1:
                return embedding
            column = torch.cat([bias.new_ones(self.split.num_users), bias])
            return torch.cat([embedding, column.unsqueeze(1)], dim=1)

    def as_scored(self, table: Tensor) -> Tensor:
        """Return a table with rows of length one where only their directions count.

        That is where cosines rank and the table is not propagated. What is read from entries must
        not depend on lengths that the model does not see.

        Args:
            table: Shape ``[num_nodes, dim]``; of several workers each gives its columns.
        """
        config = self.config
        blind = (
            config.score == "cosine" and not config.layers and BACKBONES[config.model].by_columns
        )
        return self._of_length_one(table) if blind else table

    def as_weighed(self, table: Tensor) -> Tensor:
        r"""Return a table in which magnitudes say what entries count for.

        That is the table, unless only directions count, see :meth:`as_scored`. Then the rows of
        length one are multiplied with the root of an item's train interactions: leaving out an
        entry :math:`w` costs some :math:`h w^2 / 2`, as in `"Optimal Brain Damage"
        <https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html>`_,
        and the loss is as curved, :math:`h`, as it is often about the item. Metrics
        take users alike, so each is given the mean over them.

        Args:
            table: Shape ``[num_nodes, dim]``; of several workers each gives its columns.
        """
        scored = self.as_scored(table)
        if scored is table:
            return table
        users, of_item = self.split.num_users, self.sampler.item_degree.float()
        of_user = of_item.new_full((users,), self.split.train.size(1) / users)
        often = torch.cat([of_user, of_item]).sqrt()
        return scored * often.to(table.device).unsqueeze(1)

    def _of_length_one(self, embedding: Tensor) -> Tensor:
        if self.workers.size == 1:
            return unit_rows(embedding)
        length = torch.linalg.vector_norm(embedding, dim=1, keepdim=True, dtype=torch.float64)
        length = self.workers.sum(length.square_()).sqrt_().to(embedding.dtype)
        return embedding / length.where(length > 0, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the joint table, ``[num_users + num_items, dim]``, whoever has it."""
        return self.split.num_users + self.split.num_items, self.config.dim

    def initialize(self) -> Weights:
        """Draw θ₀ on the CPU: Xavier-uniform over the joint table (design, Section 3).

        Returns:
            The table, shape ``[num_users + num_items, dim]``, float, and what other parameters the
            backbone has, as it draws them itself. Of several workers each has its columns of the
            same table.
        """
        num_nodes, dim = self.shape
        own = self.workers.share(dim)
        weight = torch.empty(num_nodes, own.stop - own.start)
        source = seeding.generator(self.config.seed, "initialization")
        # Row by row, as torch fills a table whole.
        bound = math.sqrt(3.0) * math.sqrt(2.0 / (num_nodes + dim))
        for rows in torch.split(weight, max(1, ENTRIES_AT_ONCE // dim)):
            whole = torch.empty(rows.size(0), dim).uniform_(-bound, bound, generator=source)
            rows.copy_(whole[:, own])
        if self.workers.size > 1:
            return {TABLE: weight}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(source.get_state())
            model = BACKBONES[self.config.model].build(weight.size(0), self.config)
        drawn = {name: value.detach() for name, value in model.named_parameters()}
        return {**drawn, TABLE: weight}


def _propagation(split: InteractionSplit, config: TrainConfig) -> Any:
    """What a backbone propagates through; :obj:`None` without layers."""
    if not config.layers:
        return None
    num_nodes = split.num_users + split.num_items
    return BACKBONES[config.model].propagation(split.joint_edge_index(), num_nodes, config)


def item_bias(split: InteractionSplit, config: TrainConfig) -> Tensor | None:
    r"""What is added to the cosines of each item for its popularity, :math:`w τ \ln d_i`.

    With negatives that are drawn as often as they have interactions, a softmax brings
    :math:`\cos(u, i) / τ` to :math:`\ln p(i | u) - \ln p(i)` up to a constant, so a weight of 1
    ranks by :math:`p(i | u)`. That is the logit adjustment of `"Long-tail learning via logit
    adjustment" <https://arxiv.org/abs/2007.07314>`_ turned round. Of uniform negatives cosines
    themselves come to :math:`\ln p(i | u)`, as far as their range and the training go.

    Args:
        split: The interactions, whose train part gives the degrees :math:`d_i`.
        config: The settings, :math:`w` and :math:`τ` among them.

    Returns:
        Shape ``[num_items]``, float; that of an item without interactions is as if it had one.
        :obj:`None` where the weight is 0.
    """
    if config.popularity == 0:
        return None
    degree = split.item_degree().clamp_(min=1)
    return (config.popularity * config.temperature * degree.double().log()).float()


def choose_device(config: TrainConfig) -> torch.device:
    """Return the device that the settings name.

    Raises:
        InputError: If that is a CUDA device and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("`device=cuda`: torch sees no CUDA device here; take auto or cpu")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)
