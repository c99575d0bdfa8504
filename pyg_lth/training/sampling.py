"""Training batches (user, positive item, negative items), drawn on the device."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

from pyg_lth import kernels
from pyg_lth.config import BatchByName
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit

# Numbers drawn in one go: large enough to make the draw cheap, small enough for 10^8 edges.
BLOCK = 3 << 20


class TripletSampler:
    r"""A user, a uniform positive, uniform negatives that the user has not interacted with.

    Users are drawn among those that have a train interaction and lack at least one item: uniformly,
    or as often as they have interactions, which draws the interactions uniformly. A negative is
    drawn by rank: with :math:`c_0 < c_1 < \ldots` the train items of a user, the number of items
    below :math:`c_j` that are *not* train items is :math:`c_j - j`, so the :math:`r`-th missing
    item is :math:`r` plus the count of :math:`j` with :math:`c_j - j \le r`. One binary search
    finds it. This is the distribution of rejection sampling, without rejecting. Several negatives
    of a positive are independent, so an item may come twice.

    A batch is one int64 tensor of shape ``[2 + n, B]``: users, positive items, then a row for each
    of the :math:`n` negatives.

    Args:
        split: The interactions; negatives are taken against ``split.train``.
        batch_size: Positives a batch, :math:`B`.
        negatives: Negatives of each positive, :math:`n`, from 0.
        by: What is drawn uniformly: a ``user`` or an ``edge``, which is a train interaction.

    Raises:
        InputError: If every user has no item or all of them.
    """

    def __init__(
        self,
        split: InteractionSplit,
        batch_size: int,
        negatives: int = 1,
        by: BatchByName = "user",
    ):
        user, self._item = split.train
        self._degree = torch.bincount(user, minlength=split.num_users)
        self._start = cumsum(self._degree)
        self._num_items = split.num_items
        position = torch.arange(user.numel(), device=user.device) - self._start[user]
        self._missing_before = user * split.num_items + self._item - position
        eligible = (self._degree > 0) & (self._degree < split.num_items)
        self._users = eligible.nonzero().view(-1) if by == "user" else user[eligible[user]]
        if self._users.numel() == 0:
            raise InputError("no user has both an item to like and an item to be told apart from")
        self.batch_shape = (2 + negatives, batch_size)
        self.steps = -(-user.numel() // batch_size)

    def sample(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw ``size`` positives with what belongs to them.

        Args:
            size: Number of positives.
            generator: Random generator on the device of the interactions.

        Returns:
            Users, positive items and rows of negative items, int64, shape ``[2 + n, size]``.
        """
        uniform = torch.rand(
            *(self.batch_shape[0], size),
            generator=generator,
            device=self._item.device,
            dtype=torch.float64,
        )
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

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the batches of one epoch: as many positives as train edges, the last batch filled.

        Args:
            generator: Random generator on the device of the interactions.
        """
        num_rows, batch_size = self.batch_shape
        block_steps = max(1, BLOCK // (num_rows * batch_size))
        for first in range(0, self.steps, block_steps):
            size = min(block_steps, self.steps - first) * batch_size
            yield from torch.split(self.sample(size, generator), batch_size, dim=1)
