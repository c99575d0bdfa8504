"""Plain torch: a table, softmax over shared negatives by autograd, torch's Adam on all rows."""

import itertools
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import ours
from benchmarks.contender import serve
from benchmarks.data import Interactions
from benchmarks.measuring import Task
from pyg_lth.training.problem import Problem


def training_step(problem: Problem) -> Task:
    """Lookups, loss, backward and Adam on one batch of MF, drawn at the price that pyg-lth pays."""
    config, num_users = problem.config, problem.split.num_users
    table = torch.nn.Embedding.from_pretrained(problem.initialize()["embedding.weight"], False)
    optimizer = torch.optim.Adam(table.parameters(), lr=config.lr, fused=True)
    batches, share = ours.draw(problem)
    source = itertools.cycle(batches)

    def loss(batch: Tensor) -> Tensor:
        parts = problem.sampler.layout.split(batch)
        user, positive, shared = (
            F.normalize(table(nodes), dim=1)
            for nodes in (parts.user, parts.positive + num_users, parts.shared + num_users)
        )
        right = (user * positive).sum(1, keepdim=True)
        logits = torch.cat([right, user @ shared.t()], dim=1) / config.temperature
        return (logits.logsumexp(1) - logits[:, 0]).mean()

    def run(count: int) -> None:
        for batch in itertools.islice(source, count):
            optimizer.zero_grad()
            torch.autograd.backward(loss(batch))
            optimizer.step()

    return Task(run, share)


def main() -> None:
    split = ours.to_split(Interactions.load(sys.argv[1]))

    def build(task: str, **case: Any) -> Task:
        assert task == "step"
        return training_step(ours.prepare(split, **case))

    serve(build, "torch")


if __name__ == "__main__":
    main()
