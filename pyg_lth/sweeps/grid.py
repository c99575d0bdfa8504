"""A sweep: one file describes a grid of settings, and every cell of it is a run of its own."""

import contextlib
import dataclasses
import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pyg_lth.config import BEFORE
from pyg_lth.errors import IN_USE, InputError, RunWarning
from pyg_lth.results.checksums import Checksums, Damaged
from pyg_lth.results.kept_settings import read_kept_settings
from pyg_lth.settings_file import read_settings
from pyg_lth.sweeps.engines import Engine
from pyg_lth.sweeps.processes import Command, Outcome, Watcher
from pyg_lth.whole_files import parse_json

Settings = dict[str, Any]
State = Literal["new", "begun", "done"]
Complete = Callable[[Settings], Settings]
"""Checks settings and fills in the defaults; raises InputError."""

REMEDIES = {
    "dict_type": "write one 'name: value' a line",
    "extra_forbidden": "there is no such key; the keys are out, settings and grid",
    "list_type": "write a list of its values, as in [0, 1]",
    "missing": "this key is missing",
    "string_type": "write one word or number",
    "too_short": "there is nothing in it",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination of the grid.

    Args:
        name: Made of its values of the grid.
        folder: Of its run.
        given: Names of the settings that the file gives.
        settings: All settings, defaults included, as a run keeps them.
    """

    name: str
    folder: Path
    given: tuple[str, ...]
    settings: Settings


class Result(BaseModel):
    """What came of a cell.

    Args:
        name: The cell's.
        folder: Of its run.
        state: ``in use``: another process has its folder.
        before: Whether it was done already.
        seconds: How long it ran this time.
        reason: Why it failed, in one line.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    folder: str
    state: Literal["done", "failed", "in use"]
    before: bool = False
    seconds: float = 0.0
    reason: str | None = None


class _File(BaseModel):
    """The form of a sweep's file, in which every value but null is still text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str
    settings: dict[str, str | None] = {}
    grid: dict[str, Annotated[list[str | None], Field(min_length=1)]] = Field(min_length=1)


def read_cells(file: Path, complete: Complete) -> list[Cell]:
    """Read the cells of a sweep, in the order of the file; the last key varies fastest.

    Args:
        file: YAML or JSON with ``out``, the folder of the runs; ``settings``, which all cells
            share; and ``grid``, a list of values for each of the other settings.
        complete: Checks the settings of a cell and fills in the defaults.

    Raises:
        InputError: If the file is no such file, a cell's settings are refused, or two cells would
            have the same name.
    """
    content = _read(file)
    for key in content.grid.keys() & content.settings.keys():
        raise InputError(f"{file}: {key} is in settings and in grid: leave one of them out")
    cells: dict[str, Cell] = {}
    for values in itertools.product(*content.grid.values()):
        chosen = dict(zip(content.grid, values, strict=True))
        name = "-".join(_label(key, value) for key, value in chosen.items())
        if name in cells:
            raise InputError(
                f"{file}: two cells of the grid would be called {name}: leave one of them out, or "
                "rename a file"
            )
        given = {k: v for k, v in {**content.settings, **chosen}.items() if v is not None}
        try:
            settings = complete(given)
        except InputError as error:
            raise InputError(f"{file}: {error} (cell {name})") from None
        cells[name] = Cell(name, Path(content.out, name), tuple(given), settings)
    return list(cells.values())


def shard(cells: Sequence[Cell], which: str) -> list[Cell]:
    """The share of one of several machines.

    Args:
        cells: All cells.
        which: ``i/n``, ``i`` from 1 to ``n``: every n-th cell, from the i-th on.

    Raises:
        InputError: If it isn't.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", which)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"shard {which}: write i/n with i from 1 to n, as in 2/5")
    return list(cells[int(match[1]) - 1 :: int(match[2])])


def read_state(cell: Cell, complete: Complete) -> State:
    """How far the run of a cell has come.

    Args:
        cell: The cell.
        complete: Fills in the settings that are younger than the run.

    Raises:
        InputError: If the folder holds a run of other settings, or a damaged one.
    """
    path = cell.folder / "config.json"
    checksums = Checksums(cell.folder)
    if not checksums.there_or_missed(path):
        return "new"
    settings = read_kept_settings(cell.folder, checksums)
    try:
        kept = complete({**BEFORE, **settings})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for name in sorted(kept.keys() | cell.settings.keys()):
        if kept.get(name) != cell.settings.get(name):
            raise InputError(
                f"{cell.folder} holds a run with {name} {kept.get(name)}, not "
                f"{cell.settings.get(name)}: delete it, or choose another out"
            )
    report = _read_report(cell.folder / "report.json", checksums)
    # It is written after every round, and after every seed.
    last_round = _length(report, "rounds") == kept["rounds"] or report.get("ended")
    last_seed = _length(report, "seeds") == kept["seeds"]
    refitted = report.get("refit") or not kept["refit"]
    return "done" if last_round and last_seed and refitted else "begun"


def _read_report(path: Path, checksums: Checksums) -> dict[str, Any]:
    """The report of a run, empty where there is none, or a damaged one: then the run goes on."""
    if not checksums.there_or_missed(path):
        return {}
    try:
        return parse_json(checksums.read(path), path)
    except Damaged as error:
        warnings.warn(str(error), RunWarning, stacklevel=2)
        return {}


def _length(report: dict[str, Any], name: str) -> int:
    """How many entries a report has under a name."""
    found = report.get(name)
    return len(found) if isinstance(found, list) else 0


def run_cells(
    cells: Sequence[Cell],
    complete: Complete,
    command: Callable[[Cell, State], Sequence[str]],
    engine: Engine,
    watcher: Watcher,
) -> list[Result]:
    """Run all cells that are not done, each by itself; when one fails, the rest go on.

    Args:
        cells: The cells.
        complete: As in :func:`read_state`.
        command: The command line that begins the run of a cell, or continues it.
        engine: What runs them.
        watcher: Hears of the progress of each cell by its name, also of those done before.

    Returns:
        A result for each cell.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when the running cells have saved their state.
    """
    settled: dict[str, Outcome] = {}

    def commands() -> Iterator[Command]:
        # A cell's state is read when its turn comes: another sweep may have run it by then.
        for cell in cells:
            try:
                state = read_state(cell, complete)
            except InputError as error:
                settled[cell.name] = Outcome(2, 0.0, str(error))
            else:
                if state != "done":
                    again = functools.partial(_go_on, cell, complete, command)
                    yield Command(cell.name, command(cell, state), again)
                    continue
                settled[cell.name] = Outcome(0, 0.0, "")
            watcher.on_end(cell.name, settled[cell.name])

    ran = engine.run(commands(), watcher)
    return [_result(cell, (ran | settled)[cell.name], cell.name in ran, complete) for cell in cells]


def _go_on(
    cell: Cell, complete: Complete, command: Callable[[Cell, State], Sequence[str]]
) -> Sequence[str]:
    """The command line for a cell whose machine was lost, from what is in its folder."""
    return command(cell, read_state(cell, complete))


def judge(outcome: Outcome) -> Literal["done", "failed", "in use"]:
    """What an outcome makes of its cell."""
    if outcome.code == 0:
        return "done"
    return "in use" if outcome.code == IN_USE else "failed"


def _result(cell: Cell, outcome: Outcome, ran: bool, complete: Complete) -> Result:
    state, before = judge(outcome), not ran
    if state == "in use":
        # The other process may have done it in the meantime, or begun a run of other settings.
        with contextlib.suppress(InputError):
            if read_state(cell, complete) == "done":
                state, before = "done", True
    return Result(
        name=cell.name,
        folder=str(cell.folder),
        state=state,
        before=state == "done" and before,
        seconds=outcome.seconds,
        reason=None if state == "done" else outcome.reason,
    )


def _read(file: Path) -> _File:
    content = read_settings(file)
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = " ".join(str(part) for part in problem["loc"] if not isinstance(part, int))
        remedy = REMEDIES.get(problem["type"], problem["msg"])
        raise InputError(f"{file}: {place}: {remedy}") from None


def _label(key: str, value: str | None) -> str:
    """A value as part of a folder's name: a word alone, a number with its key."""
    if value is None:
        return f"{key}none"
    try:
        float(value)
    except ValueError:
        stem = re.sub(r"(\.[^\W\d]\w*)+$", "", Path(value).name)
        return re.sub(r"[^\w.+-]+", "_", stem).strip(".") or key
    return f"{key}{value}"
