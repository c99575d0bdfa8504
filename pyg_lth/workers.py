"""The workers that share one table by its columns: who has which, and what they add up.

Each has its columns of every row, and the whole graph. Since every column propagates alone, scores
are all that training has to add up: see ``docs/distributed.md``.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyg_lth.errors import InputError, WorkerLost

Result = TypeVar("Result")

# How often workers ask each other whether to save or stop, in seconds.
SECONDS_BETWEEN_QUESTIONS = 0.5

# How long a worker waits for the others, who may rank a large graph or write to a slow disk.
PATIENCE = datetime.timedelta(hours=2)

# Where workers that have arrived are counted.
JOINED = "pyg_lth/joined"


class Workers:
    """A worker on its own, which has the whole table and tells nobody anything.

    Args:
        rank: Number of this worker, from 0.
        size: Number of workers.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank = rank
        self.size = size

    @property
    def is_first(self) -> bool:
        """Whether this is the worker that writes, and that speaks for all."""
        return self.rank == 0

    @property
    def here(self) -> int:
        """How many workers are on this machine: all, unless the launcher says otherwise."""
        return min(self.size, int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def share(self, count: int, rank: int | None = None) -> slice:
        """Which of ``count`` columns or rows a worker has; one after the other, near equally many.

        Args:
            count: How many there are.
            rank: The worker, this one unless given.
        """
        rank = self.rank if rank is None else rank
        return slice(rank * count // self.size, (rank + 1) * count // self.size)

    def total(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Sum what each worker computed of its columns; a gradient goes back to its part as it is.

        That is right as long as all workers compute the same from the sums.

        Args:
            *parts: Float tensors, of the same shapes everywhere; one exchange takes them all.
        """
        return parts

    def sum(self, own: Tensor) -> Tensor:
        """Sum a contiguous tensor over the workers in place; return it."""
        return own

    def cat(self, own: Tensor) -> Tensor:
        """Put together, along the last dimension, what each worker has a part of."""
        return own

    def rows(self, table: Tensor, own: Sequence[Tensor], common: slice) -> tuple[Tensor, Tensor]:
        """Turn a table that is split by columns into whole rows.

        Args:
            table: The columns of this worker, shape ``[num_nodes, width]``.
            own: For each worker the rows that it alone wants, int64.
            common: The rows that all want.

        Returns:
            The rows ``own[rank]`` and the common ones, all columns of them.
        """
        return table[own[0]], table[common]

    def by_first(self, action: Callable[[], Result]) -> Result | None:
        """Let the first worker act while the others wait; they get :obj:`None`."""
        return action()

    def first_first(self, action: Callable[[], Result]) -> Result:
        """Let all workers act, the others when the first has."""
        return action()

    def most(self, wanted: int) -> int:
        """The most that any worker wants; asked after every step, answered about twice a second.

        Args:
            wanted: What this worker wants, 0 for nothing.
        """
        return wanted

    def texts(self, own: str) -> list[str]:
        """A text of each worker, in their order."""
        return [own]


ALONE = Workers()


class Group(Workers):
    """One of several workers, connected by :mod:`torch.distributed`.

    Args:
        rank: Number of this worker.
        size: Number of workers.
    """

    def __init__(self, rank: int, size: int):
        super().__init__(rank, size)
        self._leading = False
        self._steps, self._next, self._asked = 0, 1, time.monotonic()

    def total(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """As in :class:`Workers`."""
        summed: tuple[Tensor, ...] = _Total.apply(self, *parts)  # type: ignore[no-untyped-call]
        return summed

    def sum(self, own: Tensor) -> Tensor:
        """As in :class:`Workers`."""
        self._exchange("all_reduce", own)
        return own

    def cat(self, own: Tensor) -> Tensor:
        """As in :class:`Workers`."""
        sizes = self._sizes(own.size(-1))
        first = sum(sizes[: self.rank])
        # A sum of one value and zeros is that value.
        whole = own.new_zeros(*own.shape[:-1], sum(sizes))
        whole[..., first : first + own.size(-1)] = own
        return self.sum(whole)

    def _sizes(self, own: int) -> list[int]:
        """What each worker calls its own."""
        sizes = torch.zeros(self.size, dtype=torch.long)
        sizes[self.rank] = own
        listed: list[int] = self.sum(sizes).tolist()
        return listed

    @torch.no_grad()
    def rows(self, table: Tensor, own: Sequence[Tensor], common: slice) -> tuple[Tensor, Tensor]:
        """As in :class:`Workers`."""
        shared = table[common]
        widths = self._sizes(table.size(1))
        counts = [rows.numel() + shared.size(0) for rows in own]
        sent = table.new_empty(sum(counts), table.size(1))
        for piece, rows in zip(torch.split(sent, counts), own, strict=True):
            torch.index_select(table, 0, rows, out=piece[: rows.numel()])
            piece[rows.numel() :] = shared
        received = table.new_empty(counts[self.rank] * sum(widths))
        expected = [counts[self.rank] * width for width in widths]
        sizes = [count * table.size(1) for count in counts]
        self._exchange("all_to_all_single", received, sent.view(-1), expected, sizes)
        parts = [
            part.view(counts[self.rank], width)
            for part, width in zip(torch.split(received, expected), widths, strict=True)
        ]
        whole = torch.cat(parts, dim=1)
        mine, of_all = torch.split(whole, [own[self.rank].numel(), shared.size(0)])
        return mine, of_all

    def by_first(self, action: Callable[[], Result]) -> Result | None:
        """As in :class:`Workers`."""
        if self._leading:
            return action()
        # Nobody may still be reading what is about to change, nor read on before it has.
        self._exchange("barrier")
        result = None
        if self.is_first:
            self._leading = True
            try:
                result = action()
            finally:
                self._leading = False
        self._exchange("barrier")
        return result

    def first_first(self, action: Callable[[], Result]) -> Result:
        """As in :class:`Workers`."""
        if not self.is_first:
            self._exchange("barrier")
        result = action()
        if self.is_first:
            self._exchange("barrier")
        return result

    def most(self, wanted: int) -> int:
        """As in :class:`Workers`."""
        from torch import distributed

        self._steps += 1
        if self._steps < self._next:
            return 0
        seconds = time.monotonic() - self._asked
        found = torch.tensor([wanted, seconds], dtype=torch.float64)
        self._exchange("all_reduce", found, distributed.ReduceOp.MAX)
        most, seconds = found.tolist()
        paced = int(self._steps * SECONDS_BETWEEN_QUESTIONS / max(seconds, 1e-9))
        self._next = min(max(1, paced), 2 * self._steps)
        self._steps, self._asked = 0, time.monotonic()
        return int(most)

    def texts(self, own: str) -> list[str]:
        """As in :class:`Workers`."""
        content = torch.tensor(list(own.encode()), dtype=torch.uint8)
        sizes = self._sizes(content.numel())
        return [bytes(part.tolist()).decode() for part in torch.split(self.cat(content), sizes)]

    def _exchange(self, name: str, *arguments: Any) -> None:
        """Call a function of torch.distributed.

        Raises:
            WorkerLost: If another worker has ended.
        """
        from torch import distributed

        try:
            getattr(distributed, name)(*arguments)
        except RuntimeError as error:
            raise WorkerLost(
                f"worker {self.rank} of {self.size} lost the connection to the others, so it stops"
            ) from error


class _Total(torch.autograd.Function):
    """A sum over workers, each of which sees to its own part of the gradient."""

    @staticmethod
    def forward(ctx: Any, group: Group, *parts: Tensor) -> tuple[Tensor, ...]:
        flat = group.sum(torch.cat([part.reshape(-1) for part in parts]))
        pieces = torch.split(flat, [part.numel() for part in parts])
        return tuple(piece.view_as(part) for piece, part in zip(pieces, parts, strict=True))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *grad_outputs)


def started() -> int:
    """How many workers a launcher such as torchrun has started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextlib.contextmanager
def joined(ready: Callable[[Any], None] = lambda store: None) -> Iterator[Workers]:
    """Join the workers that a launcher such as torchrun has started, as its variables say.

    These are ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``, and on machines of
    several GPUs ``LOCAL_RANK``. The connection is gloo's between CPUs and NCCL's between GPUs.

    Args:
        ready: Called with the store in which the workers meet, before they are waited for.

    Raises:
        InputError: If they don't find each other.
    """
    if started() == 1:
        yield ALONE
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        store.add(JOINED, 1)
        ready(store)
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the workers do not find each other: {reason}") from error
    try:
        yield Group(rank, size)
    finally:
        distributed.destroy_process_group()
