"""`python -m benchmarks.columns`: one worker with two threads beside two with one thread each.

The three processes stay, and take turns on the same cores, pair by pair.
"""

import contextlib
import functools
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import psutil
import torch

from benchmarks.contender import Contender, serve
from benchmarks.data import Interactions
from benchmarks.measuring import Task
from benchmarks.ours import draw, load, to_split
from pyg_lth import runtime
from pyg_lth.config import TrainConfig
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning.masks import Mask
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training
from pyg_lth.workers import joined


@click.command()
@click.option("--root", default="data", help="Folder that holds gowalla/raw.")
@click.option("--pairs", default=7, help="Turns of each side.")
@click.option("--steps", default=10, help="Steps of a turn.")
def main(root: str, pairs: int, steps: int) -> None:
    """Print a JSON line for each case."""
    with tempfile.TemporaryDirectory() as folder:
        load("gowalla", root).save(Path(folder))
        for model, loss, dim in itertools.product(
            ("lightgcn", "mf"), ("bpr", "sampled-softmax"), (64, 128)
        ):
            case = {"model": model, "loss": loss, "dim": dim}
            print(json.dumps({**case, **compare(folder, case, pairs, steps)}), flush=True)


def compare(folder: str, case: dict[str, Any], pairs: int, steps: int) -> dict[str, Any]:
    """Let one worker and two take turns, in processes that did nothing before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with contextlib.ExitStack() as running:

        def start(**variables: str) -> Contender:
            contender = Contender("benchmarks.columns", ["--serve", folder], variables=variables)
            return running.enter_context(contender)

        alone = start(OMP_NUM_THREADS="2")
        two = [start(OMP_NUM_THREADS="1", RANK=str(rank), **place) for rank in range(2)]
        pool = running.enter_context(ThreadPoolExecutor(2))
        turns = []
        for turn in range(-1, pairs):  # The first warms up.
            one = alone.measure(steps, **case)
            both = list(pool.map(lambda worker: worker.measure(steps, **case), two))
            turns += [(one, both)] if turn >= 0 else []
        seconds = [(one["seconds"], max(w["seconds"] for w in both)) for one, both in turns]
        return {
            "steps_per_second_one": 1 / statistics.median(one for one, _ in seconds),
            "steps_per_second_two": 1 / statistics.median(both for _, both in seconds),
            "times_as_fast": sorted(one / both for one, both in seconds),
            "cpu_seconds_a_step_one": statistics.median(
                one["figures"]["cpu"] / steps for one, _ in turns
            ),
            "cpu_seconds_a_step_two": statistics.median(
                sum(worker["figures"]["cpu"] for worker in both) / steps for _, both in turns
            ),
            "bytes_one": max(one["peak"] for one, _ in turns),
            "bytes_each_of_two": max(worker["peak"] for _, both in turns for worker in both),
            "load": os.getloadavg()[0],
            "others_running": _others(),
        }


def _others() -> int:
    """How many processes beside these want a core now."""
    own = {child.pid for child in psutil.Process().children(recursive=True)} | {os.getpid()}
    return sum(
        process.info["status"] == psutil.STATUS_RUNNING and process.pid not in own
        for process in psutil.process_iter(["status"])
    )


def answer(folder: str) -> None:
    """Be one of the processes."""
    split = to_split(Interactions.load(folder))
    with contextlib.ExitStack() as running:
        # Only when asked: the first worker is started, and speaks, before the second is.
        join = functools.cache(lambda: running.enter_context(joined()))

        def build(model: str, loss: str, dim: int) -> Task:
            config = TrainConfig(model=model, loss=loss, dim=dim, select_on="test", device="cpu")
            problem = Problem.prepare(split, config, torch.device("cpu"), join())
            initial = problem.initialize()
            training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
            step = training.quickest_step()
            batches, share = draw(problem)
            source = itertools.cycle(batches)

            def run(count: int) -> dict[str, float]:
                start = time.process_time()
                for batch in itertools.islice(source, count):
                    step(batch)
                return {"cpu": time.process_time() - start}

            return Task(run, share)

        serve(build, "pyg-lth")


if __name__ == "__main__":
    runtime.tune()
    if sys.argv[1:2] == ["--serve"]:
        answer(sys.argv[2])
    else:
        main()
