"""What runs command lines: this machine, or a cluster."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from pyg_lth.errors import InputError
from pyg_lth.sweeps.processes import Command, Outcome, Watcher, run_all, run_pool


class Engine(Protocol):
    """Runs commands side by side; when one fails, the rest go on."""

    def run(self, commands: Iterable[Command], watcher: Watcher) -> dict[str, Outcome]:
        """Run commands to their ends.

        Args:
            commands: Taken one by one, each when there is room for it.
            watcher: Hears of the progress.

        Returns:
            The outcome of each command by its name.

        Raises:
            InputError: If they cannot be run as asked.
            KeyboardInterrupt: After Ctrl-C, when the running commands have ended.
        """


class Room(NamedTuple):
    """What the commands may have.

    Args:
        jobs: How many run at a time.
        cpus: Cores of each, :obj:`None` where that is not said.
        gpus: Its share of a GPU, or how many, likewise.
        address: The cluster, :obj:`None` for what the environment says.
    """

    jobs: int
    cpus: int | None = None
    gpus: float | None = None
    address: str | None = None


@dataclasses.dataclass(frozen=True)
class Local:
    """Processes of this machine, each with a thread.

    Args:
        room: How many; those on a GPU share it.

    Raises:
        InputError: If the room is a cluster's.
    """

    room: Room

    def __post_init__(self) -> None:
        if self.room != Room(self.room.jobs):
            raise InputError(
                "`cpus_per_run`, `gpus_per_run` and `ray_address` go with `engine=ray`; on this "
                "machine `jobs` says how many run at a time, on one GPU too"
            )

    def run(self, commands: Iterable[Command], watcher: Watcher) -> dict[str, Outcome]:
        """As :meth:`Engine.run`."""
        return run_all(commands, self.room.jobs, watcher)


@dataclasses.dataclass(frozen=True)
class Ray:
    """Tasks of a Ray cluster whose nodes share this one's folders and installation.

    Args:
        room: How many at most, and what each gets: a core unless it says so, and no GPU.

    Raises:
        InputError: If Ray is missing, or a run is to have some GPUs and a part of one.
    """

    room: Room

    def __post_init__(self) -> None:
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise InputError('`engine=ray` needs Ray: pip install "pyg-lth[ray]"') from error
        gpus = self.room.gpus or 0.0
        if gpus > 1 and gpus != int(gpus):
            raise InputError(
                f"`gpus_per_run={gpus:g}`: take a share of one GPU, as 0.25, or whole ones"
            )

    def run(self, commands: Iterable[Command], watcher: Watcher) -> dict[str, Outcome]:
        """As :meth:`Engine.run`; a command whose node is lost goes on on another."""
        from pyg_lth.sweeps.ray_pool import RayPool, connected

        share = (self.room.cpus or 1, self.room.gpus or 0.0)
        with connected(self.room.address, *share):
            return run_pool(RayPool(commands, watcher, str(Path.cwd()), *share), self.room.jobs)


ENGINES: Mapping[str, Callable[[Room], Engine]] = {"local": Local, "ray": Ray}
