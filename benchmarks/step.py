"""Part 1: the training step and the epoch on Gowalla."""

from itertools import product
from typing import Any

from benchmarks.contender import Contenders
from benchmarks.measuring import compare, interleave
from benchmarks.parts import BATCH_SIZES, DIMS, Part, Setting


def measure_steps(setting: Setting) -> Part:
    """LightGCN against stock PyG and RecBole, MF against RecBole."""
    rows = []
    with Contenders(setting.folder, "pyg_lth", "pyg", "recbole") as contenders:
        for model, dim, batch_size in product(("lightgcn", "mf"), DIMS, BATCH_SIZES):
            case = {"model": model, "dim": dim, "batch_size": batch_size}
            task: dict[str, Any] = {"task": "step", **case}
            runs = {"pyg_lth": contenders.seconds("pyg_lth", **task)}
            if model == "lightgcn":
                runs["pyg"] = contenders.seconds("pyg", **task, adjacency="edge_index")
                runs["pyg_csr"] = contenders.seconds("pyg", **task, adjacency="csr")
            runs["recbole"] = contenders.seconds("recbole", **task)
            rows.append({"case": case, **compare(interleave(runs, setting.repeats))})
        return Part(rows, versions=contenders.versions, not_measured=contenders.not_measured)


def measure_epochs(setting: Setting) -> Part:
    """MF against RecBole and implicit; LightGCN, whose peers would take hours, alone and once."""
    rows = []
    with Contenders(setting.folder, "pyg_lth", "recbole", "implicit") as contenders:
        for dim, batch_size in product(DIMS, BATCH_SIZES):
            case = {"model": "mf", "dim": dim, "batch_size": batch_size}
            runs = {
                name: contenders.seconds(name, task="epoch", **case)
                for name in ("pyg_lth", "recbole")
            }
            runs["implicit"] = contenders.seconds("implicit", task="epoch", dim=dim)
            rows.append({"case": case, **compare(interleave(runs, min(setting.repeats, 3)))})
        for dim, batch_size in product(DIMS, BATCH_SIZES):
            case = {"model": "lightgcn", "dim": dim, "batch_size": batch_size}
            seconds = contenders.measure("pyg_lth", task="epoch", **case)["seconds"]
            rows.append({"case": case, **compare({"pyg_lth": [seconds]})})
        return Part(rows, versions=contenders.versions, not_measured=contenders.not_measured)
