"""``pyg-lth report``: the tables of finished or running searches."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyg_lth.report import Report


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the reports.")
def report(runs: tuple[Path, ...], as_json: bool) -> None:
    """Show the report of each run folder RUNS."""
    from pyg_lth.runs import RunFolder

    reports = [RunFolder(run).read_report() for run in runs]
    if as_json:
        click.echo("[" + ",\n".join(found.to_json().strip() for found in reports) + "]")
        return
    for run, found in zip(runs, reports, strict=True):
        show(found, run)


def show(report: "Report", folder: Path) -> None:
    """Print a report on stdout: what was found, the table, what it means, where the files are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pyg_lth.report import COLUMNS, caption, conclusion, table_rows, title

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in table_rows(report):
        style = {"strict": "bold green", "yes": "green", "no": ""}.get(row[-1], "dim")
        table.add_row(*row, style=style)
    console.print(title(report), style="bold", highlight=False)
    console.print(table)
    console.print(caption(report), highlight=False)
    console.print(conclusion(report), style="bold", highlight=False)
    console.print(f"Files: {folder}", highlight=False, soft_wrap=True)
