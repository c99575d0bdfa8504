"""Part 5: how time and memory of a training step grow with the graph."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks import ours
from benchmarks.contender import Contender, serve
from benchmarks.measuring import Task, compare, interleave, measure
from benchmarks.parts import Part, Setting
from pyg_lth import runtime
from pyg_lth.interactions import InteractionSplit

EDGES = (10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7, 5 * 10**7)
EDGES_A_NODE = 30


def generate(edges: int) -> tuple[int, Tensor]:
    """Draw about so many distinct interactions of as many users as items.

    Users are drawn evenly, items by a power law: popularity is 1 / (rank + 10), as in
    :class:`pyg_lth.datasets.Synthetic`, which has tastes on top and is too slow at this size. Ids
    of items are shuffled, so that the popular ones do not lie side by side.

    Returns:
        The number of users, which is that of items, and the interactions, shape ``[2, E]``.
    """
    count = edges // EDGES_A_NODE
    random = torch.Generator().manual_seed(0)
    key = torch.randint(count, (edges,), generator=random) * count
    rank = 10 * (count / 10 + 1) ** torch.rand(edges, generator=random, dtype=torch.float64) - 10
    key += torch.randperm(count, generator=random)[rank.long().clamp_(max=count - 1)]
    del rank
    key = key.sort().values
    key = torch.cat([key[:1], key[1:][key.diff() > 0]])
    return count, torch.stack([key // count, key % count])


def training_step(edges: int) -> Task:
    """A step of LightGCN at dimension 32 and batch 2048; every hundredth interaction is for test.

    Its figures tell what the preparation took: checking and sorting the interactions, building the
    adjacency, the sampler and the model.
    """
    count, pairs = generate(edges)
    is_test = torch.arange(pairs.size(1)) % 100 == 99
    data = HeteroData()
    data["user"].num_nodes = data["item"].num_nodes = count
    data["user", "rates", "item"].edge_index = pairs[:, ~is_test]
    data["user", "rates", "item"].edge_label_index = pairs[:, is_test]
    del pairs, is_test
    step = Task(lambda count: None)

    def prepare(count: int) -> None:
        nonlocal step
        step = ours.training_step(ours.prepare(InteractionSplit.from_data(data)))

    prepared = measure(Task(prepare), 1)
    figures = {
        "edges": data["user", "rates", "item"].edge_index.size(1),
        "prepare": prepared["seconds"],
        "peak": prepared["peak"],
    }

    def run(count: int) -> dict[str, Any]:
        step.run(count)
        return figures

    return Task(run, step.share)


def slope(edges: Sequence[int], seconds: Sequence[float]) -> float:
    """The exponent of time against edges: the slope of the line fitted to the logarithms."""
    return float(np.polyfit(np.log(edges), np.log(seconds), 1)[0])


def measure_size(edges: int, repeats: int) -> dict[str, Any]:
    """One size, in a fresh process."""
    answers = []
    with Contender("benchmarks.growth") as contender:

        def run(count: int) -> float:
            answers.append(contender.measure(count, edges=edges))
            return float(answers[-1]["seconds"])

        times = interleave({"seconds": run}, repeats)
    figures = answers[0]["figures"]
    return {
        "case": {"edges": figures["edges"]},
        **compare(times),
        "prepare": figures["prepare"],
        "peak": max(figures["peak"], *(answer["peak"] for answer in answers)),
    }


def measure_growth(setting: Setting) -> Part:
    """One size after the other; the exponent over all sizes, and from 10^6 edges on.

    At small sizes the part of a step that does not depend on the graph flattens the curve; then it
    steepens as the tables outgrow the caches. The column `exponent` is the slope from one size to
    the next.
    """
    rows = [measure_size(edges, setting.repeats) for edges in EDGES]
    for pair in pairwise(rows):
        pair[1]["exponent"] = slope(*_columns(pair))
    large = [row for edges, row in zip(EDGES, rows, strict=True) if edges >= 10**6]
    summary = {
        "exponent": slope(*_columns(rows)),
        "exponent_from_10^6": slope(*_columns(large)),
        "peak": max(row["peak"] for row in rows),
    }
    return Part(rows, summary)


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[list[int], list[float]]:
    return [row["case"]["edges"] for row in rows], [row["seconds"] for row in rows]


if __name__ == "__main__":
    runtime.tune()
    serve(training_step, "pyg-lth", "torch")
