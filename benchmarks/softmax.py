"""Part 8: softmax over negatives that a batch shares, on Gowalla."""

from typing import Any

from benchmarks.contender import Contenders
from benchmarks.measuring import compare, interleave
from benchmarks.parts import Part, Setting

LOSS = {"loss": "sampled-softmax", "negatives": 1024, "batch_by": "edge"}
CASE = {"dim": 64, "batch_size": 2048}


def measure_softmax(setting: Setting) -> Part:
    """MF's step against plain autograd and its epoch; LightGCN's step against its own with BPR."""
    names = ("pyg_lth", "plain", "pyg_lth_bpr")
    with Contenders(setting.folder, *names) as contenders:

        def row(case: dict[str, Any], **runs: dict[str, Any]) -> dict[str, Any]:
            times = {name: contenders.seconds(name, **task) for name, task in runs.items()}
            return {"case": case, **compare(interleave(times, setting.repeats))}

        mf, gcn = ({"model": model, **CASE} for model in ("mf", "lightgcn"))
        step: dict[str, Any] = {"task": "step", **LOSS}
        rows = [
            row({**mf, "of": "step"}, pyg_lth={**step, **mf}, plain={**step, **mf}),
            row({**mf, "of": "epoch"}, pyg_lth={**step, **mf, "task": "epoch"}),
            row(
                {**gcn, "of": "step"},
                pyg_lth={**step, **gcn},
                pyg_lth_bpr={"task": "step", **gcn},
            ),
        ]
        return Part(rows, versions=contenders.versions, not_measured=contenders.not_measured)
