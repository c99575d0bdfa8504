"""How a search shows its progress: a live table in a terminal or notebook, else plain lines."""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.callbacks import Callback
from pyg_lth.pruning.masks import Mask
from pyg_lth.reporting.terminal import Terminal
from pyg_lth.results.report import Popularity, RoundResult
from pyg_lth.results.text import percent
from pyg_lth.training.progress import EpochRecord
from pyg_lth.training.trainer import Training

# Few enough that a notebook does not fall behind a quick search.
SECONDS_A_DRAWING = 0.25

HTML = '<pre style="line-height: normal">{code}</pre>'

NAMES = ("round", "density", "epoch", "loss", "recall", "ndcg", "time")

# Columns that each column needs at most, two between them included.
NEEDED = 9


def _left_out(width: int) -> tuple[str, ...]:
    """What a narrow terminal has no room for, so that no cell is cut."""
    return ("loss", "time", "ndcg", "epoch")[: max(0, len(NAMES) - width // NEEDED)]


@contextlib.contextmanager
def show_progress(folder: str | Path | None) -> Iterator[Callback]:
    """Yield a callback that shows a search below the cell of a notebook, or else on stderr.

    Args:
        folder: The run folder, if there is one to tell of.
    """
    console = Terminal(stderr=True)
    if console.is_jupyter:
        yield NotebookProgress(folder)
    elif console.is_terminal:
        progress = LiveProgress(console, folder)
        with Live(console=console, get_renderable=progress.render, transient=True):
            yield progress
    else:
        yield PlainProgress(console, folder)


class PlainProgress(Callback):
    """One line for every evaluation and every round.

    Args:
        console: Where to print.
        folder: The run folder, if there is one to tell of.
    """

    def __init__(self, console: Console, folder: str | Path | None):
        self._console = console
        self._folder = folder

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """Say what is trained and where the files go."""
        self._config = config
        self._line(f"seed {config.seed}: {describe(split)}")
        if self._folder is not None:
            self._line(f"run folder {self._folder}")

    def on_popularity(self, popularity: Popularity) -> None:
        """Say how far popularity alone gets."""
        self._line(f"popularity ranking: test {_metrics(popularity.test)}")

    def on_auxiliary_start(self, training: Training, mask: Mask) -> None:
        """Say that this is no round."""
        self._line("a training that only finds masks:")
        self.on_round_start(training, mask)

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """Say how much is left to train."""
        progress = training.progress
        resumed = (
            f", continued at epoch {progress.epoch}" if progress.epoch or progress.step else ""
        )
        self._line(f"round {progress.round}: density {mask.density:.2%}{resumed}")

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell an evaluation."""
        metrics = getattr(record, self._config.select_on)
        if metrics is not None:
            self._line(
                f"round {record.round} epoch {record.epoch}: loss {record.loss:.4f}, "
                f"{self._config.select_on} {_metrics(metrics)}"
            )

    def on_refit_start(self, training: Training, mask: Mask) -> None:
        """Say that a round is trained once more."""
        self._line(f"refit on train and validation, {training.epochs} epochs:")
        self.on_round_start(training, mask)

    def on_refit_end(self, result: RoundResult) -> None:
        """Tell what that came to."""
        self._line(
            f"refit of round {result.round} done: {result.seconds:.1f} s, "
            f"test {_metrics(result.test)}"
        )

    def on_round_end(self, result: RoundResult) -> None:
        """Tell the result of a round."""
        self._line(
            f"round {result.round} done: best epoch {result.best_epoch} of {result.epochs}, "
            f"{result.seconds:.1f} s, test {_metrics(result.test)}"
        )


class LiveProgress(Callback):
    """A table of the rounds, the running one last, and the time left.

    Args:
        console: The terminal.
        folder: The run folder, if there is one to tell of.
    """

    def __init__(self, console: Console, folder: str | Path | None):
        self._console = console
        self._folder = folder
        self._header = Text("preparing the graph")
        self._rows: list[tuple[str, ...]] = []
        self._results: list[RoundResult] = []
        self._training: Training | None = None
        self._density = 1.0
        self._running = ""

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """Keep what the header and the estimate need."""
        self._config = config
        self._rounds = config.rounds if isinstance(config, PruneConfig) else 0
        about = f"{config.model}, seed {config.seed}, on {describe(split)}"
        where = "" if self._folder is None else f"\nrun folder {self._folder}"
        self._header = Text(about + where)

    def on_popularity(self, popularity: Popularity) -> None:
        """Show the ranking that every model has to beat."""
        metrics = popularity.test if self._config.select_on == "test" else popularity.valid
        self._rows.append(self._cells("popular", "", "", "", metrics, ""))

    def on_auxiliary_start(self, training: Training, mask: Mask) -> None:
        """Show the training as one that only finds masks."""
        self._show(training, mask, "masks")

    def on_refit_start(self, training: Training, mask: Mask) -> None:
        """Show the training as one on train and validation."""
        self._show(training, mask, "refit")

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """Show the round as the running one."""
        self._show(training, mask, self._name(training.progress.round))

    def _show(self, training: Training, mask: Mask, name: str) -> None:
        self._density, self._running = mask.density, name
        self._training = training

    def on_round_end(self, result: RoundResult) -> None:
        """Move the round to the finished ones."""
        metrics = result.test if self._config.select_on == "test" else result.valid
        history = self._training.progress.history if self._training else []
        self._rows.append(
            self._cells(
                self._name(result.round),
                f"{result.density:.2%}",
                f"{result.best_epoch}/{result.epochs}",
                f"{history[-1].loss:.4f}" if history else "",
                metrics,
                _duration(result.seconds),
            )
        )
        self._results.append(result)
        self._training = None

    def render(self) -> RenderableType:
        """Draw the state of this moment; called by the display's own thread."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        left_out = _left_out(self._console.width)
        for name in NAMES:
            if name not in left_out:
                table.add_column(name, justify="right", no_wrap=True)

        def shown(row: tuple[str, ...]) -> list[str]:
            cells = zip(NAMES, row, strict=True)
            return [cell for name, cell in cells if name not in left_out]

        room = max(3, self._console.height - 10)
        for row in self._rows[-room:]:
            table.add_row(*shown(row), style="dim")
        training = self._training
        if training is None:
            return Group(self._header, table) if self._rows else self._header
        progress = training.progress
        steps = training.problem.sampler.steps
        last = progress.history[-1] if progress.history else None
        spent = sum(record.seconds for record in progress.history) + progress.seconds
        table.add_row(
            *shown(
                self._cells(
                    self._running,
                    percent(self._density),
                    str(progress.epoch + 1),
                    f"{last.loss:.4f}" if last else "",
                    training.best_metrics,
                    _duration(spent),
                )
            ),
            style="bold",
        )
        bar = Table.grid(padding=(0, 1))
        room_for_bar = [ProgressBar(total=steps, completed=progress.step, width=20)]
        bar.add_row(
            f"epoch {progress.epoch + 1}",
            *(room_for_bar if not left_out else []),
            f"{progress.step}/{steps} steps",
            self._time_left(progress.round, progress.epoch + progress.step / steps, spent),
        )
        note = f"Recall and NDCG at {self._config.topk}: best so far on {self._config.select_on}"
        return Group(self._header, table, bar, Text(note, style="dim"))

    def _name(self, round: int) -> str:
        return "dense" if round == 0 else f"{round}/{self._rounds}"

    def _cells(
        self,
        name: str,
        density: str,
        epoch: str,
        loss: str,
        metrics: dict[str, float] | None,
        seconds: str,
    ) -> tuple[str, ...]:
        k = self._config.topk
        ranked = [f"{metrics[f'{name}@{k}']:.4f}" if metrics else "" for name in ("recall", "ndcg")]
        return (name, density, epoch, loss, *ranked, seconds)

    def _time_left(self, round: int, epochs: float, spent: float) -> str:
        """Estimate from the rounds so far; before the first is done, from the epochs allowed."""
        if epochs == 0:
            return ""
        if self._results:
            a_round = sum(result.seconds for result in self._results) / len(self._results)
            sign = "about"
        else:
            a_round = spent / epochs * self._config.max_epochs
            sign = "at most"
        left = max(0.0, a_round - spent) + (self._rounds - round) * a_round
        return f"{sign} {_duration(left)} left"


class NotebookProgress(LiveProgress):
    """The same table below the cell of a notebook, drawn anew as the search goes on.

    Args:
        folder: The run folder, if there is one to tell of.
    """

    def __init__(self, folder: str | Path | None):
        super().__init__(_paper(), folder)
        from IPython.display import display

        self._drawn = 0.0
        self._cell = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """Draw the header."""
        super().on_start(config, split)
        self._draw()

    def on_auxiliary_start(self, training: Training, mask: Mask) -> None:
        """Draw the running training."""
        super().on_auxiliary_start(training, mask)
        self._draw()

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """Draw the running round."""
        super().on_round_start(training, mask)
        self._draw()

    def on_refit_start(self, training: Training, mask: Mask) -> None:
        """Draw the running training."""
        super().on_refit_start(training, mask)
        self._draw()

    def on_epoch(self, record: EpochRecord) -> None:
        """Draw how far the round has come, unless that was done just now."""
        if time.monotonic() - self._drawn > SECONDS_A_DRAWING:
            self._draw()

    def on_round_end(self, result: RoundResult) -> None:
        """Draw the finished round."""
        super().on_round_end(result)
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._cell.update(self)

    def _repr_html_(self) -> str:
        paper = _paper()
        paper.print(self.render())
        return paper.export_html(inline_styles=True, code_format=HTML)

    def __repr__(self) -> str:
        paper = _paper()
        paper.print(self.render())
        return paper.export_text()


def _paper() -> Console:
    """Where a notebook's table is drawn: as long as it takes, and nothing is printed."""
    return Console(record=True, file=io.StringIO(), width=100, height=10_000, force_jupyter=False)


def describe(split: InteractionSplit) -> str:
    """The size of the graph in words."""
    valid = "" if split.valid is None else f", {split.valid.size(1):,} validation"
    return (
        f"{split.num_users:,} users, {split.num_items:,} items, {split.train.size(1):,} train"
        f"{valid}, {split.test.size(1):,} test"
    )


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
