"""Seconds and peak memory of a task, repeats that take turns, medians and ratios.

Runs under every contender's interpreter, so it imports the standard library only (and torch, where
a task runs on a GPU).
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class NotMeasured(Exception):
    """A contender cannot be measured here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Something to measure.

    Args:
        run: Does it so many times, and may return figures to keep beside the time.
        share: Seconds to add to each time, for what is done in bulk outside of ``run``.
        graph: Whether a CUDA graph does it; :obj:`None` where there can be none.
    """

    run: Callable[[int], dict[str, Any] | None]
    share: float = 0.0
    graph: bool | None = None


def measure(task: Task, count: int, device: str = "cpu") -> dict[str, Any]:
    """Do a task ``count`` times.

    Returns:
        ``seconds`` for one time; ``before`` and ``peak``, the bytes held before and at most, by the
        process or on the GPU; and the ``figures`` that the task returned.
    """
    meter = _CudaMemory() if device == "cuda" else _ProcessMemory()
    before = meter.restart()
    start = time.perf_counter()
    figures = task.run(count)
    meter.synchronize()
    seconds = (time.perf_counter() - start) / count + task.share
    return {"seconds": seconds, "before": before, "peak": meter.peak(), "figures": figures}


class _ProcessMemory:
    """Resident memory of this process, as Linux counts it."""

    def restart(self) -> int:
        Path("/proc/self/clear_refs").write_text("5")  # The peak is now what is held now.
        return self._read("VmRSS:")

    def synchronize(self) -> None:
        pass

    def peak(self) -> int:
        return self._read("VmHWM:")

    def _read(self, field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class _CudaMemory:
    """Memory that torch holds on the GPU."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda

    def restart(self) -> int:
        self.synchronize()
        self._cuda.reset_peak_memory_stats()
        return self._cuda.memory_allocated()

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def peak(self) -> int:
        return self._cuda.max_memory_allocated()


def interleave(
    runs: Mapping[str, Callable[[int], float]], repeats: int, at_least: float = 0.2
) -> dict[str, list[float]]:
    """Let several contenders take turns.

    Args:
        runs: For each contender what does so many runs and returns the seconds of one. It leaves
            the race when it raises :class:`NotMeasured`, but without the first there is none.
        repeats: Turns of each contender.
        at_least: Seconds of a turn: quick tasks are done several times in it, so that caches
            which the others emptied do not decide.

    Returns:
        The seconds of one run, for each turn of each contender that stayed.
    """
    runs, counts = dict(runs), {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, repeats):
        for name, run in list(runs.items()):
            try:
                if turn < 0:
                    seconds = run(
                        1
                    )  # Prepares and warms up; a quick task tells more the next time.
                    counts[name] = math.ceil(at_least / run(1)) if seconds < at_least else 1
                else:
                    times[name].append(run(counts[name]))
            except NotMeasured:
                if name == next(iter(runs)):
                    raise
                del runs[name], times[name]
    return times


def compare(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians of all contenders, and how many times slower the others are than the first.

    A ratio is the median of the turns' own ratios, so that what slows the machine down for a while
    slows both sides of it.
    """
    ours, *peers = times
    row: dict[str, Any] = {name: statistics.median(taken) for name, taken in times.items()}
    for name in peers:
        turns = zip(times[name], times[ours], strict=True)
        row[f"vs_{name}"] = statistics.median(theirs / own for theirs, own in turns)
    return {**row, "repeats": dict(times)}
