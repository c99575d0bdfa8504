"""How a sweep shows its progress: a live table on a terminal, plain lines elsewhere."""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ValidationError
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pyg_lth.errors import InputError
from pyg_lth.reporting.terminal import Terminal
from pyg_lth.results.checksums import Checksums
from pyg_lth.sweeps.grid import judge
from pyg_lth.sweeps.processes import Outcome, Watcher

STYLES = {"running": "bold", "done": "dim", "failed": "red", "in use": "yellow", "waiting": "dim"}


@contextlib.contextmanager
def choose_progress(title: str, folders: Mapping[str, Path], quiet: bool) -> Iterator[Watcher]:
    """Yield the watcher that fits stderr: live on a terminal, lines elsewhere, or none.

    Args:
        title: What is run.
        folders: The run folder of each run, by its name.
        quiet: Whether to show nothing.
    """
    console = Terminal(stderr=True)
    if quiet:
        yield Watcher()
    elif console.is_terminal:
        progress = LiveProgress(console, title, list(folders))
        with Live(console=console, get_renderable=progress.render, transient=True):
            yield progress
    else:
        yield PlainProgress(console, title, folders)


class PlainProgress(Watcher):
    """A line for the beginning and the end of each run, and for the end of each of its rounds.

    Args:
        console: Where to print.
        title: The first line.
        folders: The run folder of each run, by its name.
    """

    def __init__(self, console: Terminal, title: str, folders: Mapping[str, Path]):
        self._console = console
        self._folders = folders
        # The rounds of each that had been done before, or were told since.
        self._told = {name: _rounds_done(folder, 0) for name, folder in folders.items()}
        self._ended = 0
        self._print(title)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def on_start(self, name: str) -> None:
        """Say that a run was started."""
        self._print(f"{name}: started")

    def on_line(self, name: str, line: str) -> None:
        """Look whether another round is done."""
        self._tell_rounds(name)

    def _tell_rounds(self, name: str) -> None:
        done = _rounds_done(self._folders[name], self._told[name])
        for round in range(self._told[name], done):
            said = _about_round(self._folders[name], round)
            self._print(f"{name}: round {round} done{said}")
        self._told[name] = done

    def on_loss(self, name: str) -> None:
        """Say that a run changes place."""
        self._print(f"{name}: its node was lost; it goes on on another")

    def on_end(self, name: str, outcome: Outcome) -> None:
        """Say how a run ended, and how many did."""
        self._tell_rounds(name)
        self._ended += 1
        if outcome.code == 0:
            text = f"done in {clock(outcome.seconds)}" if outcome.seconds else "done before"
        else:
            text = f"{judge(outcome)}: {outcome.reason}"
        self._print(f"{name}: {text} ({self._ended} of {len(self._folders)})")

    def on_interrupt(self) -> None:
        """Say what is waited for."""
        self._print("interrupted: the running ones save their state; Ctrl-C again ends them")


@dataclasses.dataclass
class _Row:
    name: str
    state: str = "waiting"
    line: str = ""
    start: float = 0.0
    seconds: float = 0.0


class LiveProgress(Watcher):
    """A table of the runs; of too many for the screen, those that run or did not succeed.

    Args:
        console: The terminal.
        title: The line above.
        names: Of all cells.
    """

    def __init__(self, console: Terminal, title: str, names: Sequence[str]):
        self._console = console
        self._title = title
        self._rows = {name: _Row(name) for name in names}
        self._start = time.monotonic()

    def on_start(self, name: str) -> None:
        """Show the run as a running one."""
        row = self._rows[name]
        row.start = time.monotonic()
        row.state = "running"

    def on_line(self, name: str, line: str) -> None:
        """Show what the run said last."""
        self._rows[name].line = line

    def on_loss(self, name: str) -> None:
        """Show that the run changes place."""
        self._rows[name].line = "its node was lost; it goes on on another"

    def on_end(self, name: str, outcome: Outcome) -> None:
        """Show how the run ended."""
        row = self._rows[name]
        row.seconds = outcome.seconds
        row.state = judge(outcome)
        if outcome.code:
            row.line = outcome.reason

    def on_interrupt(self) -> None:
        """Say what is waited for."""
        self._title = "Interrupted: the running ones save their state; Ctrl-C again ends them"

    def render(self) -> RenderableType:
        """Draw the state of this moment; called by the display's own thread."""
        now = time.monotonic()
        rows = list(self._rows.values())
        counts = Counter(row.state for row in rows)
        room = max(1, self._console.height - 6)
        if len(rows) > room:
            rows = [row for row in rows if row.state not in ("waiting", "done")]
            # Those that run are the last ones to be begun.
            rows = rows[-room:]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
        for name in ("run", "state", "last line"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        table.columns[-1].ratio = 1
        table.add_column("time", justify="right", no_wrap=True)
        for row in rows:
            seconds = now - row.start if row.state == "running" else row.seconds
            table.add_row(
                Text(_shorten(row.name, self._console.width // 2)),
                row.state,
                Text(row.line),
                clock(seconds) if seconds else "",
                style=STYLES[row.state],
            )
        told = ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])
        return Group(
            Text(self._title, no_wrap=True, overflow="ellipsis"),
            table,
            Text(f"{told}; {clock(now - self._start)}", no_wrap=True, overflow="ellipsis"),
        )


def _result(folder: Path, round: int) -> Path:
    return folder / f"round-{round:03d}" / "result.json"


class _Round(BaseModel):
    """What is shown of a round."""

    density: float
    test: dict[str, float]


def _about_round(folder: Path, round: int) -> str:
    """Density and metrics of a round, unless its file is damaged, which resuming tells."""
    path = _result(folder, round)
    try:
        found = _Round.model_validate_json(Checksums(folder).read(path))
    except (InputError, ValidationError):
        return ""
    metrics = (f"{key} {value:.4f}" for key, value in found.test.items())
    return ", ".join(["", f"density {found.density:.2%}", *metrics])


def _rounds_done(folder: Path, known: int) -> int:
    """How many rounds a run has finished, of which some are known."""
    while _result(folder, known).exists():
        known += 1
    return known


# timedelta counts no further than some million years.
MOST_SECONDS = 100 * 365.25 * 24 * 3600


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds."""
    if seconds > MOST_SECONDS:
        return "more than a century"
    return str(timedelta(seconds=round(seconds)))


def _shorten(name: str, width: int) -> str:
    """Leave out the beginning, which varies least."""
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]
