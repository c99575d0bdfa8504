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
from pyg_lth import runtime
from pyg_lth.config import TrainConfig
from pyg_lth.datasets import DatasetError, DatasetOptions, load_dataset
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning.masks import Mask
from pyg_lth.training.cuda_graphs import Step, is_recorded
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training

DRAWN = 512


def load(name: str, root: str) -> Interactions:
    """A data set's interactions; where they cannot be had, one line says so."""
    try:
        data = load_dataset(DatasetOptions(dataset=name, root=root))[0]
    except DatasetError as error:
        raise click.UsageError(str(error)) from error
    return Interactions.from_graph(data)


def to_split(interactions: Interactions) -> InteractionSplit:
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = interactions.num_users, interactions.num_items
    data["user", "rates", "item"].edge_index = torch.from_numpy(interactions.train)
    data["user", "rates", "item"].edge_label_index = torch.from_numpy(interactions.test)
    return InteractionSplit.from_data(data)


def prepare(split: InteractionSplit, device: str = "cpu", **settings: Any) -> Problem:
    config = TrainConfig(select_on="test", reg=1e-4, lr=1e-3, **settings)
    return Problem.prepare(split, config, torch.device(device))


def draw(problem: Problem) -> tuple[list[Tensor], float]:
    """Draw batches, and say how many seconds each of them took.

    The sampler draws many batches in one go, so the time of a step that draws its own batch would
    be too short mostly and much too long now and then.
    """
    source = torch.Generator(problem.device).manual_seed(0)
    for _ in range(2):  # The first time warms up.
        start = time.perf_counter()
        batches = list(itertools.islice(problem.sampler.epoch(source), DRAWN))
        if problem.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return batches, seconds / len(batches)


def training_step(problem: Problem) -> Task:
    """Sampling, propagation, loss, backward and Adam on one batch."""
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    step = training.quickest_step()
    batches, share = draw(problem)
    source = itertools.cycle(batches)

    def run(count: int) -> None:
        for batch in itertools.islice(source, count):
            step(batch)

    return Task(run, share, _graph(problem, step))


def training_epoch(problem: Problem) -> Task:
    """As many triplets as there are train interactions."""
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    step = training.quickest_step()
    source = torch.Generator(problem.device).manual_seed(0)

    def run(count: int) -> None:
        for _ in range(count):
            for batch in problem.sampler.epoch(source):
                step(batch)

    return Task(run, graph=_graph(problem, step))


def _graph(problem: Problem, step: Step) -> bool | None:
    return is_recorded(step) if problem.device.type == "cuda" else None


def trained_embedding(problem: Problem, epochs: int) -> Tensor:
    """What an evaluation ranks by after some epochs, shape ``[num_nodes, dim]``."""
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    source = torch.Generator(problem.device).manual_seed(0)
    for _ in range(epochs):
        for batch in problem.sampler.epoch(source):
            training.step(batch)
    return problem.embed(training.model)


def evaluation(split: InteractionSplit, embedding: Tensor) -> Task:
    """Rank all items for all users with test items: precision, recall and NDCG at 20."""
    evaluator = Evaluator(split, "test", 20)

    def run(count: int) -> dict[str, float]:
        for _ in range(count):
            metrics = evaluator(embedding)
        return {name.split("@")[0]: value for name, value in metrics.items()}

    return Task(run)


def main() -> None:
    runtime.tune()
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
