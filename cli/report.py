"""``pyg-lth report``: the tables and pages of finished or running searches."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyg_lth.cli.settings import PruneSettings, TrainSettings, build, written
from pyg_lth.cli.streams import hand_out, say, shell
from pyg_lth.config import BEFORE
from pyg_lth.errors import InputError

if TYPE_CHECKING:
    from pyg_lth.results.report import Report

IN_THE_RUN = ""


def _no_folder(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Refuse what was meant as a run: ``--html`` takes the word that follows it."""
    if path and Path(path).is_dir():
        raise click.BadParameter(f"{path} is a folder: write the runs first, --html at the end")
    return path


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the reports.")
@click.option(
    "--html",
    "page",
    metavar="[PATH]",
    is_flag=False,
    flag_value=IN_THE_RUN,
    callback=_no_folder,
    help="Write a page of each run with all tables and figures, and print its path."
    "  [default: report.html in the run folder]",
)
def report(runs: tuple[Path, ...], as_json: bool, page: str | None) -> None:
    """Show the report of each run folder RUNS."""
    from pyg_lth.results.run_folder import RunFolder

    if page and len(runs) > 1:
        raise InputError(f"--html {page} is one path for {len(runs)} pages: leave the path out")
    folders = [RunFolder(run) for run in runs]
    reports = [folder.read_report() for folder in folders]
    if page is not None:
        from pyg_lth.reporting.page import to_html

        for folder, found in zip(folders, reports, strict=True):
            html = to_html(folder, _command_of(folder.path, found))
            say(folder.write_page(html, page or None), err=as_json)
    if as_json:
        hand_out("[" + ",\n".join(found.to_json().strip() for found in reports) + "]\n")
    elif page is None:
        for run, found in zip(runs, reports, strict=True):
            show(found, run)


def _command_of(run: Path, report: "Report") -> str | None:
    """The command line that repeats a run; :obj:`None` for one that was begun from Python."""
    if "dataset" not in report.config:
        return None
    pruned = "rounds" in report.config
    settings = build(
        PruneSettings if pruned else TrainSettings, run / "config.json", {}, lambda chosen: BEFORE
    )
    changed = settings.model_dump(exclude_defaults=True)
    flags = map(shell, written(changed))
    return " \\\n    ".join([f"pyg-lth {'prune' if pruned else 'train'}", *flags])


def show(report: "Report", folder: Path) -> None:
    """Print a report on stdout: what was found, the table, what it means, where the files are."""
    from rich import box
    from rich.table import Table

    from pyg_lth.reporting.terminal import Terminal
    from pyg_lth.results.run_folder import RunFolder
    from pyg_lth.results.text import caption, conclusion, refit, title, why_none_wins

    console = Terminal()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns, rows = _fitting(report, console.width)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        style = {"strict": "bold green", "yes": "green", "no": ""}.get(row[-1], "dim")
        table.add_row(*row, style=style)
    console.print(title(report), style="bold")
    console.print(table)
    console.print(caption(report))
    console.print(conclusion(report), style="bold")
    if why := why_none_wins(report):
        console.print(f"Why: {why}")
    if report.refit:
        console.print(refit(report))
    for note in RunFolder(folder).notes:
        console.print(f"Data: {note}")
    console.print(f"Files: {folder}", soft_wrap=True)


def _fitting(report: "Report", width: int) -> tuple[list[str], list[list[str]]]:
    """The columns of the report's table that fit in a width, and its rows in them."""
    from pyg_lth.results.text import COLUMNS, DISPENSABLE, table_rows

    columns = dict(zip(COLUMNS, zip(*table_rows(report), strict=True), strict=True))
    if not report.rounds:
        del columns["95% interval"], columns["p"], columns["to dense"]
    for name in DISPENSABLE:
        if sum(max(map(len, [key, *cells])) + 2 for key, cells in columns.items()) <= width:
            break
        columns.pop(name, None)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]
