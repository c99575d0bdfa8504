"""What a part of the suite is given, and what it gives."""

import dataclasses
from pathlib import Path
from typing import Any

# What the ratios refer to, and what else is measured.
DIMS = (32, 64, 128)
BATCH_SIZES = (2048, 8192)
# What is ranked by: a backbone at its first evaluation, or random numbers, and their dimension.
TRAINED_EPOCHS = 5
EMBEDDINGS = ("lightgcn-32", "mf-32", "random-32", "random-128")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a part measures with.

    Args:
        root: Folder of the data sets.
        folder: Folder that holds Gowalla's interactions for the contenders.
        repeats: Turns of each contender.
    """

    root: str
    folder: Path
    repeats: int


@dataclasses.dataclass
class Part:
    """What a part came to.

    Args:
        rows: Measurements; of each, ``case`` says of what, ``repeats`` holds the single turns.
            Floats are seconds and ratios, integers bytes, the rest is text.
        summary: Figures over all rows.
        versions: Packages of each contender.
        not_measured: Why a contender is missing.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, float] = dataclasses.field(default_factory=dict)
    versions: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    not_measured: dict[str, str] = dataclasses.field(default_factory=dict)
