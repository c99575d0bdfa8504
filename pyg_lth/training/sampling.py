"""Training batches (users, positive items, negative items), drawn on the device."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

from pyg_lth import kernels
from pyg_lth.config import BatchByName, NegativesByName
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit

# Numbers drawn in one go: large enough to make the draw cheap, small enough for 10^8 edges.
BLOCK = 3 << 20


class Parts(NamedTuple):
    """What belongs to the parts of a batch: the ids themselves, or rows looked up for them.

    Args:
        user: The users, shape ``[B, ...]``.
        positive: An item of each, shape ``[B, ...]``.
        negative: Negatives of each, shape ``[n, B, ...]``.
        shared: Negatives of all, shape ``[m, ...]``.
    """

    user: Tensor
    positive: Tensor
    negative: Tensor
    shared: Tensor


class Layout(NamedTuple):
    """How a batch lies in one vector: its parts one after the other, in the order of `Parts`.

    Args:
        positives: Positives of a batch, :math:`B`.
        negatives: Negatives of each positive, :math:`n`.
        shared: Negatives that all positives share, :math:`m`.

    Example:
        >>> import torch
        >>> from pyg_lth.training.sampling import Layout
        >>> layout = Layout(positives=2, negatives=1, shared=3)
        >>> layout.size
        9
        >>> layout.split(torch.arange(9)).shared
        tensor([6, 7, 8])
    """

    positives: int
    negatives: int = 1
    shared: int = 0

    @property
    def size(self) -> int:
        """Length of the vector."""
        return (2 + self.negatives) * self.positives + self.shared

    def split(self, rows: Tensor) -> Parts:
        """Split what has a row for each place of the vector, without copying.

        Args:
            rows: Shape ``[size, ...]``.
        """
        # In one go, so that backward puts the gradients of the parts side by side in one go too.
        size, own = self.positives, self.negatives * self.positives
        user, positive, negative, shared = torch.split(rows, [size, size, own, self.shared])
        negative = negative.view(self.negatives, size, *rows.shape[1:])
        return Parts(user, positive, negative, shared)


def steps_of_epoch(interactions: int, positives: int, parts: int) -> int:
    """Batches of so many positives that each of so many parts of the interactions makes, in all."""
    size, larger = divmod(interactions, parts)
    return larger * -(-(size + 1) // positives) + (parts - larger) * -(-size // positives)


class TripletSampler:
    r"""A user, a uniform positive, uniform negatives that the user has not interacted with.

    Users are drawn among those that have a train interaction and lack at least one item: uniformly,
    or as often as they have interactions, which draws the interactions uniformly. A negative is
    drawn by rank: with :math:`c_0 < c_1 < \ldots` the train items of a user, the number of items
    below :math:`c_j` that are *not* train items is :math:`c_j - j`, so the :math:`r`-th missing
    item is :math:`r` plus the count of :math:`j` with :math:`c_j - j \le r`. One binary search
    finds it. This is the distribution of rejection sampling, without rejecting. Several negatives
    of a positive are independent, so an item may come twice.

    Negatives that all positives of a batch share are uniform over all items, or over all train
    interactions, which draws an item as often as it is popular. Some of them may be positives of
    some users.

    In disjoint parts the positives of an epoch are not drawn: each train interaction comes once,
    those that fill up the last batch of its part twice.

    Args:
        split: The interactions; negatives are taken against ``split.train``.
        layout: What a batch holds, and how it lies in one int64 vector.
        by: What is drawn uniformly: a ``user`` or an ``edge``, which is a train interaction.
        negatives_by: What shared negatives are drawn uniformly from: each ``item``, or the item of
            each ``edge``.
        parts: How many disjoint parts an epoch has.

    Attributes:
        layout: The same.
        item_degree: Train interactions of each item, shape ``[num_items]``, int64.
        steps: Batches of an epoch.

    Raises:
        InputError: If every user has no item or all of them, or there are more parts than train
            interactions.
    """

    def __init__(
        self,
        split: InteractionSplit,
        layout: Layout,
        by: BatchByName = "user",
        negatives_by: NegativesByName = "item",
        parts: int = 1,
    ):
        user, self._item = split.train
        self.item_degree = split.item_degree()
        self._degree = torch.bincount(user, minlength=split.num_users)
        self._start = cumsum(self._degree)
        self._num_items = split.num_items
        self._negatives_by = negatives_by
        position = torch.arange(user.numel(), device=user.device) - self._start[user]
        self._missing_before = user * split.num_items + self._item - position
        eligible = (self._degree > 0) & (self._degree < split.num_items)
        self._edges = eligible[user].nonzero().view(-1) if by == "edge" else user[:0]
        self._users = eligible.nonzero().view(-1) if by == "user" else user[self._edges]
        if self._users.numel() == 0:
            raise InputError("no user has both an item to like and an item to be told apart from")
        if parts > 1 and parts > self._edges.numel():
            raise InputError(
                f"`disjoint_parts={parts}`: there are {self._edges.numel()} train interactions to "
                "learn from; take fewer parts"
            )
        self.layout = layout
        self._parts = parts
        learned = user if parts == 1 else self._edges
        self.steps = steps_of_epoch(learned.numel(), layout.positives, parts)

    def sample(self, size: int, generator: torch.Generator, edges: Tensor | None = None) -> Tensor:
        """Draw ``size`` positives with what belongs to them.

        Args:
            size: Number of positives.
            generator: Random generator on the device of the interactions.
            edges: Take these of the train interactions as positives instead, int64, shape
                ``[size]``.

        Returns:
            Users, positive items and rows of negative items, int64, shape ``[2 + n, size]``.
        """
        uniform = torch.rand(
            *(2 + self.layout.negatives, size),
            generator=generator,
            device=self._item.device,
            dtype=torch.float64,
        )
        if edges is not None:
            # The middle of what stands for each, which no rounding leaves.
            place = torch.searchsorted(self._edges, edges)
            user = self._users[place]
            uniform[0] = (place + 0.5) / self._users.numel()
            uniform[1] = (edges - self._start[user] + 0.5) / self._degree[user]
        return (self._native if kernels.usable(uniform.device) else self._plain)(uniform)

    def _plain(self, uniform: Tensor) -> Tensor:
        user = self._users[(uniform[0] * self._users.numel()).long()]
        degree, start = self._degree[user], self._start[user]
        positive = self._item[start + (uniform[1] * degree).long()]
        rank = (uniform[2:] * (self._num_items - degree)).long()
        below = torch.searchsorted(self._missing_before, user * self._num_items + rank, right=True)
        return torch.cat([torch.stack([user, positive]), rank + below - start])

    def _native(self, uniform: Tensor) -> Tensor:
        drawn = torch.empty_like(uniform, dtype=torch.long)
        kernels.call(
            "draw_batch",
            *(uniform, *uniform.shape, self._users, self._users.numel()),
            *(self._start, self._item, self._missing_before, self._num_items, drawn),
        )
        return drawn

    def parts(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Split the train interactions into disjoint parts at random.

        Args:
            generator: Random generator on the device of the interactions.

        Returns:
            The interactions of each part, by their places in ``split.train``.
        """
        order = torch.randperm(self._edges.numel(), generator=generator, device=generator.device)
        return self._edges[order].tensor_split(self._parts)

    def epoch(self, generator: torch.Generator, edges: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the batches of one epoch: as many positives as train edges, the last batch filled.

        Args:
            generator: Random generator on the device of the interactions.
            edges: Only those of this part, one of :meth:`parts`.

        Yields:
            Users, positive items and negative items as :attr:`layout` says, int64, shape
            ``[layout.size]``.
        """
        size, shared = self.layout.positives, self.layout.shared
        block_steps = max(1, BLOCK // self.layout.size)
        all_steps = self.steps
        if edges is not None:
            all_steps = -(-edges.numel() // size)
            edges = edges.repeat(-(-all_steps * size // edges.numel()))
        for first in range(0, all_steps, block_steps):
            steps = min(block_steps, all_steps - first)
            own = None if edges is None else edges[first * size : (first + steps) * size]
            drawn = torch.split(self.sample(steps * size, generator, own), size, dim=1)
            batches = torch.stack(drawn).flatten(1)
            if shared:
                batches = torch.cat([batches, self._draw_shared(steps, generator)], dim=1)
            yield from batches

    def _draw_shared(self, steps: int, generator: torch.Generator) -> Tensor:
        """Draw the negatives that some batches share, int64, shape ``[steps, shared]``."""
        by_edge = self._negatives_by == "edge"
        size = self._item.numel() if by_edge else self._num_items
        shape = steps, self.layout.shared
        drawn = torch.randint(size, shape, generator=generator, device=self._item.device)
        return self._item[drawn] if by_edge else drawn
