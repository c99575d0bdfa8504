"""Part 2: the evaluation of all users of Gowalla, from the same embeddings."""

from typing import Any

from benchmarks.contender import Contenders
from benchmarks.measuring import compare, interleave
from benchmarks.parts import EMBEDDINGS, Part, Setting


def measure_evaluation(setting: Setting) -> Part:
    """Full ranking and metrics at 20, against PyG's example and implicit.

    Trained embeddings are what an evaluation ranks by; how long they are differs from item to item,
    which pyg-lth makes use of. Random ones, all about as long, are the case where it cannot.

    PyG's example has precision and recall, implicit has precision (of its own), MAP, NDCG and AUC.
    What the contenders find is kept beside their times: recall and NDCG must be the same.
    """
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
