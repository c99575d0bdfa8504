"""RecBole: its LightGCN and its BPR, trained by its own trainer from its own data loader.

What is timed is RecBole's `Trainer._train_epoch` on so many batches of its training loader: slicing
the shuffled interactions, drawing a negative for each, zero_grad, calculate_loss (for LightGCN with
the propagation), backward, Adam's step, and the trainer's own check of the loss. Reading, splitting
and building the adjacency are not timed. Nothing is patched: the versions of recbole.txt work
together.
"""

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer

from benchmarks.contender import serve
from benchmarks.data import Interactions
from benchmarks.measuring import Task

NAMES = {"lightgcn": "LightGCN", "mf": "BPR"}
DATASET = "interactions"


def write_atomic_files(interactions: Interactions, folder: Path) -> None:
    """Write the interactions as RecBole reads them."""
    (folder / DATASET).mkdir(exist_ok=True)
    for part in ("train", "test"):
        np.savetxt(
            folder / DATASET / f"{DATASET}.{part}.inter",
            getattr(interactions, part).T,
            fmt="%d",
            delimiter="\t",
            header="user_id:token\titem_id:token",
            comments="",
        )


def training(folder: Path, model: str, dim: int, batch_size: int) -> tuple[Any, Any]:
    """RecBole's trainer and its training loader."""
    config = Config(
        model=NAMES[model],
        dataset=DATASET,
        config_dict={
            "data_path": str(folder),
            "benchmark_filename": ["train", "test", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "embedding_size": dim,
            "n_layers": 3,
            "reg_weight": 1e-4,
            "learning_rate": 1e-3,
            "train_batch_size": batch_size,
            "use_gpu": False,
            "checkpoint_dir": str(folder / "saved"),
        },
    )
    loader, _, _ = data_preparation(config, create_dataset(config))
    network = get_model(config["model"])(config, loader._dataset)
    return get_trainer(config["MODEL_TYPE"], config["model"])(config, network), loader


def main() -> None:
    given = Path(sys.argv[1])
    folder = given / "recbole"
    folder.mkdir(exist_ok=True)
    os.chdir(folder)  # RecBole leaves logs where it runs.
    write_atomic_files(Interactions.load(given), folder)

    def build(task: str, **case: Any) -> Task:
        trainer, loader = training(folder, **case)
        endless = itertools.chain.from_iterable(itertools.repeat(loader))

        def run(count: int) -> None:
            batches = count if task == "step" else count * len(loader)
            trainer._train_epoch(itertools.islice(endless, batches), 0)

        return Task(run)

    serve(build, "recbole", "torch", "numpy", "scipy")


if __name__ == "__main__":
    main()
