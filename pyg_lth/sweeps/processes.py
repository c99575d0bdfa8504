"""A pool of local processes: command lines side by side, each with one thread."""

import abc
import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

import psutil

# Asks the kernel (PR_SET_PDEATHSIG, 1 in prctl.h) to end this process when its parent ends, then
# becomes the command. A parent that had ended before is told by its number. As a program of its
# own it may run whatever threads the parent has, which a function between fork and exec may not.
LAUNCHER = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
# What a shell starts in the background ignores Ctrl-C, Ray blocks it: what they start would too.
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tied_to_this_process(arguments: Sequence[str]) -> list[str]:
    """The command line under which a command ends with this process, however that ends."""
    return [sys.executable, "-IS", "-c", LAUNCHER, str(os.getpid()), *arguments]


class Command(NamedTuple):
    """A command line.

    Args:
        name: What it is called in the outcomes; no other command has it.
        arguments: The program and its arguments.
        again: Gives those that go on with it, should the machine that runs it be lost; raises
            InputError where nothing can.
    """

    name: str
    arguments: Sequence[str]
    again: Callable[[], Sequence[str]] | None = None


class Outcome(NamedTuple):
    """How a command ended.

    Args:
        code: Its exit code, negative for the signal that ended it.
        seconds: How long it ran.
        last_line: The last line that it wrote to stderr.
    """

    code: int
    seconds: float
    last_line: str

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        if self.code < 0:
            ended = f"ended by {signal.Signals(-self.code).name}"
            return f"{ended} after: {self.last_line}" if self.last_line else ended
        return self.last_line or f"ended with exit code {self.code}"


class Watcher:
    """What a caller may want to hear of a pool; every method does nothing unless overridden."""

    def on_start(self, name: str) -> None:
        """A command was started."""

    def on_line(self, name: str, line: str) -> bool | None:
        """A command wrote a line to stderr; true ends it."""
        return None

    def on_loss(self, name: str) -> None:
        """The machine that ran a command was lost, and the command is to go on elsewhere."""

    def on_end(self, name: str, outcome: Outcome) -> None:
        """A command ended."""

    def on_interrupt(self) -> None:
        """There was a Ctrl-C, and the commands are asked to stop."""


def run_all(
    commands: Iterable[Command], jobs: int, watcher: Watcher | None = None
) -> dict[str, Outcome]:
    """Run commands side by side; when one fails, the rest go on.

    Each runs with one thread unless the environment sets ``OMP_NUM_THREADS``: two searches with a
    thread each are done sooner than one after the other with two threads (LightGCN 1.26 times,
    MF 1.58 times), and what they compute does not depend on ``jobs``. Their stdout is discarded.

    Each is a session of its own, so that Ctrl-C in a terminal reaches this process alone. The first
    one is passed on to every running command, once; a second one ends them. On Linux they also end,
    by SIGTERM, with this process, however that ends.

    Args:
        commands: Taken one by one, each when there is room for it.
        jobs: The number of commands that run at a time.
        watcher: Hears of the progress.

    Returns:
        The outcome of each command by its name.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when the running commands have ended.
        ValueError: Outside the main thread, where signals do not arrive.
    """
    return run_pool(_Processes(commands, watcher or Watcher()), jobs)


def default_jobs(devices: Iterable[str]) -> int:
    """As many jobs as there are physical cores; one where the runs share a GPU.

    Args:
        devices: What the runs have as ``device``: ``auto``, ``cpu`` or ``cuda``.
    """
    devices = set(devices)
    if "auto" in devices and "cuda" not in devices:
        import torch

        if torch.cuda.is_available():
            devices.add("cuda")
    if "cuda" in devices:
        return 1
    return min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))


class Pool(abc.ABC):
    """Commands side by side, in one thread: an event loop waits for all of them.

    Args:
        commands: Taken one by one, each when there is room for it.
        watcher: Hears of the progress.
    """

    def __init__(self, commands: Iterable[Command], watcher: Watcher):
        self.outcomes: dict[str, Outcome] = {}
        self.interrupts = 0
        self.watcher = watcher
        self._commands = iter(commands)

    async def run(self, jobs: int) -> None:
        """Run all commands, ``jobs`` at a time."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
        await asyncio.gather(*(self._work() for _ in range(jobs)))

    async def _work(self) -> None:
        while not self.interrupts and (command := next(self._commands, None)):
            outcome = self.outcomes[command.name] = await self.run_one(command)
            self.watcher.on_end(command.name, outcome)

    def _interrupt(self) -> None:
        self.interrupts += 1
        self.stop()
        self.watcher.on_interrupt()

    @abc.abstractmethod
    async def run_one(self, command: Command) -> Outcome:
        """Run a command to its end, and tell the watcher of all but that."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Ask all that run to save and stop, or, after the first time, just to stop."""


def run_pool(pool: Pool, jobs: int) -> dict[str, Outcome]:
    """Run the commands of a pool, ``jobs`` at a time; Ctrl-C is for them.

    Returns:
        The outcome of each command by its name.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when the running commands have ended.
        ValueError: Outside the main thread, where signals do not arrive.
    """
    previous = signal.getsignal(signal.SIGINT)
    try:
        asyncio.run(pool.run(jobs))
    finally:
        signal.signal(signal.SIGINT, previous)
    if pool.interrupts:
        raise KeyboardInterrupt
    return pool.outcomes


class _Processes(Pool):
    """Commands in processes of this machine."""

    def __init__(self, commands: Iterable[Command], watcher: Watcher):
        super().__init__(commands, watcher)
        self._running: set[Process] = set()

    async def run_one(self, command: Command) -> Outcome:
        start = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *tied_to_this_process(command.arguments),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env={"OMP_NUM_THREADS": "1", **os.environ},
            start_new_session=True,
        )
        self._running.add(process)
        if self.interrupts:  # While it was being started.
            self._stop(process)
        line = ""
        try:
            self.watcher.on_start(command.name)
            async for line in _lines(process):
                if self.watcher.on_line(command.name, line):
                    process.terminate()
            code = await process.wait()
        finally:
            self._running.remove(process)
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Outcome(code, time.monotonic() - start, line)

    def stop(self) -> None:
        for process in self._running:
            self._stop(process)

    def _stop(self, process: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT if self.interrupts == 1 else signal.SIGTERM)


class Lines:
    """The lines of a stream that are not blank, however long; a carriage return ends one too."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, chunk: bytes) -> list[str]:
        """Take the next bytes, none at the end, and return the lines that end in them."""
        *lines, self._rest = re.split(rb"[\r\n]+", self._rest + chunk + b"\n" * (not chunk))
        return [line.decode(errors="replace").rstrip() for line in lines if line.strip()]


async def _lines(process: Process) -> AsyncIterator[str]:
    """The lines that a process writes to stderr."""
    assert process.stderr is not None
    lines, chunk = Lines(), b"more"
    while chunk:
        chunk = await process.stderr.read(1 << 16)
        for line in lines.add(chunk):
            yield line
