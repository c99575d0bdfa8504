"""``pyg-lth datasets``: what data sets there are, and getting them ready."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyg_lth.cli.settings import InOrder, build, in_flags, options_of
from pyg_lth.cli.streams import say
from pyg_lth.datasets import DatasetOptions, list_datasets
from pyg_lth.datasets import describe as describe_dataset
from pyg_lth.datasets.errors import visible

if TYPE_CHECKING:
    from pyg_lth.datasets import BipartiteDataset

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
WAYS = {
    "bundled": "generated",
    "download": "downloaded when first used",
    "manual": "public, placed by hand",
    "gated": "ask its publisher for it",
}


@click.group(cls=InOrder)
def datasets() -> None:
    """List, describe and prepare data sets."""


@datasets.command("list")
@click.option("--root", default="data", help="Folder that holds the data sets.  [default: data]")
@AS_JSON
def list_(root: str, as_json: bool) -> None:
    """List the data sets known by name."""
    from rich import box
    from rich.table import Table

    from pyg_lth.reporting.terminal import Terminal

    entries = list_datasets(root)
    if as_json:
        say(json.dumps(entries, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("name", "users", "items", "interactions", "ready", "how to get it"):
        table.add_column(name, justify="left" if name in ("name", "how to get it") else "right")
    for entry in entries:
        table.add_row(
            entry["name"],
            *(f"{entry[name]:,}" for name in ("users", "items", "interactions")),
            "yes" if entry["ready"] else "no",
            WAYS[entry["availability"]],
        )
    Terminal().print(table)


@datasets.command()
@click.argument("dataset", metavar="NAME")
@options_of(DatasetOptions, skip=("dataset",))
@AS_JSON
def info(as_json: bool, **given: Any) -> None:
    """Describe the data set NAME, or a file of your own."""
    about = describe_dataset(build(DatasetOptions, None, given))
    if as_json:
        say(json.dumps(about, indent=2))
        return
    show_description(about)


@datasets.command()
@click.argument("dataset", metavar="NAME")
@options_of(DatasetOptions, skip=("dataset",))
def prepare(**given: Any) -> None:
    """Download or generate the data set NAME where needed, and check and process it."""
    options = build(DatasetOptions, None, given)
    opened(options)
    show_description(describe_dataset(options))


@datasets.command()
@click.argument("dataset", metavar="IN")
@click.argument("out", type=click.Path(path_type=Path))
@options_of(DatasetOptions, skip=("dataset",))
def convert(out: Path, **given: Any) -> None:
    """Write IN, a data set or a file of your own, in another form to OUT.

    OUT ending in .parquet gets the rows of a log as they are. OUT ending in .txt gets the
    interactions as LightGCN text. Any other OUT is a new folder for the split: train.txt, valid.txt
    and test.txt. Beside LightGCN text go user_list.txt and item_list.txt with the original ids.
    """
    from pyg_lth.datasets.conversion import convert

    written, notes = convert(build(DatasetOptions, None, given), out)
    tell(notes)
    for path in written:
        say(f"{path}  {path.stat().st_size:,} bytes")


def opened(options: DatasetOptions) -> "BipartiteDataset":
    """Open a data set, and tell what was merged, dropped or guessed at in it."""
    from pyg_lth.datasets import load_dataset

    # Not the function of this name that downloads from a hub.
    dataset = load_dataset(options)  # nosec B615
    tell(dataset.notes)
    return dataset


def tell(notes: Iterable[str]) -> None:
    """Print a line on stderr for each kind of thing that did not go in as it stood."""
    for note in notes:
        say(in_flags(visible(note)), err=True)


def show_description(about: dict[str, Any]) -> None:
    """Print what is known of a data set, a line each."""
    for name, value in about.items():
        if name == "notes":
            tell(value)
        elif name == "files":
            for file in value:
                say(f"file          {file['path']}  {file['bytes']:,} bytes")
                say(f"              sha256 {file['sha256']}")
        elif name.endswith("_degrees") and value:
            quantiles = ", ".join(f"{label} {degree:,}" for label, degree in value.items())
            say(f"{name.replace('_', ' '):<13} {quantiles}")
        elif value is not None:
            say(f"{name:<13} {_text(name, value)}")


def _text(name: str, value: Any) -> str:
    if name == "density":
        return f"{value:.4%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
