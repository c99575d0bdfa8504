"""Winning lottery tickets in recommender embedding tables, on PyTorch Geometric."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyg_lth.config import PruneConfig, TrainConfig
    from pyg_lth.errors import InputError
    from pyg_lth.lottery.callbacks import Callback
    from pyg_lth.lottery.methods import Method, register_method
    from pyg_lth.nn.backbones import MF, Backbone, LightGCN, TableModel, register_backbone
    from pyg_lth.nn.propagation import Propagation
    from pyg_lth.pruning.masks import Mask, apply_mask
    from pyg_lth.reporting.comparison import Comparison, compare_runs
    from pyg_lth.results.frames import user_metrics
    from pyg_lth.results.report import Report, RoundResult
    from pyg_lth.search import find_tickets, train
    from pyg_lth.tickets.compression import compress
    from pyg_lth.training.losses import Loss, register_loss

# Names are imported when first used: `pyg-lth --help` must not wait for torch.
_MODULES = {
    "Backbone": "nn.backbones",
    "LightGCN": "nn.backbones",
    "MF": "nn.backbones",
    "TableModel": "nn.backbones",
    "Loss": "training.losses",
    "Method": "lottery.methods",
    "register_backbone": "nn.backbones",
    "register_loss": "training.losses",
    "register_method": "lottery.methods",
    "PruneConfig": "config",
    "TrainConfig": "config",
    "InputError": "errors",
    "Mask": "pruning.masks",
    "apply_mask": "pruning.masks",
    "Propagation": "nn.propagation",
    "Comparison": "reporting.comparison",
    "compare_runs": "reporting.comparison",
    "user_metrics": "results.frames",
    "Report": "results.report",
    "RoundResult": "results.report",
    "Callback": "lottery.callbacks",
    "compress": "tickets.compression",
    "find_tickets": "search",
    "train": "search",
}

__all__ = [
    "MF",
    "Backbone",
    "Callback",
    "Comparison",
    "InputError",
    "LightGCN",
    "Loss",
    "Mask",
    "Method",
    "Propagation",
    "PruneConfig",
    "Report",
    "RoundResult",
    "TableModel",
    "TrainConfig",
    "apply_mask",
    "compare_runs",
    "compress",
    "find_tickets",
    "register_backbone",
    "register_loss",
    "register_method",
    "train",
    "user_metrics",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
