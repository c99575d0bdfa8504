"""User-item interaction data sets for PyTorch Geometric.

The names below load on first use, so that importing this package costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BipartiteDataset
    from .csr import InteractionCSR, read_csr
    from .errors import DatasetError
    from .gated import Kwai, TikTok
    from .graph import InteractionGraph
    from .interaction_file import InteractionFile
    from .interaction_table import InteractionTable
    from .published import AmazonBook, Gowalla, TikTokMMSSL, Yelp2018
    from .registry import DATASETS, DatasetOptions, describe, list_datasets, load_dataset
    from .synthetic import Synthetic

_MODULES = {
    "AmazonBook": "published",
    "BipartiteDataset": "base",
    "DATASETS": "registry",
    "DatasetError": "errors",
    "DatasetOptions": "registry",
    "Gowalla": "published",
    "InteractionCSR": "csr",
    "InteractionFile": "interaction_file",
    "InteractionGraph": "graph",
    "InteractionTable": "interaction_table",
    "Kwai": "gated",
    "Synthetic": "synthetic",
    "TikTok": "gated",
    "TikTokMMSSL": "published",
    "Yelp2018": "published",
    "describe": "registry",
    "list_datasets": "registry",
    "load_dataset": "registry",
    "read_csr": "csr",
}

__all__ = [
    "DATASETS",
    "AmazonBook",
    "BipartiteDataset",
    "DatasetError",
    "DatasetOptions",
    "Gowalla",
    "InteractionCSR",
    "InteractionFile",
    "InteractionGraph",
    "InteractionTable",
    "Kwai",
    "Synthetic",
    "TikTok",
    "TikTokMMSSL",
    "Yelp2018",
    "describe",
    "list_datasets",
    "load_dataset",
    "read_csr",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
