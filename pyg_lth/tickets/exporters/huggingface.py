"""A folder for the Hugging Face Hub: card, settings and weights. Pushing it is the user's step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pyg_lth.errors import InputError
from pyg_lth.tickets.ticket import Ticket
from pyg_lth.whole_files import replacing

WEIGHTS = "model.safetensors"

# What a name of the ticket's own metrics means.
_METRICS = {
    "test": "this file",
    "test_of_run": "its round, before values were stored",
    "test_of_dense": "the dense model",
    "test_of_popularity": "ranking by popularity",
}


def export(ticket: Ticket, path: Path) -> None:
    """Write ``README.md``, ``config.json`` and the ticket itself as ``model.safetensors``.

    The card states no licence, which is for those who publish it to choose.

    Raises:
        InputError: If a file cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder: {error.strerror}") from None
    ticket.save(path / WEIGHTS)
    settings = {
        "library_name": "pyg-lth",
        "backbone": ticket.backbone,
        "users": ticket.num_users,
        "items": ticket.num_items,
        "dim": ticket.dim,
        "form": ticket.table.form,
        "values": ticket.table.kind,
        "density": ticket.table.density,
        "layer_weights": ticket.layer_weights,
        "score": ticket.score,
        "item_bias": ticket.bias is not None,
        "fold_in": ticket.fold_in,
        "weights": WEIGHTS,
    }
    texts = {
        "config.json": json.dumps(settings, indent=2) + "\n",
        "README.md": _card(ticket, (path / WEIGHTS).stat().st_size),
    }
    for name, text in texts.items():
        with replacing(path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _card(ticket: Ticket, size: int) -> str:
    metrics = ticket.notes.get("metrics") or {}
    of_run = ticket.notes.get("provenance") or {}
    # Of a file its name: where it lay is nobody's business.
    data = Path(str(of_run.get("settings", {}).get("dataset", "its own data"))).name
    front = ModelCardData(
        library_name="pyg-lth",
        tags=["recommender-system", "collaborative-filtering", "lottery-ticket", ticket.backbone],
        model_name=f"{ticket.backbone} ticket",
        eval_results=[
            EvalResult(
                task_type="recommendation",
                dataset_type=data,
                dataset_name=data,
                dataset_split="test",
                metric_type=name,
                metric_value=value,
            )
            for name, value in metrics.get("test", {}).items()
        ],
    )
    first = ticket.user_ids.at([0])[0]
    stored = f"{ticket.table.stored:,} of {ticket.table.num_rows * ticket.dim:,}"
    lines = [
        "---",
        front.to_yaml(),
        "---",
        "",
        f"# {ticket.backbone}: a ticket of {ticket.table.density:.2%} of the embedding table",
        "",
        f"A recommender of {ticket.num_items:,} items for {ticket.num_users:,} users, made with",
        "pyg-lth: an embedding table of which only the entries of a lottery ticket are stored.",
        "",
        "```python",
        "from pyg_lth.tickets import Ticket",
        "",
        f'ticket = Ticket.load("{WEIGHTS}")',
        f"ticket.recommend([{first!r}], k=20)",
        "```",
        "",
        "## Sizes",
        "",
        "| | |",
        "|---|---:|",
        f"| file | {size:,} bytes |",
        *(
            f"| of it {name.replace('_', ' ')} | {number:,} bytes |"
            for name, number in ticket.nbytes().items()
            if not name.startswith("to_answer")
        ),
        f"| entries stored | {stored} |",
        f"| dense table in float32 | {4 * ticket.table.num_rows * ticket.dim:,} bytes |",
        "",
        "## Metrics",
        "",
        *_table_of(metrics),
        "",
        "## Origin",
        "",
        *(
            f"- {name}: {of_run[name]}"
            for name in ("data", "round", "seed", "density_of_round", "pyg_lth")
            if name in of_run
        ),
        "",
        "## Licence",
        "",
        "Not stated. Add `license:` to the head of this card before publishing it, and mind what",
        "the data allow: the file holds the items that each user had in training.",
        "",
    ]
    return "\n".join(lines)


def _table_of(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics as a table in Markdown, one row for each model."""
    rows = {title: metrics[key] for key, title in _METRICS.items() if metrics.get(key)}
    if not rows:
        return ["Not measured."]
    names = list(next(iter(rows.values())))
    return [
        f"On test; epochs chosen on {metrics.get('selected_on', 'what is not noted')}.",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
        *(
            f"| {title} | {' | '.join(f'{row[name]:.4f}' for name in names if name in row)} |"
            for title, row in rows.items()
        ),
    ]
