"""Part 6: a whole search, as `pyg-lth prune` runs it."""

import sys
from typing import Any

from benchmarks.contender import Contender, serve
from benchmarks.measuring import Task
from benchmarks.parts import Part, Setting
from pyg_lth import runtime
from pyg_lth.config import PruneConfig
from pyg_lth.datasets import DatasetOptions, load_dataset
from pyg_lth.search import find_tickets

ROUNDS = 20


def search(dataset: str, rounds: int) -> Task:
    """LightGCN with the default settings, the run folder kept as long as it runs."""
    data = load_dataset(DatasetOptions(dataset=dataset, root=sys.argv[1]))[0]

    def run(count: int) -> dict[str, Any]:
        for _ in range(count):
            report = find_tickets(data, PruneConfig(rounds=rounds, device="cpu"))
        results = [report.dense, *report.rounds]
        return {
            "epochs": sum(result.epochs for result in results),
            "training": sum(result.seconds for result in results),
        }

    return Task(run)


def measure_search(setting: Setting) -> Part:
    """TikTok-MMSSL, 20 rounds, once."""
    with Contender("benchmarks.search", [setting.root]) as contender:
        answer = contender.measure(dataset="tiktok-mmssl", rounds=ROUNDS)
    case = {"rounds": ROUNDS, "epochs": answer["figures"]["epochs"]}
    return Part(
        [
            {
                "case": case,
                "seconds": answer["seconds"],
                "training": answer["figures"]["training"],
                "peak": answer["peak"],
            }
        ]
    )


if __name__ == "__main__":
    runtime.tune()
    serve(search, "pyg-lth", "torch")
