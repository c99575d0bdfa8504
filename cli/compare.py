"""``pyg-lth compare``: runs side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyg_lth.cli.streams import hand_out, say
from pyg_lth.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from pyg_lth.reporting.comparison import Comparison
    from pyg_lth.reporting.formats import Table

# A name longer than this is broken rather than widen its column.
LONGEST_WORD = 16

# Columns between two columns of a table.
GAP = 2


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "latex", "json"]),
    default="table",
    show_default=True,
    help="What to print; csv and json have all figures.",
)
@click.option(
    "--overlap",
    is_flag=True,
    help="Compare the masks too; csv then has these figures instead of the rounds'.",
)
@click.option(
    "--by",
    type=click.Choice(["density", "bytes"]),
    default="density",
    show_default=True,
    help="bytes: what tickets weigh, beside ways that use no mask; ranks by each table.",
)
def compare(runs: tuple[Path, ...], form: str, overlap: bool, by: str) -> None:
    """Show the run folders RUNS side by side at equal density, or by bytes.

    Runs that differ in nothing but the seed stay apart; prune --seeds makes one run of several.
    """
    from pyg_lth.reporting import comparison, formats

    if by == "bytes":
        if overlap:
            raise InputError("--overlap does not go with --by bytes: masks share a density")
        _show_by_bytes(runs, form)
        return
    found = comparison.compare_runs(runs, overlap)
    if form == "table":
        _show(found)
        return
    write: dict[str, Callable[[Comparison], str]] = {
        "markdown": formats.to_markdown,
        "csv": formats.to_csv,
        "latex": formats.to_latex,
        "json": comparison.Comparison.to_json,
    }
    if form == "csv":
        for note in found.notes:
            say(note, err=True)
    if form == "csv" and found.agreements is not None:
        hand_out(formats.agreements_to_csv(found.agreements))
    else:
        hand_out(write[form](found))


def _show_by_bytes(runs: tuple[Path, ...], form: str) -> None:
    from pyg_lth.cli.weighing import weigh
    from pyg_lth.reporting import by_bytes, formats
    from pyg_lth.reporting.terminal import Terminal

    weighed = weigh(runs)
    if form in ("csv", "json"):
        hand_out((by_bytes.to_csv if form == "csv" else by_bytes.to_json)(weighed))
        return
    table = by_bytes.table(weighed)
    if form == "table":
        console = Terminal()
        console.print(table.title, style="bold")
        for columns in _blocks(table, console.width):
            _print(console, table, columns)
        console.print(table.caption)
    else:
        write = formats.table_to_latex if form == "latex" else formats.table_to_markdown
        hand_out(write(table))


def _show(comparison: "Comparison") -> None:
    from pyg_lth.reporting.formats import heading, tables
    from pyg_lth.reporting.terminal import Terminal

    console = Terminal()
    console.print(heading(comparison), style="bold")
    for note in comparison.notes:
        console.print(note, style="bold yellow")
    for table in tables(comparison, best="> or bold"):
        console.print()
        console.print(table.title, style="bold")
        for columns in _blocks(table, console.width):
            _print(console, table, columns)
        console.print(table.caption)
    console.print()
    for run in comparison.runs:
        console.print(f"{run.label}: {run.folder}", soft_wrap=True)


def _print(console: "Console", table: "Table", columns: list[int]) -> None:
    """Print some columns of a table beside its row heads, without rows that are empty there."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pyg_lth.results.text import NOTHING

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index in (0, *columns):
        name = Text(table.columns[index], overflow="fold")
        shown.add_column(name, justify="right", width=_width(table, index))
    for group in table.groups:
        for line in group:
            cells = [line.cells[index - 1] for index in columns]
            if any(cell.text != NOTHING for cell in cells):
                marked = [">" * c.best + c.text + c.mark.ljust(_marks(table)) for c in cells]
                styles = ["bold" if cell.best else "" for cell in cells]
                shown.add_row(line.head, *map(Text, marked, styles))
        shown.add_section()
    console.print(shown)


def _blocks(table: "Table", width: int) -> list[list[int]]:
    """The columns of a table beside the first, in blocks that fit in a width together with it."""
    columns = list(range(1, len(table.columns)))
    blocks = _filled(table, columns, width, most=len(columns))
    # As few blocks, but of about the same number of columns.
    return _filled(table, columns, width, most=-(-len(columns) // len(blocks)))


def _filled(table: "Table", columns: list[int], width: int, most: int) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    room = left = width - (1 + _width(table, 0) + GAP)
    for index in columns:
        needed = _width(table, index) + GAP
        if blocks[-1] and (needed > left or len(blocks[-1]) == most):
            blocks.append([])
            left = room
        blocks[-1].append(index)
        left -= needed
    return blocks


def _width(table: "Table", index: int) -> int:
    """How wide a column must be."""
    lines = [line for group in table.groups for line in group]
    longest = min(max(map(len, table.columns[index].split())), LONGEST_WORD)
    if index == 0:
        return max(longest, *(len(line.head) for line in lines))
    cells = [line.cells[index - 1] for line in lines]
    return max(longest, *(cell.best + len(cell.text) + _marks(table) for cell in cells))


def _marks(table: "Table") -> int:
    """How much room the marks take, so that figures stand below each other."""
    return max(len(cell.mark) for group in table.groups for line in group for cell in line.cells)
