"""What a ticket weighs beside the dense table, and what is known of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pyg_lth.tickets.places import form_bytes
from pyg_lth.tickets.quantization import Values
from pyg_lth.tickets.ticket import Ticket

# What a ticket is always weighed against.
DENSE: tuple[Values, ...] = ("float32", "float16", "int8")


def describe(path: str | Path) -> dict[str, Any]:
    """Describe the ticket in a file.

    Returns:
        A JSON-able dictionary: ``file``, ``backbone``, ``users``, ``items``, ``dim``, ``store``,
        ``form``, ``values``; ``entries`` (``stored``, ``of``, ``density``); ``bytes`` (``disk``,
        ``memory`` after a first answer, and the parts of :meth:`~pyg_lth.tickets.Ticket.nbytes`);
        ``dense_bytes`` (the dense table alone in each of :data:`DENSE`, with a scale for each row
        where it needs one); ``notes`` (``density`` by table and degree group, ``metrics``,
        ``provenance``).

    Raises:
        InputError: If the file is missing, no ticket or damaged.
    """
    ticket = Ticket.load(path)
    table = ticket.table
    every_row = np.full(table.num_rows, table.dim)
    return {
        "file": str(path),
        "backbone": ticket.backbone,
        "users": ticket.num_users,
        "items": ticket.num_items,
        "dim": table.dim,
        "store": ticket.notes.get("store", "table" if ticket.layer_weights is None else "ego"),
        "form": table.form,
        "values": table.kind,
        "entries": {
            "stored": table.stored,
            "of": table.num_rows * table.dim,
            "density": table.density,
        },
        "bytes": {
            "disk": Path(path).stat().st_size,
            "memory": Path(path).stat().st_size + _derived_bytes(ticket),
            **ticket.nbytes(),
        },
        "dense_bytes": {
            kind: form_bytes("dense", every_row, table.dim, table.dim, kind) for kind in DENSE
        },
        "notes": dict(ticket.notes),
    }


def _derived_bytes(ticket: Ticket) -> int:
    """Bytes of the arrays that a first answer leaves in memory beside the mapped file."""
    ticket.rank([0], 1)
    parts = [ticket.table, ticket.train, ticket.valid]
    arrays = (value for part in parts if part is not None for value in vars(part).values())
    derived = sum(
        value.nbytes
        for value in arrays
        if isinstance(value, np.ndarray) and value.flags.writeable and value.base is None
    )
    columns = (0 if ticket.layer_weights is None else ticket.dim) + (ticket.bias is not None)
    return derived + 4 * ticket.table.num_rows * columns


def paragraphs(about: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """What :func:`describe` found as headed lines of name and text, for people."""
    entries, size, dense = about["entries"], about["bytes"], about["dense_bytes"]
    propagates = about["store"] == "ego"
    yield (
        "Ticket",
        [
            ("file", about["file"]),
            ("backbone", f"{about['backbone']}, {about['dim']} columns"),
            ("users, items", f"{about['users']:,}, {about['items']:,}"),
            ("stored", _STORED.get(about["store"], about["store"])),
            ("as", f"{about['form']}, {about['values']}"),
            (
                "entries",
                f"{entries['stored']:,} of {entries['of']:,} ({entries['density']:.2%})",
            ),
        ],
    )
    yield (
        "Bytes",
        [
            ("on disk", f"{size['disk']:,}"),
            ("in memory", f"{size['memory']:,} after a first answer"),
            ("table", f"{size['table']:,}: values, places, scales"),
            *([("bias", f"{size['bias']:,}: of items, added to scores")] * bool(size["bias"])),
            ("graph", f"{size['graph']:,}: what users had in training"),
            *([("held out", f"{size['held_out']:,}: and in validation")] * bool(size["held_out"])),
            *([("ids", f"{size['ids']:,}")] * bool(size["ids"])),
            (
                "to answer",
                f"{size['to_answer']:,}: " + _needed(size, propagates),
            ),
            ("without seen", f"{size['to_answer_unseen']:,}: to leave out what users had, too"),
        ],
    )
    yield (
        "Against the dense table alone",
        [
            (
                kind,
                f"{number:,} bytes: to answer, the ticket takes {size['to_answer'] / number:.1%}",
            )
            for kind, number in dense.items()
        ],
    )
    yield "What the paper counts", [("", line) for line in _paper(about)]
    notes = about["notes"]
    density = notes.get("density") or {}
    if density:
        lines = [
            (
                f"{name} by degree",
                " ".join(f"{share:.0%}" for share in density[f"{name}_by_degree"]),
            )
            for name in ("users", "items")
        ]
        table = [(name, f"{density[name]:.2%}") for name in ("users", "items")]
        yield "Density, lowest degrees first", [*table, *lines]
    metrics = notes.get("metrics") or {}
    names = {
        "test": "this file",
        "test_of_run": "its round",
        "test_of_dense": "dense",
        "test_of_popularity": "popularity",
    }
    if metrics:
        yield (
            f"Test, epochs chosen on {metrics.get('selected_on', 'unknown')}",
            [
                (names[key], ", ".join(f"{k} {v:.4f}" for k, v in metrics[key].items()))
                for key in names
                if key in metrics
            ],
        )
    made = notes.get("provenance") or {}
    if made:
        keys = ("run", "round", "seed", "data", "pyg_lth")
        yield "Made from", [(key, str(made[key])) for key in keys if key in made]
    yield (
        "Load it",
        [
            ("Python", "from pyg_lth.tickets import Ticket"),
            ("", f"Ticket.load({about['file']!r}).recommend([USER], k=20)"),
            ("shell", f"pyg-lth recommend {about['file']} --user USER"),
        ],
    )


_STORED = {
    "ego": "the ego table and the graph; propagated once on loading",
    "final": "the propagated table",
    "pruned": "the propagated table, its largest entries alone",
    "table": "the table that is multiplied",
}


def _needed(size: dict[str, int], propagates: bool) -> str:
    """What scores need, in words."""
    *first, last = ["table", *["bias"] * bool(size["bias"]), *["graph"] * propagates]
    return f"{', '.join(first)} and {last}" if first else last


def _paper(about: dict[str, Any]) -> list[str]:
    if about["store"] in ("ego", "table"):
        return [
            f"The paper's share of parameters is the {about['entries']['density']:.2%} of entries",
            "above: no places, no ids, and no graph.",
        ]
    return [
        "The paper's share of parameters is that of the ego table, which this file",
        "does not hold: the propagated table has its own entries.",
    ]
