"""``pyg-lth runs``: what run folders hold, whether it is as it was written, and room for more."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyg_lth.cli.streams import say
from pyg_lth.errors import InputError, printable

if TYPE_CHECKING:
    from pyg_lth.results.run_folder import RunFolder

RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def runs() -> None:
    """List run folders, check their files, free what resuming no longer needs."""


@runs.command(name="list")
@click.argument("folder", type=RUN, default="runs")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_runs(folder: Path, as_json: bool) -> None:
    """Show the runs in FOLDER (runs unless given) and below: state, winner, size."""
    found = [_about(run) for run in _below(folder)]
    if as_json:
        say(json.dumps(found, indent=2))
        return
    if not found:
        say(f"No runs in {folder}.")
    for entry in found:
        winner = "no winner" if entry["winner"] is None else f"winner {entry['winner']:.2%}"
        told = [entry["state"], str(entry["dataset"] or "a graph of Python"), winner]
        told.append(f"{entry['bytes'] / 1e6:.1f} MB")
        say(printable(f"{entry['run']}: {', '.join(told)}"))


@runs.command()
@click.argument("folders", nargs=-1, required=True, type=RUN, metavar="RUN...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(context: click.Context, folders: tuple[Path, ...], as_json: bool) -> None:
    """Hold every file of the run folders RUN against its checksum.

    Exit code 2 says that some file is not what was written.
    """
    found: list[dict[str, Any]] = []
    for run in _with_seeds(folders):
        damaged = [str(error) for error in run.check()]
        files, unchecked = len(run.files()), len(run.unchecked())
        found.append(
            {"run": str(run.path), "files": files, "unchecked": unchecked, "damaged": damaged}
        )
        if as_json:
            continue
        for line in damaged:
            say(printable(line))
        older = f", {unchecked} of them older than checksums" if unchecked else ""
        state = f"{len(damaged)} damaged" if damaged else "all as written"
        say(printable(f"{run.path}: {files} files{older}: {state}"))
    if as_json:
        say(json.dumps(found, indent=2))
    context.exit(2 if any(entry["damaged"] for entry in found) else 0)


@runs.command()
@click.argument("folders", nargs=-1, required=True, type=RUN, metavar="RUN...")
def clean(folders: tuple[Path, ...]) -> None:
    """Free what resuming the run folders RUN no longer needs.

    That is, of a finished run, the states of its trainings and the tables that masks were read
    from; of any run, files half written. Tickets, reports and figures stay.
    """
    for run in _with_seeds(folders):
        with run:
            freed = run.clean()
        say(printable(f"{run.path}: {freed / 1e6:.1f} MB freed"))


def _with_seeds(folders: tuple[Path, ...]) -> list["RunFolder"]:
    from pyg_lth.results.run_folder import RunFolder

    found = []
    for folder in folders:
        found.append(RunFolder(folder))
        found += [RunFolder(seed.parent) for seed in sorted(folder.glob("seed-*/config.json"))]
    return found


def _below(folder: Path) -> list[Path]:
    """The runs in a folder; the seeds of one are part of it."""
    found = sorted(path.parent for path in folder.rglob("config.json"))
    return [run for run in found if not run.name.startswith("seed-")]


def _about(run: Path) -> dict[str, Any]:
    from pyg_lth.results.run_folder import RunFolder

    about: dict[str, Any] = {"run": str(run), "state": "begun", "dataset": None, "winner": None}
    try:
        folder = RunFolder(run)
        about["dataset"] = folder.read_config().get("dataset")
        if (run / "report.json").exists():
            report = folder.read_report()
            planned = report.config.get("rounds", 0)
            about["winner"] = None if report.winner is None else report.winner.density
            whole = report.ended is not None or len(report.rounds) == planned
            whole = whole and len(report.seeds) == report.config.get("seeds", 1)
            about["state"] = "done" if whole else f"{len(report.rounds)} of {planned} rounds"
    except InputError as error:
        about["state"] = f"damaged ({error})"
    about["bytes"] = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return about
