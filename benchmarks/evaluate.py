"""Part 2: the evaluation of all users of Gowalla, from the same embeddings."""

from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.contender import Contenders
from benchmarks.data import Interactions, save_embedding
from benchmarks.measuring import compare, interleave
from benchmarks.parts import EMBEDDINGS, TRAINED_EPOCHS, Part, Setting


def save_embeddings(folder: Path, *names: str) -> None:
    """Save some of ``EMBEDDINGS`` for the contenders."""
    interactions = Interactions.load(folder)
    for name in names:
        kind, _, dim = name.partition("-")
        if kind == "random":
            embedding = interactions.random_embedding(int(dim))
        else:
            problem = ours.prepare(ours.to_split(interactions), model=kind, dim=int(dim))
            embedding = ours.trained_embedding(problem, TRAINED_EPOCHS).numpy()
        save_embedding(folder, name, embedding)


def measure_evaluation(setting: Setting) -> Part:
    """Full ranking and metrics at 20, against PyG's example and implicit.

    Trained embeddings are what an evaluation ranks by; how long they are differs from item to item,
    which pyg-lth makes use of. Random ones, all about as long, are the case where it cannot.

    PyG's example has precision and recall, implicit has precision (of its own), MAP, NDCG and AUC.
    What the contenders find is kept beside their times: recall and NDCG must be the same.
    """
    save_embeddings(setting.folder, *EMBEDDINGS)
    rows = []
    names = ("pyg_lth", "pyg", "implicit")
    with Contenders(setting.folder, *names) as contenders:
        for embedding in EMBEDDINGS:
            task = {"task": "evaluate", "embedding": embedding}
            runs = {name: contenders.seconds(name, **task) for name in names}
            row: dict[str, Any] = compare(interleave(runs, setting.repeats))
            row["figures"] = {name: contenders.figures[name] for name in row["repeats"]}
            rows.append({"case": {"embedding": embedding}, **row})
        return Part(rows, versions=contenders.versions, not_measured=contenders.not_measured)
