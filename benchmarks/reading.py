"""`python -m benchmarks.reading`: the peak memory of reading a folder of Parquet parts.

Parts are drawn, and each way of reading them has a process of its own. So has a training that is
prepared once they are read, whose peak comes after.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contender import Contender, serve
from benchmarks.measuring import Task

ROWS_A_PART = 5 * 10**6
KINDS = ("integer", "text")


@click.command()
@click.option("--interactions", default=10**8, help="Rows of all parts together.")
@click.option("--users", default=10**6, help="Users, drawn evenly.")
@click.option("--items", default=10**6, help="Items, drawn by a power law.")
@click.option("--ids", type=click.Choice(KINDS), multiple=True, default=KINDS, help="Of what type.")
@click.option(
    "--ways",
    type=click.Choice(["csr", "data set", "frame", "training"]),
    multiple=True,
    default=["csr"],
)
@click.option("--folder", help="Where the parts are to lie for the while.")
def main(
    interactions: int,
    users: int,
    items: int,
    ids: tuple[str, ...],
    ways: tuple[str, ...],
    folder: str | None,
) -> None:
    """Print a JSON line for each type of ids and way of reading."""
    for kind in ids:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            log = Path(place, "log")
            draw(log, interactions, users, items, kind == "text")
            size = sum(part.stat().st_size for part in log.iterdir())
            for way in ways:
                with Contender("benchmarks.reading", ["--serve", place]) as contender:
                    found = contender.measure(way=way)
                print(
                    json.dumps(
                        {
                            "ids": kind,
                            "way": way,
                            "rows": interactions,
                            "bytes_on_disk": size,
                            **found["figures"],
                            "seconds": found["seconds"],
                            "bytes_before": found["before"],
                            "bytes_at_peak": found["peak"],
                            "load": os.getloadavg()[0],
                        }
                    ),
                    flush=True,
                )


def draw(folder: Path, rows: int, users: int, items: int, as_text: bool) -> None:
    """Write the parts of a log; users and items come in no order, and some pairs come again.

    The popularity of an item is 1 / (rank + 10), as in :func:`benchmarks.growth.generate`.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    names = random.permutation(items)
    for part, begin in enumerate(range(0, rows, ROWS_A_PART)):
        number = min(ROWS_A_PART, rows - begin)
        rank = (10 * (items / 10 + 1) ** random.random(number) - 10).astype(np.int64)
        columns = {
            "user_id": pa.array(random.integers(users, size=number)),
            "item_id": pa.array(names[rank.clip(max=items - 1)]),
        }
        if as_text:
            columns = {name: ids.cast(pa.string()) for name, ids in columns.items()}
        # As Spark has them: several row groups of a million rows in each.
        pq.write_table(
            pa.table(columns), folder / f"part-{part:05}.snappy.parquet", row_group_size=10**6
        )


def reading(place: str, way: str) -> Task:
    """The task of one process."""
    log = Path(place, "log")
    if way == "training":
        return training(place, log)
    # What a way imports is not what it reads.
    if way == "csr":
        from pyg_lth.datasets import read_csr
    else:
        from pyg_lth.datasets import InteractionFile, InteractionTable

    def run(count: int) -> dict[str, Any]:
        if way == "csr":
            csr = read_csr(log)
            sizes = {"bytes_of_csr": csr.nbytes, "interactions": csr.indices.size}
            return {**sizes, "users": csr.user_ids.size, "items": csr.item_ids.size}
        if way == "data set":
            counts = InteractionFile(Path(place, "root"), log).counts
        else:
            counts = InteractionTable(pq.read_table(log)).counts
        interactions = counts.train + counts.valid + counts.test
        return {"interactions": interactions, "users": counts.users, "items": counts.items}

    return Task(run)


def training(place: str, log: Path) -> Task:
    """MF of eight columns, prepared on what is read already, and one step of it."""
    import torch

    from pyg_lth import Mask, TrainConfig
    from pyg_lth.datasets import InteractionFile
    from pyg_lth.interactions import InteractionSplit
    from pyg_lth.nn.backbones import TABLE
    from pyg_lth.training.problem import Problem
    from pyg_lth.training.trainer import Training

    data = InteractionFile(Path(place, "root"), log)[0]
    config = TrainConfig(model="mf", dim=8, device="cpu")

    def run(count: int) -> dict[str, Any]:
        split = InteractionSplit.from_data(data)
        if split.valid is None:
            split = split.hold_out_validation(config.seed)
        problem = Problem.prepare(split, config, torch.device("cpu"))
        initial = problem.initialize()
        begun = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
        batch = next(problem.sampler.epoch(torch.Generator().manual_seed(0)))
        loss = float(begun.quickest_step()(batch))
        return {"train": split.train.size(1), "entries": initial[TABLE].numel(), "loss": loss}

    return Task(run)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        folder = sys.argv[2]
        serve(lambda way: reading(folder, way), "pyg-lth", "pyarrow")
    else:
        main()
