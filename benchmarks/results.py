"""The results file, and the figures in it that stand for the whole."""

import contextlib
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.contender import REPOSITORY
from benchmarks.parts import Part
from pyg_lth.results.environment import describe_environment

LIGHTGCN = {"model": "lightgcn", "dim": 32, "batch_size": 2048}
MF = {**LIGHTGCN, "model": "mf"}
SOFTMAX = {**MF, "dim": 64}
TRAINED = {"embedding": "lightgcn-32"}

# Each figure's part, the case in it (None for its summary), column, and what is to be met.
RATIOS: dict[str, tuple[str, dict[str, Any] | None, str, str, float]] = {
    "step.lightgcn.vs_pyg": ("step", LIGHTGCN, "vs_pyg", ">=", 25),
    "step.lightgcn.vs_pyg_csr": ("step", LIGHTGCN, "vs_pyg_csr", ">=", 8),
    "step.lightgcn.vs_recbole": ("step", LIGHTGCN, "vs_recbole", ">=", 18),
    "step.lightgcn-64.vs_recbole": ("step", {**LIGHTGCN, "dim": 64}, "vs_recbole", ">=", 14),
    "step.lightgcn-128.vs_recbole": ("step", {**LIGHTGCN, "dim": 128}, "vs_recbole", ">=", 10),
    "step.mf.vs_recbole": ("step", MF, "vs_recbole", ">=", 3),
    "epoch.mf.seconds": ("epoch", MF, "pyg_lth", "<=", 0.4),
    "softmax.mf.epoch.seconds": ("softmax", {**SOFTMAX, "of": "epoch"}, "pyg_lth", "<=", 5),
    "softmax.mf.vs_plain": ("softmax", {**SOFTMAX, "of": "step"}, "vs_plain", ">=", 1.67),
    "softmax.lightgcn.bpr_vs": (
        *("softmax", {**SOFTMAX, "model": "lightgcn", "of": "step"}),
        *("vs_pyg_lth_bpr", ">=", 0.714),
    ),
    "evaluate.vs_pyg_example": ("evaluate", TRAINED, "vs_pyg", ">=", 10),
    "evaluate.vs_implicit": ("evaluate", TRAINED, "vs_implicit", ">=", 1),
    "prune.seconds": ("prune", None, "seconds", "<=", 2),
    "prune.memory_ratio": ("prune", None, "memory_ratio", "<=", 1.5),
    "growth.exponent": ("growth", None, "exponent", "<=", 1.05),
}


def device_name(device: str = "cpu") -> str:
    """The GPU, or the processor and its number of cores, fit for a file name."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = platform.processor() or platform.machine()
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            name = next(line.split(":")[1] for line in lines if line.startswith("model name"))
        name += f" {len(os.sched_getaffinity(0))} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def ratios(parts: dict[str, Any]) -> dict[str, float | None]:
    """The figures that have floors, :obj:`None` where they were not measured."""
    found: dict[str, float | None] = {}
    for key, (part, case, column, *_) in RATIOS.items():
        measured = parts.get(part, {"rows": [], "summary": {}})
        rows = [measured["summary"]] if case is None else measured["rows"]
        rows = [row for row in rows if case is None or row["case"] == case]
        found[key] = rows[0].get(column) if rows else None
    return found


class Results:
    """A results file: every part is written as soon as it is measured.

    Parts from earlier runs stay; each bears its own date and commit.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.parts: dict[str, Any] = {}
        if path.exists():
            self.parts = json.loads(path.read_text())["parts"]

    def add(self, name: str, part: Part, seconds: float) -> None:
        """Add a part, or put it in the place of an earlier one, and write the file."""
        self.parts[name] = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": _commit(),
            "took": seconds,
            **vars(part),
        }
        content = {
            "schema": 1,
            "device": self.path.stem,
            "environment": describe_environment(),
            "ratios": ratios(self.parts),
            "parts": self.parts,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self.path)


def _commit() -> str | None:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
