"""Tickets in the formats of others, one file for each: what reads it needs no pyg-lth."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pyg_lth.errors import InputError
from pyg_lth.tickets.ticket import Ticket


class Exporter(NamedTuple):
    """How a format is written.

    Args:
        module: What writes it, by its function ``export``.
        needs: The packages that takes, none for what is always there.
        suffix: Of the file; empty for a folder.
        summary: What it holds, in a few words.
    """

    module: str
    needs: tuple[str, ...]
    suffix: str
    summary: str


#: The formats by name.
EXPORTERS: Mapping[str, Exporter] = {
    "ticket": Exporter("ticket", (), ".ticket", "a ticket, which answers with numpy alone"),
    "npz": Exporter("npz", (), ".npz", "SciPy's CSR matrix of the table, with ids and seen items"),
    "onnx": Exporter("onnx", ("onnx",), ".onnx", "a model: users in, ids of items and scores out"),
    "faiss": Exporter("faiss", ("faiss",), ".faiss", "an exact index of the items"),
    "usearch": Exporter("usearch", ("usearch",), ".usearch", "an approximate index of the items"),
    "hf": Exporter(
        "huggingface", ("huggingface_hub",), "", "a folder for the Hugging Face Hub, with a card"
    ),
}


def export(ticket: Ticket, path: str | Path, format: str = "ticket") -> None:
    """Write a ticket in one of the :data:`EXPORTERS`' formats.

    Args:
        ticket: The ticket.
        path: The file, or for ``hf`` the folder, which may exist. It is there when it is whole.
        format: The name of the format.

    Raises:
        InputError: If there is no such format, a package that it takes is not installed, the ticket
            does not fit into it, or the file cannot be written.

    Example:
        >>> import numpy as np
        >>> import scipy.sparse
        >>> from pyg_lth.tickets import CompactTable, IdTable, ItemLists, Ticket
        >>> from pyg_lth.tickets.exporters import export
        >>> ticket = Ticket(
        ...     "mf",
        ...     CompactTable.from_dense([[1, 0], [0, 2]]),  # a user and an item
        ...     train=ItemLists.from_pairs(np.array([[0], [0]]), num_users=1, num_items=1),
        ...     user_ids=IdTable.of(["ann"]),
        ...     item_ids=IdTable.of(["a"]),
        ... )
        >>> export(ticket, "ann.npz", "npz")
        >>> scipy.sparse.load_npz("ann.npz").toarray()
        array([[1., 0.],
               [0., 2.]], dtype=float32)
    """
    check_installed(format)
    module = importlib.import_module(f"{__name__}.{EXPORTERS[format].module}")
    write: Callable[[Ticket, Path], None] = module.export
    write(ticket, Path(path))


def check_installed(format: str) -> None:
    """Check that a format can be written here.

    Raises:
        InputError: If there is none of that name, or a package that it takes is not installed.
    """
    if format not in EXPORTERS:
        raise InputError(f"{format!r} is no format: take one of {', '.join(EXPORTERS)}")
    require(f"the format {format}", format, *EXPORTERS[format].needs)


def require(what: str, extra: str, *packages: str) -> None:
    """Check that what an extra of the package brings is installed.

    Raises:
        InputError: If it is not.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(
                f'{what} needs {package}, which is not installed: pip install "pyg-lth[{extra}]"'
            ) from None
