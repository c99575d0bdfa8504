"""Training triplets (user, positive item, negative item), drawn on the device."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

from pyg_lth import kernels
from pyg_lth.errors import InputError
from pyg_lth.splits import InteractionSplit

# Triplets drawn in one go: large enough to make the draw cheap, small enough for 10^8 edges.
BLOCK = 1 << 20


class TripletSampler:
    r"""Users uniform, a uniform positive, a uniform negative the user has not interacted with.

    Users are drawn among those that have a train interaction and lack at least one item. The
    negative is drawn by rank: with :math:`c_0 < c_1 < \dots` the train items of a user, the number
    of items below :math:`c_j` that are *not* train items is :math:`c_j - j`, so the :math:`r`-th
    missing item is :math:`r` plus the count of :math:`j` with :math:`c_j - j \le r`. One binary
    search finds it. This is the distribution of rejection sampling, without rejecting.

    Args:
        split: The interactions; negatives are taken against ``split.train``.
        batch_size: Triplets a batch, :math:`B`.

    Raises:
        InputError: If every user has no item or all of them.
    """

    def __init__(self, split: InteractionSplit, batch_size: int):
        user, self._item = split.train
        self._degree = torch.bincount(user, minlength=split.num_users)
        self._start = cumsum(self._degree)
        self._num_items = split.num_items
        position = torch.arange(user.numel(), device=user.device) - self._start[user]
        self._missing_before = user * split.num_items + self._item - position
        self._users = ((self._degree > 0) & (self._degree < split.num_items)).nonzero().view(-1)
        if self._users.numel() == 0:
            raise InputError("no user has both an item to like and an item to be told apart from")
        self.batch_size = batch_size
        self.steps = -(-user.numel() // batch_size)

    def sample(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw ``size`` triplets.

        Args:
            size: Number of triplets.
            generator: Random generator on the device of the interactions.

        Returns:
            Users, positive items and negative items, each int64 of shape ``[size]``.
        """
        uniform = torch.rand(
            3, size, generator=generator, device=self._item.device, dtype=torch.float64
        )
        return (self._native if kernels.usable(uniform.device) else self._plain)(uniform)

    def _plain(self, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        user = self._users[(uniform[0] * self._users.numel()).long()]
        degree, start = self._degree[user], self._start[user]
        positive = self._item[start + (uniform[1] * degree).long()]
        rank = (uniform[2] * (self._num_items - degree)).long()
        below = torch.searchsorted(self._missing_before, user * self._num_items + rank, right=True)
        return user, positive, rank + below - start

    def _native(self, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        triplets = self._item.new_empty(uniform.shape)
        kernels.call(
            "draw",
            *(uniform, uniform.size(1), self._users, self._users.numel()),
            *(self._start, self._item, self._missing_before, self._num_items),
            *triplets,
        )
        user, positive, negative = triplets
        return user, positive, negative

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the batches of one epoch: as many triplets as train edges, the last batch filled.

        Args:
            generator: Random generator on the device of the interactions.
        """
        block_steps = max(1, BLOCK // self.batch_size)
        for first in range(0, self.steps, block_steps):
            size = min(block_steps, self.steps - first) * self.batch_size
            triplets = self.sample(size, generator)
            yield from zip(*(torch.split(part, self.batch_size) for part in triplets), strict=True)
