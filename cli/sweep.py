"""``pyg-lth sweep``: run a grid of settings, each combination in a process of its own."""

import contextlib
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from pyg_lth.cli.engines import engine_options
from pyg_lth.cli.settings import PruneSettings, explain, written
from pyg_lth.cli.streams import say, shell
from pyg_lth.errors import InputError
from pyg_lth.sweeps.children import command_line
from pyg_lth.sweeps.engines import ENGINES, Room
from pyg_lth.sweeps.grid import Cell, Result, State, read_cells, read_state, run_cells, shard

# What a Slurm cluster lets an array have unless its administrator sets another limit.
MOST_TASKS = 1000


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@engine_options(
    "Runs side by side, each with one thread; on a GPU they share it.  [default: physical cores; 1 "
    "on a GPU, and for runs of several seeds; all that a cluster has room for]"
)
@click.option("--shard", "part", metavar="I/N", help="Do every N-th run only, from the I-th on.")
@click.option("--list", "listed", is_flag=True, help="Print the runs and their states, and stop.")
@click.option("--slurm", is_flag=True, help="Print a Slurm array script that does all, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def sweep(
    file: Path,
    engine: str,
    jobs: int | None,
    cpus_per_run: int | None,
    gpus_per_run: float | None,
    ray_address: str | None,
    part: str | None,
    listed: bool,
    slurm: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run prune on every combination of the settings that FILE, YAML or JSON, lists.

    \b
    out: runs/sizes            # a folder for each run is made in it
    settings:                  # what all runs share, named as prune's options
      dataset: synthetic
      rounds: 5
    grid:                      # every combination of these is a run
      model: [lightgcn, mf]
      dim: [16, 32]
      seed: [0, 1, 2]

    Runs that are done are left alone, and begun ones continued: the same command goes on after a
    failure, a kill or Ctrl-C. Exit code 1 says that some runs are not done.
    """  # noqa: D301
    cells = read_cells(file, _complete)
    if slurm:
        if part is not None:
            raise click.UsageError("--slurm shards the runs itself: leave --shard out")
        if engine != "local":
            raise click.UsageError("a Slurm task runs its shard by itself: leave --engine out")
        say(_slurm_script(file, len(cells), jobs or 1), nl=False)
        return
    if part is not None:
        cells = shard(cells, part)
    if listed:
        _list(cells, as_json)
        return
    if engine == "ray" and gpus_per_run is None:
        gpus_per_run = float(any(cell.settings["device"] == "cuda" for cell in cells))
    if jobs is None:
        jobs = len(cells) if engine == "ray" else _default_jobs(cells)
    room = Room(max(1, min(jobs, len(cells))), cpus_per_run, gpus_per_run, ray_address)
    _run(file, cells, engine, room, as_json, quiet)


def _default_jobs(cells: Sequence[Cell]) -> int:
    from pyg_lth.sweeps.processes import default_jobs

    # Runs of several seeds run these side by side themselves.
    several = any(cell.settings["seeds"] > 1 for cell in cells)
    return 1 if several else default_jobs(cell.settings["device"] for cell in cells)


def _run(file: Path, cells: list[Cell], name: str, room: Room, as_json: bool, quiet: bool) -> None:
    from pyg_lth.cli.sweep_display import choose_progress

    start = time.monotonic()
    engine = ENGINES[name](room)
    at_most = "" if name == "local" else " at most, by " + name
    title = f"{file}: {_runs(len(cells))}, {room.jobs} at a time{at_most}"
    context = click.get_current_context()
    try:
        with choose_progress(title, {cell.name: cell.folder for cell in cells}, quiet) as progress:
            results = run_cells(cells, _complete, _command, engine, progress)
    except KeyboardInterrupt:
        again = shell("pyg-lth", *sys.argv[1:])
        say(f"Interrupted. Continue with: {again}", err=True)
        context.exit(130)
    seconds = time.monotonic() - start
    if as_json:
        runs = [result.model_dump() for result in results]
        say(json.dumps({**_counts(results), "seconds": seconds, "runs": runs}, indent=2))
    else:
        _show(cells, results, seconds)
    context.exit(0 if all(result.state == "done" for result in results) else 1)


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Check the settings of a run and fill in the defaults."""
    try:
        return PruneSettings.model_validate(settings).model_dump(mode="json")
    except ValidationError as error:
        raise InputError(explain(error, str)) from None


def _command(cell: Cell, state: State) -> list[str]:
    """The command line that begins or continues a run."""
    return command_line(*_arguments(cell, state))


def _arguments(cell: Cell, state: State) -> list[str]:
    if state == "new":
        flags = written({name: cell.settings[name] for name in cell.given})
        return ["prune", *flags, "--out", str(cell.folder)]
    return ["prune", "--resume", str(cell.folder)]


def _list(cells: Sequence[Cell], as_json: bool) -> None:
    states: dict[str, str] = {}
    for cell in cells:
        try:
            states[cell.name] = read_state(cell, _complete)
        except InputError as error:
            states[cell.name] = f"unusable: {error}"
    if as_json:
        say(json.dumps([{"name": n, "state": s} for n, s in states.items()], indent=2))
        return
    width = max(map(len, states), default=0)
    for name, state in states.items():
        say(f"{name:<{width}}  {state}")


def _counts(results: Sequence[Result]) -> dict[str, int]:
    counts = Counter(result.state for result in results)
    before = sum(result.before for result in results)
    return {
        "done": counts["done"],
        "before": before,
        "failed": counts["failed"],
        "in_use": counts["in use"],
    }


def _show(cells: Sequence[Cell], results: Sequence[Result], seconds: float) -> None:
    """Print what came of the runs, those that are not done last, each with what to try."""
    from pyg_lth.cli.sweep_display import clock

    counts = _counts(results)
    text = f"{_runs(len(cells))}: {counts['done']} done"
    if counts["before"]:
        text += f" ({counts['before']} of them before)"
    for state, number in (("failed", counts["failed"]), ("in use", counts["in_use"])):
        if number:
            text += f", {number} {state}"
    say(f"{text}; {clock(seconds)}")
    for cell, result in zip(cells, results, strict=True):
        if result.state == "done":
            continue
        say(f"{result.state} {cell.name}: {result.reason}")
        if result.state == "in use":
            continue
        with contextlib.suppress(InputError):  # The reason says what to do with such a folder.
            state = read_state(cell, _complete)
            say(f"  try: {shell('pyg-lth', *_arguments(cell, state))}")


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _slurm_script(file: Path, cells: int, jobs: int) -> str:
    """A job array whose tasks do a shard each."""
    tasks = min(-(-cells // jobs), MOST_TASKS)
    return f"""\
#!/bin/bash
# {_runs(cells)} in {tasks} tasks. Add what the cluster asks for: --partition, --time, --mem.
# Tasks that fail or run out of time go on where they were when they are submitted again.
#SBATCH --job-name=pyg-lth-sweep
#SBATCH --array=1-{tasks}
#SBATCH --cpus-per-task={jobs}
#SBATCH --signal=B:INT@60
exec pyg-lth sweep {shlex.quote(str(file))} --shard "$SLURM_ARRAY_TASK_ID/{tasks}" \\
    --jobs "${{SLURM_CPUS_PER_TASK:-{jobs}}}"
"""
