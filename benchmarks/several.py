"""Part 7: two models at once on two cores, for the seeds of a run and the cells of a sweep."""

import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from benchmarks.contender import Contender
from benchmarks.parts import Part, Setting

STEPS = 100


def measure_several(setting: Setting) -> Part:
    """Steps a second, those of all models added up.

    ``in turn`` is one process with two threads, ``side by side`` two processes with one thread
    each. ``stacked`` is one model of twice the dimension, counted as two: the most that stacking
    two models along the embedding dimension could give, since they would look up two batches.
    """
    rows: list[dict[str, Any]] = []
    for model in ("lightgcn", "mf"):
        case = {"task": "step", "model": model, "dim": 32, "batch_size": 2048}
        row: dict[str, Any] = {
            "case": {"model": model},
            "in turn": _steps_a_second(setting, case, threads=2),
            "side by side": _steps_a_second(setting, case, threads=1),
            "stacked": 2 * _steps_a_second(setting, {**case, "dim": 64}, threads=2),
        }
        for way in ("side by side", "stacked"):
            row[f"gain {way}"] = row[way] / row["in turn"]
        rows.append(row)
    return Part(rows)


def _steps_a_second(setting: Setting, case: dict[str, Any], threads: int) -> float:
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(
                Contender(
                    "benchmarks.ours", [setting.folder], variables={"OMP_NUM_THREADS": str(threads)}
                )
            )
            for _ in range(2 // threads)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(contenders)))

        def turn(count: int) -> float:
            answers = pool.map(lambda contender: contender.measure(count, **case), contenders)
            return sum(1 / answer["seconds"] for answer in answers)

        turn(1)
        return statistics.median(turn(STEPS) for _ in range(setting.repeats))
