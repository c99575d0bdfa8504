"""`python -m benchmarks.gpu`: what `python -m benchmarks` measures, on the GPU.

Everything runs in this process, one thing after the other; it is meant to take less than eight
minutes on an H100. The peer is stock PyG on the same GPU; RecBole and implicit are met on the CPU.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from benchmarks import growth, ours, pruning
from benchmarks.__main__ import show
from benchmarks.data import Interactions
from benchmarks.measuring import Task, compare, interleave, measure
from benchmarks.parts import BATCH_SIZES, DIMS, Part
from benchmarks.peers import pyg
from benchmarks.results import Results, device_name
from pyg_lth import runtime
from pyg_lth.config import PruneConfig
from pyg_lth.datasets import DatasetOptions, load_dataset
from pyg_lth.interactions import InteractionSplit
from pyg_lth.search import find_tickets
from pyg_lth.training.problem import Problem

DEVICE = "cuda"
GROWTH_EDGES = (10**6, 10**7, 5 * 10**7)
EPOCHS: tuple[dict[str, Any], ...] = (
    {"model": "lightgcn", "dim": 32, "batch_size": 2048},
    {"model": "lightgcn", "dim": 32, "batch_size": 2048, "propagation": "triton-bfloat16"},
    {"model": "lightgcn", "dim": 64, "batch_size": 2048},
    {"model": "mf", "dim": 32, "batch_size": 2048},
)


def race(
    case: dict[str, Any], tasks: dict[str, Callable[[], Task]], repeats: int
) -> dict[str, Any]:
    """Let tasks take so many turns, and say whether the first is a graph and what memory it took.

    `memory` is the peak on top of what was held before it was built: a graph takes its memory when
    it is recorded, and none in any run.
    """
    built = {name: _build(build) for name, build in tasks.items()}

    def run(name: str, count: int) -> float:
        return float(measure(built[name][0], count, DEVICE)["seconds"])

    times = interleave({name: partial(run, name) for name in built}, repeats)
    first, memory = next(iter(built.values()))
    graph = {} if first.graph is None else {"graph": "used" if first.graph else "not used"}
    return {"case": case, **compare(times), "memory": memory, **graph}


def _build(build: Callable[[], Task]) -> tuple[Task, int]:
    """Build a task and do it once; return it, and what memory that took at most."""
    built: list[Task] = []

    def first(count: int) -> None:
        built.append(build())
        built[0].run(count)

    answer = measure(Task(first), 1, DEVICE)
    return built[0], answer["peak"] - answer["before"]


def measure_steps(split: InteractionSplit, repeats: int) -> Part:
    rows = []
    for model, dim, batch_size in product(("lightgcn", "mf"), DIMS, BATCH_SIZES):
        case = {"model": model, "dim": dim, "batch_size": batch_size}
        problem = ours.prepare(split, DEVICE, **case)
        tasks = {"pyg_lth": partial(ours.training_step, problem)}
        if model == "lightgcn":
            tasks["pyg"] = partial(pyg.training_step, problem, "edge_index")
            tasks["pyg_csr"] = partial(pyg.training_step, problem, "csr")
        rows.append(race(case, tasks, repeats))
    return Part(rows)


def generate(edges: int) -> tuple[dict[str, Any], Problem]:
    """A graph of about so many interactions, ready for LightGCN at dimension 32 and batch 2048."""
    count, pairs = growth.generate(edges)
    # Nothing is ranked, so that any pair will do for the test.
    split = InteractionSplit(count, count, pairs, None, pairs[:, :1])
    return {"edges": pairs.size(1)}, ours.prepare(split, DEVICE, dim=32)


def measure_epochs(split: InteractionSplit, repeats: int) -> Part:
    rows = []
    for settings in EPOCHS:
        problem = ours.prepare(split, DEVICE, **settings)
        case = {**settings, "steps": problem.sampler.steps}
        rows.append(race(case, {"pyg_lth": partial(ours.training_epoch, problem)}, repeats))
    return Part(rows)


def measure_evaluation(interactions: Interactions, repeats: int) -> Part:
    split = ours.to_split(interactions).to(torch.device(DEVICE))
    rows = []
    for dim in DIMS:
        embedding = torch.from_numpy(interactions.random_embedding(dim)).to(DEVICE)
        tasks = {
            "pyg_lth": partial(ours.evaluation, split, embedding),
            "pyg": partial(pyg.evaluation, split.num_users, split.train, split.test, embedding),
        }
        rows.append(race({"dim": dim}, tasks, repeats))
    return Part(rows)


def measure_pruning(repeats: int) -> Part:
    case = {"entries": pruning.ENTRIES, "round": 1}
    task = partial(pruning.pruning, pruning.ENTRIES, 1, DEVICE)
    return Part([race(case, {"pyg_lth": task}, repeats)])


def measure_growth(repeats: int) -> Part:
    rows = []
    for edges in GROWTH_EDGES:
        case, problem = generate(edges)
        rows.append(race(case, {"pyg_lth": partial(ours.training_step, problem)}, repeats))
    counts, seconds = zip(*((row["case"]["edges"], row["pyg_lth"]) for row in rows), strict=True)
    return Part(rows, {"exponent": growth.slope(counts, seconds)})


def measure_search(root: str) -> Part:
    """TikTok-MMSSL, 20 rounds of LightGCN with the default settings."""
    data = load_dataset(DatasetOptions(dataset="tiktok-mmssl", root=root))[0]
    start = time.perf_counter()
    report = find_tickets(data, PruneConfig(rounds=20, device=DEVICE))
    case = {"rounds": 20, "epochs": sum(result.epochs for result in report.rounds)}
    return Part([{"case": case, "seconds": time.perf_counter() - start}])


# What each measures, given the folder of the data sets and the turns of each contender.
PARTS: dict[str, Callable[[str, int], Part]] = {
    "step": lambda root, repeats: measure_steps(ours.to_split(ours.load("gowalla", root)), repeats),
    "epoch": lambda root, repeats: measure_epochs(
        ours.to_split(ours.load("yelp2018", root)), repeats
    ),
    "evaluate": lambda root, repeats: measure_evaluation(ours.load("gowalla", root), repeats),
    "prune": lambda root, repeats: measure_pruning(repeats),
    "growth": lambda root, repeats: measure_growth(repeats),
    "search": lambda root, repeats: measure_search(root),
}


@click.command()
@click.option("--root", default="data", show_default=True, help="Folder of the data sets.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Only these parts.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each contender.")
def main(root: str, only: tuple[str, ...], repeats: int) -> None:
    """Measure pyg-lth on the GPU; write benchmarks/results/DEVICE.json."""
    if not torch.cuda.is_available():
        raise click.UsageError("not measured: torch sees no CUDA device here")
    runtime.tune()
    results = Results(Path(__file__).parent / "results" / f"{device_name('cuda')}.json")
    console = Console()
    console.print(torch.cuda.get_device_name())
    for name in only or PARTS:
        start = time.perf_counter()
        results.add(name, PARTS[name](root, repeats), time.perf_counter() - start)
        show(console, name, results.parts[name])
    console.print(f"written: {results.path}", soft_wrap=True)


if __name__ == "__main__":
    main()
