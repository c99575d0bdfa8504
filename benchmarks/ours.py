"""pyg-lth as a contender, in a process set up as its command line does it."""

import itertools
import sys
import time
from typing import Any

import click
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks.contender import serve
from benchmarks.data import Interactions, load_embedding
from benchmarks.measuring import Task
from pyg_lth import process
from pyg_lth.config import TrainConfig
from pyg_lth.datasets import DatasetError, DatasetOptions, load_dataset
from pyg_lth.evaluation import Evaluator
from pyg_lth.masks import Mask
from pyg_lth.splits import InteractionSplit
from pyg_lth.training import Training, Workbench

DRAWN = 512


def load_gowalla(root: str) -> Interactions:
    """Gowalla's interactions; where they cannot be had, one line says so."""
    try:
        data = load_dataset(DatasetOptions(dataset="gowalla", root=root))[0]
    except DatasetError as error:
        raise click.UsageError(str(error)) from error
    return Interactions.from_graph(data)


def to_split(interactions: Interactions) -> InteractionSplit:
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = interactions.num_users, interactions.num_items
    data["user", "rates", "item"].edge_index = torch.from_numpy(interactions.train)
    data["user", "rates", "item"].edge_label_index = torch.from_numpy(interactions.test)
    return InteractionSplit.from_data(data)


def prepare(split: InteractionSplit, device: str = "cpu", **settings: Any) -> Workbench:
    config = TrainConfig(select_on="test", reg=1e-4, lr=1e-3, **settings)
    return Workbench.prepare(split, config, torch.device(device))


def draw(bench: Workbench) -> tuple[list[Tensor], float]:
    """Draw batches, and say how many seconds each of them took.

    The sampler draws many batches in one go, so the time of a step that draws its own batch would
    be too short mostly and much too long now and then.
    """
    source = torch.Generator(bench.device).manual_seed(0)
    for _ in range(2):  # The first time warms up.
        start = time.perf_counter()
        batches = list(itertools.islice(bench.sampler.epoch(source), DRAWN))
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return batches, seconds / len(batches)


def training_step(bench: Workbench) -> Task:
    """Sampling, propagation, loss, backward and Adam on one batch."""
    initial = bench.initialize()
    training = Training(bench, initial, Mask.ones(*initial.shape), round=0)
    step = training.quickest_step()
    batches, share = draw(bench)
    source = itertools.cycle(batches)

    def run(count: int) -> None:
        for batch in itertools.islice(source, count):
            step(batch)

    return Task(run, share)


def training_epoch(bench: Workbench) -> Task:
    """As many triplets as there are train interactions."""
    initial = bench.initialize()
    training = Training(bench, initial, Mask.ones(*initial.shape), round=0)
    step = training.quickest_step()
    source = torch.Generator(bench.device).manual_seed(0)

    def run(count: int) -> None:
        for _ in range(count):
            for batch in bench.sampler.epoch(source):
                step(batch)

    return Task(run)


def trained_embedding(bench: Workbench, epochs: int) -> Tensor:
    """What an evaluation ranks by after some epochs, shape ``[num_nodes, dim]``."""
    initial = bench.initialize()
    training = Training(bench, initial, Mask.ones(*initial.shape), round=0)
    source = torch.Generator(bench.device).manual_seed(0)
    for _ in range(epochs):
        for batch in bench.sampler.epoch(source):
            training.step(batch)
    with torch.no_grad():
        return training.model.get_embedding(bench.propagation)


def evaluation(split: InteractionSplit, embedding: Tensor) -> Task:
    """Rank all items for all users with test items: precision, recall and NDCG at 20."""
    evaluator = Evaluator(split, "test", 20)

    def run(count: int) -> dict[str, float]:
        for _ in range(count):
            metrics = evaluator(embedding)
        return {name.split("@")[0]: value for name, value in metrics.items()}

    return Task(run)


def main() -> None:
    process.tune()
    interactions = Interactions.load(sys.argv[1])
    split = to_split(interactions)

    def build(task: str, **case: Any) -> Task:
        if task == "evaluate":
            embedding = load_embedding(sys.argv[1], case["embedding"])
            return evaluation(split, torch.from_numpy(embedding))
        return {"step": training_step, "epoch": training_epoch}[task](prepare(split, **case))

    serve(build, "pyg-lth", "torch")


if __name__ == "__main__":
    main()
