"""Winning lottery tickets in recommender embedding tables, on PyTorch Geometric."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyg_lth.backbones import MF, LightGCN
    from pyg_lth.config import PruneConfig, TrainConfig
    from pyg_lth.errors import InputError
    from pyg_lth.masks import Mask, apply_mask
    from pyg_lth.propagation import Propagation
    from pyg_lth.report import Report
    from pyg_lth.rounds import Callback
    from pyg_lth.search import find_tickets, train

# Names are imported when first used: `pyg-lth --help` must not wait for torch.
_MODULES = {
    "LightGCN": "backbones",
    "MF": "backbones",
    "PruneConfig": "config",
    "TrainConfig": "config",
    "InputError": "errors",
    "Mask": "masks",
    "apply_mask": "masks",
    "Propagation": "propagation",
    "Report": "report",
    "Callback": "rounds",
    "find_tickets": "search",
    "train": "search",
}

__all__ = [
    "MF",
    "Callback",
    "InputError",
    "LightGCN",
    "Mask",
    "Propagation",
    "PruneConfig",
    "Report",
    "TrainConfig",
    "apply_mask",
    "find_tickets",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
