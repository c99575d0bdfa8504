"""Part 3: the pruning of a table of 10^8 entries, criterion and all."""

from statistics import median

import torch

from benchmarks.contender import Contender, serve
from benchmarks.measuring import Task
from benchmarks.parts import Part, Setting
from pyg_lth.pruning import criteria, selection
from pyg_lth.pruning.masks import Mask, budgets

ENTRIES, DIM = 10**8, 32


def pruning(entries: int, round: int, device: str = "cpu") -> Task:
    """Score a table by magnitude and drop a tenth of what lives in it before ``round``."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(entries // DIM, DIM).normal_(generator=generator).to(device)
    num_users = weight.size(0) // 2

    def keep(rounds: int) -> list:
        return budgets("joint", num_users, weight.shape, 0.1, rounds)

    mask = Mask(Mask.ones(*weight.shape).table.to(device))
    if round > 1:
        mask = selection.prune(
            criteria.magnitude(weight, generator, torch.zeros_like), mask, keep(round - 1)
        )
        weight *= mask.table

    def run(count: int) -> None:
        for _ in range(count):
            selection.prune(
                criteria.magnitude(weight, generator, torch.zeros_like), mask, keep(round)
            )

    return Task(run)


def measure_pruning(setting: Setting) -> Part:
    """The first round, from a dense table, and the second, each in a fresh process.

    The table of float32 weights and the mask stand ready; scores, threshold and the new mask are
    on top. The summary is the worse of the two rounds. The process is not set up as the command
    line does it: one that keeps its memory would not show what it needs.
    """
    rows = []
    for round in (1, 2):
        with Contender("benchmarks.pruning") as contender:
            turns = [
                contender.measure(entries=ENTRIES, round=round) for _ in range(setting.repeats)
            ]
        seconds = [turn["seconds"] for turn in turns]
        memory = turns[0]["peak"] - turns[0]["before"]
        rows.append(
            {
                "case": {"entries": ENTRIES, "round": round},
                "seconds": median(seconds),
                "memory": memory,
                "memory_ratio": memory / (4 * ENTRIES),
                "repeats": {"seconds": seconds},
            }
        )
    summary = {name: max(row[name] for row in rows) for name in ("seconds", "memory_ratio")}
    return Part(rows, summary)


if __name__ == "__main__":
    serve(pruning, "pyg-lth", "torch")
