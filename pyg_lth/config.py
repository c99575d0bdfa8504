"""Frozen, validated settings of a training and of a ticket search.

This module imports no torch: the command line reads its options from the fields below, and
``--help`` must be quick.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pyg_lth.strategies import BACKBONES, LOSSES, LossName, MethodName, ModelName

PropagationName = Literal[
    "auto", "native", "triton", "triton-bfloat16", "csr", "edge-index", "scatter"
]
ScopeName = Literal["joint", "user", "item", "user_item", "row"]
SplitName = Literal["valid", "test"]
ScoreName = Literal["dot", "cosine"]
BatchByName = Literal["user", "edge"]
NegativesByName = Literal["item", "edge"]
ThresholdName = Literal["table", "feature", "entry"]
PresetName = Literal["honest", "paper", "strong"]


SELECTION_METRICS = ("recall", "ndcg")


class TrainConfig(BaseModel):
    """Settings of one dense training; the defaults are the paper's (Section 4.1).

    Raises:
        pydantic.ValidationError: For an unknown key or a value out of range.

    Example:
        >>> from pyg_lth import TrainConfig
        >>> config = TrainConfig(model="mf", lr=0.01)
        >>> config.dim, config.layers, config.select_by
        (32, 0, 'recall@20')
        >>> TrainConfig(patience=0)
        Traceback (most recent call last):
        pydantic_core._pydantic_core.ValidationError: 1 validation error for TrainConfig...
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: ModelName = Field("lightgcn", description="Backbone.")
    dim: int = Field(32, ge=1, description="Embedding dimension.")
    layers: int = Field(
        3,
        ge=0,
        le=100,
        description="Propagation layers: 3 for lightgcn unless given, always 0 for mf.",
    )
    first_layer: int = Field(
        0, ge=0, le=100, description="Layer that the mean over layers begins with; 0 is the table."
    )
    propagation: PropagationName = Field(
        "auto",
        description="Backend of the sparse product; auto is native, on CUDA triton, otherwise csr. "
        "triton-bfloat16 rounds the rows that it gathers.",
    )
    lr: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    lr_decay: float = Field(
        1.0, gt=0, le=1, description="Factor on the learning rate after each epoch."
    )
    batch_size: int = Field(2048, ge=1, description="Positives a step.")
    reg: float = Field(1e-4, ge=0, description="Weight of the L2 term.")
    loss: LossName = Field("bpr", description="Training loss.")
    score: ScoreName = Field(
        "dot",
        description="What ranks the items; cosine unless given if the loss trains cosines.",
    )
    popularity: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Weight of ln(train interactions) times `temperature`, beside the cosine.",
    )
    temperature: float = Field(0.1, gt=0, description="Divides the cosines in the softmax losses.")
    negatives: int = Field(
        1,
        ge=1,
        description="Negatives drawn: for each positive in bpr; for a whole batch, and 1024 unless "
        "given, in sampled-softmax and ccl.",
    )
    negatives_by: NegativesByName = Field(
        "item",
        description="How often an item is a negative of a whole batch: all alike, or by its train "
        "interactions.",
    )
    margin: float = Field(
        0.9, ge=-1, lt=1, description="Cosine from which ccl pushes a negative away."
    )
    negative_weight: float = Field(150.0, gt=0, description="Weight of the negatives in ccl.")
    batch_by: BatchByName = Field(
        "user", description="What a batch draws: a user and one of their items, or an interaction."
    )
    disjoint_parts: int = Field(
        1,
        ge=1,
        description="Parts that the train interactions are split into for each epoch: a batch from "
        "one propagates through the others; 1 does both with all.",
    )
    teacher: str | None = Field(
        None,
        description="Run folder whose dense model dense and tickets learn from, beside the "
        "interactions.",
    )
    distill: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share that a teacher's scores have in what is learned: 0.9 with `teacher` "
        "unless given; without, it is their dense round that teaches tickets.",
    )
    max_epochs: int = Field(1000, ge=1, description="Epochs at most in one round.")
    patience: int = Field(20, ge=1, description="Evaluations without a new best before stopping.")
    eval_every: int = Field(5, ge=1, description="Epochs from one evaluation to the next.")
    select_on: SplitName = Field(
        "valid", description="Split that chooses epochs; 'test' is the authors' protocol."
    )
    select_by: str = Field(
        "recall@20",
        description="Metric that chooses epochs and decides wins: recall@K or ndcg@K.",
    )
    topk: int = Field(20, ge=1, description="Length of the ranked list, the K of Recall@K.")
    refit: bool = Field(
        False,
        description="At last train dense and winner on train and validation, for as many epochs.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random draw.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Fill in what follows from other settings where it is not given."""
        if not isinstance(values, dict):
            return values
        following: dict[str, Any] = {"layers": 0, "score": "dot", "negatives": 1}
        for setting, strategies in (("model", BACKBONES), ("loss", LOSSES)):
            name = values.get(setting, cls.model_fields[setting].default)
            following |= strategies.defaults(str(name))
        following |= {"select_by": "recall", "distill": 0.9 if values.get("teacher") else 0.0}
        absent = {key: value for key, value in following.items() if values.get(key) is None}
        filled = {**values, **absent}
        if filled["select_by"] in SELECTION_METRICS:
            filled["select_by"] += f"@{values.get('topk', 20)}"
        return filled

    @model_validator(mode="after")
    def _select_by_what_is_measured(self) -> "TrainConfig":
        found = [f"{name}@{self.topk}" for name in SELECTION_METRICS]
        if self.select_by not in found:
            raise ValueError(
                f"select_by is {self.select_by!r}, but what is measured at topk {self.topk} is "
                f"{' and '.join(found)}"
            )
        return self

    @model_validator(mode="after")
    def _layers_where_there_are_some(self) -> "TrainConfig":
        if self.layers and BACKBONES.defaults(self.model)["layers"] == 0:
            raise ValueError(
                f"{self.model} has no propagation layers: leave layers out, or take lightgcn"
            )
        if self.first_layer > self.layers:
            raise ValueError(
                f"first_layer is {self.first_layer}, but the last of the layers is {self.layers}: "
                "lower it, or raise layers"
            )
        return self

    @model_validator(mode="after")
    def _some_losses_draw_no_negatives(self) -> "TrainConfig":
        if self.loss in ("softmax", "corrected-softmax") and self.negatives != 1:
            raise ValueError(
                f"{self.loss} takes its negatives from the batch: leave negatives out, or take "
                "sampled-softmax"
            )
        return self

    @model_validator(mode="after")
    def _popularity_goes_with_cosines(self) -> "TrainConfig":
        if self.popularity and self.score == "dot":
            raise ValueError(
                "popularity is added to cosines, and score is dot: leave it out, or take score "
                "cosine"
            )
        return self

    @model_validator(mode="after")
    def _parts_are_of_interactions_to_propagate_through(self) -> "TrainConfig":
        if self.disjoint_parts > 1 and not self.layers:
            raise ValueError(
                "disjoint_parts takes interactions out of what is propagated through, and there "
                "are no layers: leave it out"
            )
        if self.disjoint_parts > 1 and self.batch_by != "edge":
            raise ValueError(
                "disjoint_parts goes through the interactions one by one: take batch_by edge"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_has_a_share(self) -> "TrainConfig":
        if self.teacher is not None and not self.distill:
            raise ValueError(
                "a teacher with a share of 0 teaches nothing: give distill, or leave teacher out"
            )
        return self

    @model_validator(mode="after")
    def _refit_adds_validation(self) -> "TrainConfig":
        if self.refit and self.select_on == "test":
            raise ValueError(
                "refit trains for the epochs that validation chose: take select_on valid"
            )
        return self

    @property
    def is_taught(self) -> bool:
        """Whether anything learns from a teacher, which dense does of another run alone."""
        return self.teacher is not None

    def stable_hash(self) -> str:
        """Twelve hexadecimal digits that equal settings share on every machine."""
        canonical = self.model_dump_json()
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class PruneConfig(TrainConfig):
    """Settings of a ticket search: a dense training, then rounds of mask, rewind, retrain.

    Example:
        >>> from pyg_lth import PruneConfig
        >>> config = PruneConfig(method="oneshot", amount=0.2)
        >>> config.rounds, config.scope, config.select_on
        (20, 'joint', 'valid')
    """

    rounds: int = Field(20, ge=0, description="Rounds of pruning after the dense one.")
    amount: float = Field(
        0.1, gt=0, lt=1, description="Share of the surviving entries that a round drops."
    )
    method: MethodName = Field("imp", description="How the masks are found.")
    scope: ScopeName = Field("joint", description="Entries that share one pruning threshold.")
    rewind_epoch: int = Field(
        0, ge=0, description="Epoch of the dense round that survivors restart from; 0: θ₀."
    )
    threshold: ThresholdName = Field(
        "table", description="What shares one learned threshold of pep: all, a row, an entry."
    )
    mask_from: str | None = Field(
        None, description="Run folder whose masks to train under, instead of finding some."
    )
    seeds: int = Field(1, ge=1, description="Seeds to run, from `seed` on, in one run folder.")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="Relative loss against dense at which a ticket still wins."
    )

    @property
    def is_taught(self) -> bool:
        """As in a training; tickets learn from their own dense round too."""
        return self.distill > 0

    @model_validator(mode="after")
    def _seeds_are_seeds(self) -> "PruneConfig":
        if self.seed + self.seeds > 2**32:
            raise ValueError(
                f"the last of {self.seeds} seeds from {self.seed} on would be above {2**32 - 1}: "
                "lower `seed` or `seeds`"
            )
        return self

    @model_validator(mode="after")
    def _dense_round_reaches_the_epoch(self) -> "PruneConfig":
        shortest = min(self.max_epochs, self.eval_every * (1 + self.patience))
        if self.rewind_epoch > shortest:
            raise ValueError(
                f"rewind_epoch is {self.rewind_epoch}, but the dense round may stop at epoch "
                f"{shortest}: lower it, or raise max_epochs or patience"
            )
        return self


# What run folders of versions without these settings mean, where it is not what is default today.
BEFORE = {"score": "dot"}


def completed(kept: dict[str, Any]) -> dict[str, Any]:
    """Settings that a run folder keeps, with those that came into being after it was begun."""
    form = PruneConfig if "rounds" in kept else TrainConfig
    own = {name: value for name, value in kept.items() if name in form.model_fields}
    return {**form.model_validate({**BEFORE, **own}).model_dump(), **kept}


# What a preset changes in the defaults. The authors' code chooses epochs and masks on test.
PRESETS: dict[PresetName, dict[str, Any]] = {
    "honest": {},
    "paper": {"select_on": "test", "patience": 100, "eval_every": 1, "rounds": 30},
    "strong": {
        "dim": 64,
        "loss": "sampled-softmax",
        "negatives_by": "edge",
        "popularity": 1.0,
        "batch_by": "edge",
        "reg": 0.0,
        "max_epochs": 60,
        "patience": 4,
        "refit": True,
        "distill": 0.9,
    },
}
# What it changes beside for backbones that propagate, and for those that do not.
_PROPAGATING: dict[PresetName, dict[str, Any]] = {
    "strong": {
        **{"layers": 3, "first_layer": 1, "disjoint_parts": 8, "batch_size": 4096},
        **{"lr": 3e-3, "lr_decay": 0.9, "eval_every": 2, "patience": 3},
    }
}
_ALONE: dict[PresetName, dict[str, Any]] = {
    "strong": {
        **{"lr": 4e-3, "lr_decay": 0.94, "eval_every": 4},
        # Not who has one: temperatures have to be the same, and LightGCN's is the default.
        **{"teacher": None, "temperature": 0.13},
    }
}


# Of a preset, what goes with its value of another setting alone.
_GOES_WITH = {
    **{"negatives_by": "loss", "popularity": "loss", "distill": "loss"},
    **{"first_layer": "layers", "disjoint_parts": "batch_by", "temperature": "teacher"},
}


def of_preset(name: PresetName, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset changes in the defaults, beside settings that are chosen already.

    Args:
        name: The preset.
        chosen: Settings that take precedence over it, not checked yet.

    Example:
        >>> from pyg_lth.config import of_preset
        >>> of_preset("strong", {"model": "lightgcn"})["first_layer"]
        1
        >>> "popularity" in of_preset("strong", {"loss": "bpr"})
        False
    """
    chosen = {key: value for key, value in chosen.items() if value is not None}
    model = str(chosen.get("model", TrainConfig.model_fields["model"].default))
    propagates = chosen.get("layers", BACKBONES.defaults(model).get("layers"))
    more = _PROPAGATING if propagates else _ALONE
    found = {**PRESETS[name], **more.get(name, {})}
    unlike = {key for key, value in found.items() if chosen.get(key, value) != value}
    return {key: value for key, value in found.items() if _GOES_WITH.get(key) not in unlike}
