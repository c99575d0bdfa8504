"""Command lines on the nodes of a Ray cluster, and the pool that waits for them."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess  # nosec B404
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from pyg_lth.errors import IN_USE, InputError
from pyg_lth.sweeps.processes import (
    Command,
    Lines,
    Outcome,
    Pool,
    Watcher,
    tied_to_this_process,
)

# How often a command may lose its node: one that brings down its nodes is not to go on for ever.
MOST_LOSSES = 5

# How long a lost node's run may still hold its folder, and how often to look, in seconds. Shared
# storage waits for a silent machine for a minute or two before it lets go of what that had locked.
LOCKED, PAUSE = 180.0, 3.0

# Of a command whose worker was ended with it.
_STOPPED = Outcome(-signal.SIGINT, 0.0, "stopped")


@contextlib.contextmanager
def connected(address: str | None, cpus: int, gpus: float) -> Iterator[None]:
    """Be part of a cluster.

    Args:
        address: The cluster; by default what ``RAY_ADDRESS`` says, else the one that this machine
            is a node of, else one of this machine alone.
        cpus: Cores that a node must have.
        gpus: GPUs that the same node must have, in parts too.

    Raises:
        InputError: If it cannot be reached, or no node of it has as much.
    """
    joins = not ray.is_initialized()
    # What Ray has to say of a lost node would stand amid the results.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        if joins:
            _join(address)
        try:
            if not any(_has(node, cpus, gpus) for node in ray.nodes()):
                raise InputError(
                    f"no node of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs: ask for less "
                    "by `cpus_per_run` and `gpus_per_run`, or start a node that does"
                )
            yield
        finally:
            if joins:
                ray.shutdown()


def _join(address: str | None) -> None:
    # Who sweeps has not asked to report it to Ray's makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except Exception as error:  # Those of Ray have no base in common.
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        reason = " ".join(str(error).split())
        raise InputError(f"no Ray cluster is to be had at {where}: {reason}") from error


def _has(node: dict[str, Any], cpus: int, gpus: float) -> bool:
    there = node["Resources"]
    return bool(node["Alive"] and there.get("CPU", 0) >= cpus and there.get("GPU", 0) >= gpus)


class Run:
    """A command on the node that this is placed on.

    To cancel a task, Ray raises an exception in it, whatever it is doing, be it to send on a line,
    and hears no more of it. This is an actor instead, which is told to stop while it runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(
        self, arguments: Sequence[str], folder: str, threads: int
    ) -> Generator[str | tuple[int, float], None, None]:
        """Run a command.

        Args:
            arguments: The program and its arguments.
            folder: Where to run it.
            threads: How many threads it is to compute with.

        Yields:
            An empty line when it has begun, each line that it writes to stderr, and at the end its
            exit code and the seconds that it ran.
        """
        start = time.monotonic()
        for needed in (folder, arguments[0]):
            if not Path(needed).exists():
                missing = f"node {os.uname().nodename} has no {needed}"
                yield f"{missing}: its folders and installation must be those here"
                yield 2, 0.0
                return
        # The arguments of the one who asks, as a list: no shell reads them.
        process = subprocess.Popen(  # nosec B603
            tied_to_this_process(arguments),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
        with self._lock:
            self._process = process
            if self._stopped:
                process.send_signal(signal.SIGINT)
        yield ""
        assert process.stderr is not None
        lines = Lines()
        while chunk := os.read(process.stderr.fileno(), 1 << 16):
            # One by one, since Ray sends to the generator, which a list is not.
            for line in lines.add(chunk):  # noqa: UP028
                yield line
        yield process.wait(), time.monotonic() - start

    def stop(self) -> None:
        """Ask it to save and stop, or not to begin."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.send_signal(signal.SIGINT)


class RayPool(Pool):
    """Commands on the cluster that this process is connected to.

    Args:
        commands: As in :class:`~pyg_lth.sweeps.processes.Pool`.
        watcher: As there.
        folder: Where they run, on shared storage.
        cpus: Cores of each.
        gpus: GPUs of each, in parts too.
    """

    def __init__(
        self, commands: Iterable[Command], watcher: Watcher, folder: str, cpus: int, gpus: float
    ):
        super().__init__(commands, watcher)
        self._folder, self._cpus = folder, cpus
        # One that runs and one that stops it.
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_concurrency=2)(Run)
        self._running: dict[str, Any] = {}
        self._ended: set[str] = set()

    async def run_one(self, command: Command) -> Outcome:
        """Run a command, on another node when one is lost."""
        arguments, losses, lost_at = command.arguments, 0, 0.0
        while True:
            try:
                outcome = await self._attempt(command.name, arguments, begun=losses > 0)
            except ray.exceptions.RayTaskError as error:
                return Outcome(1, 0.0, " ".join(str(error.cause).split()))
            except ray.exceptions.RayError as error:
                if self.interrupts or command.name in self._ended:
                    return _STOPPED
                losses, lost_at = losses + 1, time.monotonic()
                if command.again is None or losses > MOST_LOSSES:
                    reason = str(error).strip().splitlines()
                    return Outcome(1, 0.0, reason[0] if reason else type(error).__name__)
                self.watcher.on_loss(command.name)
            else:
                held = time.monotonic() - lost_at < LOCKED
                if self.interrupts or not (losses and held and outcome.code == IN_USE):
                    return outcome
                await asyncio.sleep(PAUSE)
            assert command.again is not None
            try:
                arguments = command.again()
            except InputError as error:
                return Outcome(2, 0.0, str(error))

    async def _attempt(self, name: str, arguments: Sequence[str], begun: bool) -> Outcome:
        run = self._running[name] = self._actor.remote()
        line = ""
        try:
            if self.interrupts:  # While it was being begun.
                run.stop.remote()
            said = run.run.options(num_returns="streaming")
            async for reference in said.remote(list(arguments), self._folder, self._cpus):
                what = await reference
                if isinstance(what, tuple):
                    code, seconds = what
                    return Outcome(code, seconds, line)
                if what:
                    line = what
                    if self.watcher.on_line(name, line):
                        self._ended.add(name)
                        run.stop.remote()
                elif not begun:
                    self.watcher.on_start(name)
        finally:
            del self._running[name]
            ray.kill(run)
        raise ray.exceptions.WorkerCrashedError

    def stop(self) -> None:
        """Ask all that run to save and stop; the second time their workers are ended."""
        for run in self._running.values():
            if self.interrupts > 1:
                ray.kill(run)
            else:
                run.stop.remote()
