"""Part 4: the memory that a training step and an evaluation take on top of the interactions."""

from typing import Any

from benchmarks.contender import Contenders
from benchmarks.evaluate import save_embeddings
from benchmarks.measuring import NotMeasured
from benchmarks.parts import Part, Setting

STEP = {"task": "step", "dim": 32, "batch_size": 2048}
LIGHTGCN, MF = {**STEP, "model": "lightgcn"}, {**STEP, "model": "mf"}
EVALUATE = {"task": "evaluate", "embedding": "random-32"}
CASES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "step of lightgcn": {
        "pyg_lth": ("pyg_lth", LIGHTGCN),
        "pyg": ("pyg", {**STEP, "adjacency": "edge_index"}),
        "pyg_csr": ("pyg", {**STEP, "adjacency": "csr"}),
        "recbole": ("recbole", LIGHTGCN),
    },
    "step of mf": {"pyg_lth": ("pyg_lth", MF), "recbole": ("recbole", MF)},
    "evaluation": {name: (name, EVALUATE) for name in ("pyg_lth", "pyg", "implicit")},
}


def measure_memory(setting: Setting) -> Part:
    """The peak over two runs in a fresh process, less what it held before the task was built.

    That counts model, optimizer and adjacency as well as what comes and goes in a step, but not the
    packages and interactions loaded. PyG's steps hold pyg-lth's sampler besides.
    """
    save_embeddings(setting.folder, EVALUATE["embedding"])
    part = Part([])
    for task, contestants in CASES.items():
        row: dict[str, Any] = {"case": {"task": task}}
        for label, (name, case) in contestants.items():
            # A process that has run before would hold memory it can use again.
            with Contenders(setting.folder, name) as contenders:
                try:
                    answer = contenders.measure(name, 2, **case)
                except NotMeasured as error:
                    part.not_measured[label] = str(error)
                else:
                    row[label] = answer["peak"] - answer["ready"]
                    part.versions.update(contenders.versions)
        peers = [label for label in contestants if label in row and label != "pyg_lth"]
        row.update({f"vs_{label}": row[label] / row["pyg_lth"] for label in peers})
        part.rows.append(row)
    return part
