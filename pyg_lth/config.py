"""Frozen, validated settings of a training and of a ticket search.

This module imports no torch: the command line reads its options from the fields below, and
``--help`` must be quick.
"""

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ModelName = Literal["lightgcn", "mf"]
PropagationName = Literal["auto", "native", "csr", "edge-index", "scatter"]
MethodName = Literal["imp", "oneshot", "random"]
ScopeName = Literal["joint", "user", "item", "user_item", "row"]
SplitName = Literal["valid", "test"]

DEFAULT_LAYERS: dict[str, int] = {"lightgcn": 3, "mf": 0}


class TrainConfig(BaseModel):
    """Settings of one dense training; the defaults are the paper's (Section 4.1).

    Raises:
        pydantic.ValidationError: For an unknown key or a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: ModelName = Field("lightgcn", description="Backbone.")
    dim: int = Field(32, ge=1, description="Embedding dimension.")
    layers: int = Field(
        3, ge=0, description="Propagation layers: 3 for lightgcn unless given, always 0 for mf."
    )
    propagation: PropagationName = Field(
        "auto", description="Backend of the sparse product; auto is native, otherwise csr."
    )
    lr: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    batch_size: int = Field(2048, ge=1, description="Triplets a step.")
    reg: float = Field(1e-4, ge=0, description="Weight of the L2 term.")
    max_epochs: int = Field(1000, ge=1, description="Epochs at most in one round.")
    patience: int = Field(20, ge=1, description="Evaluations without a new best before stopping.")
    eval_every: int = Field(5, ge=1, description="Epochs from one evaluation to the next.")
    select_on: SplitName = Field(
        "valid", description="Split that chooses epochs; 'test' is the authors' protocol."
    )
    topk: int = Field(20, ge=1, description="Length of the ranked list, the K of Recall@K.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random draw.")

    @model_validator(mode="before")
    @classmethod
    def _layers_of_model(cls, values: Any) -> Any:
        """Fill in the number of layers that the backbone has when none is given."""
        if isinstance(values, dict) and values.get("layers") is None:
            model = values.get("model", cls.model_fields["model"].default)
            values = {**values, "layers": DEFAULT_LAYERS.get(str(model), 0)}
        return values

    @model_validator(mode="after")
    def _mf_has_no_layers(self) -> "TrainConfig":
        if self.model == "mf" and self.layers != 0:
            raise ValueError("mf has no propagation layers: leave layers out, or take lightgcn")
        return self

    @property
    def selection_metric(self) -> str:
        """Key of the metric that chooses epochs and decides wins, ``recall@K``."""
        return f"recall@{self.topk}"

    def stable_hash(self) -> str:
        """Twelve hexadecimal digits that equal settings share on every machine."""
        canonical = self.model_dump_json()
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class PruneConfig(TrainConfig):
    """Settings of a ticket search: a dense training, then rounds of mask, rewind, retrain."""

    rounds: int = Field(20, ge=0, description="Rounds of pruning after the dense one.")
    amount: float = Field(
        0.1, gt=0, lt=1, description="Share of the surviving entries that a round drops."
    )
    method: MethodName = Field("imp", description="How the masks are found.")
    scope: ScopeName = Field("joint", description="Entries that share one pruning threshold.")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="Relative loss against dense at which a ticket still wins."
    )
