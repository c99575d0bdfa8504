"""Figures of a search, or of several together, for a column of print."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from itertools import cycle
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pyg_lth import whole_files
from pyg_lth.errors import InputError
from pyg_lth.reporting.by_bytes import Run as Weighed
from pyg_lth.reporting.by_bytes import curves
from pyg_lth.results.report import Report, RoundResult, Ticket
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.results.text import BEYOND, title
from pyg_lth.training.progress import EpochRecord

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]
FORMATS: tuple[Format, ...] = ("png", "svg")

# Inches of a column in most journals, and the characters of a title that it has room for.
WIDTH = 3.5
CHARACTERS = 60

# Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow, which is too
# pale for a line. The markers tell runs apart where print has no colour.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REFERENCE = "#555555"
RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgewidth": 0.8,
}
# Learning curves have too many points for markers.
LINES = ("-", "-.", ":", (0, (8, 1)), (0, (3, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))

# Rounds drawn one by one where all of them would not be legible.
HANDFUL = 5

STYLE: dict[str, Any] = {
    "figure.dpi": 300,
    "savefig.dpi": 300,
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.ymargin": 0.08,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    # Names of folders are not formulas.
    "text.parse_math": False,
    # Identifiers in SVG are drawn at random otherwise.
    "svg.hashsalt": "pyg-lth",
}


class _Run(NamedTuple):
    """What is drawn of a run.

    Args:
        label: Its name in legends.
        report: Its report, of all seeds.
        first: The report of its first seed, which has an analysis.
        epochs: The records of the first seed's finished rounds.
        color: Of its lines, where several runs are drawn.
        marker: Of its points.
    """

    label: str
    report: Report
    first: Report
    epochs: list[EpochRecord]
    color: str
    marker: str


def figures(runs: Sequence[tuple[str, RunFolder]]) -> dict[str, "Figure"]:
    """Draw the figures of one run, or of several together.

    ``metric``: the deciding metric on test against density. ``epochs``: epochs to converge, and to
    be as good as the dense model, against density. ``beyond``: what the lists show beyond accuracy,
    against density. ``density_by_group``: density of the degree
    groups in a handful of rounds; of several runs, a figure each, ``density_by_group-LABEL``.
    ``learning``: the metric that chooses epochs against epochs, of a handful of rounds; of several
    runs, of the winner each. A figure that would be empty, such as those against density
    of a dense training, is left out. Of several seeds, the last two show the first one.

    Args:
        runs: Label and folder of each run.

    Returns:
        The figures by the names of their files, without suffix.

    Raises:
        InputError: If matplotlib is missing, a run has no report yet, or their metrics differ.
    """
    with _style():
        found = [_read(index, label, folder) for index, (label, folder) in enumerate(runs)]
        metrics = sorted({run.report.metric for run in found})
        if len(metrics) > 1:
            raise InputError(
                f"these runs decide on {' and '.join(metrics)}: plot runs with the same `topk`"
            )
        return dict(_draw(found))


def frontier(runs: Sequence[Weighed]) -> dict[str, "Figure"]:
    """Draw the metric against the bytes that answering takes, a curve for each run and each way.

    Args:
        runs: Runs that were weighed, of one metric.

    Returns:
        The figure, by its name.

    Raises:
        InputError: If matplotlib is missing.
    """
    with _style():
        return {"bytes": _bytes_figure(runs)}


def _bytes_figure(runs: Sequence[Weighed]) -> "Figure":
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    metric, own = runs[0].frontier.metric, {run.label for run in runs}
    figure, (axes,) = _canvas("What is stored is read back and ranked")
    colors, of_runs, of_ways = cycle(COLORS), cycle(MARKERS), cycle(MARKERS)
    handles: list[Artist] = []
    for name, points in curves(runs).items():
        # A run is a line of its own colour; what needs no mask is grey and dashed.
        color = next(colors) if name in own else REFERENCE
        marker = next(of_runs if name in own else of_ways)
        (line,) = axes.plot(
            [weighed.point.bytes / 1000 for weighed in points],
            [weighed.point.test[metric] for weighed in points],
            linestyle="-" if name in own else "--",
            linewidth=1.4 if name in own else 0.8,
            color=color,
            marker=marker,
            label=name,
        )
        handles.append(line)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, place: f"{size:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("KB that answering takes")
    axes.set_ylabel(f"Test {metric}")
    return _with_legend(figure, handles)


def render(figure: "Figure", format: Format) -> bytes:
    """Return the content of a figure's file: the same bytes for the same figure.

    Args:
        figure: A figure.
        format: Of the file. Text in SVG is drawn as paths, so that it needs no fonts.
    """
    buffer = BytesIO()
    # Neither the date nor the release of matplotlib.
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[format]
    with _style():
        figure.savefig(buffer, format=format, metadata=metadata)
    return buffer.getvalue()


def save(
    figures: Mapping[str, "Figure"],
    folder: Path,
    write: Callable[[Path, bytes], object] = whole_files.write,
) -> list[Path]:
    """Write figures as ``NAME.png`` and ``NAME.svg``, each to a temporary name and renamed.

    Args:
        figures: Figures by name.
        folder: Where to; made if need be.
        write: Writes a file.

    Returns:
        The files.
    """
    paths = []
    for name, figure in figures.items():
        for format in FORMATS:
            path = folder / f"{name}.{format}"
            write(path, render(figure, format))
            paths.append(path)
    return paths


def _style() -> AbstractContextManager[None]:
    """The style of all figures, whatever the user's own settings of matplotlib are."""
    try:
        from matplotlib import style
    except ImportError:
        raise InputError(
            'figures need matplotlib, which is not installed: pip install "pyg-lth[plots]"'
        ) from None
    return style.context(STYLE, after_reset=True)


def _read(index: int, label: str, folder: RunFolder) -> _Run:
    report = folder.read_report()
    several = report.config.get("seeds", 1) > 1
    own = folder.of_seed(report.seeds[0]) if several else folder
    first = own.read_report() if several else report
    turn, place = divmod(index, len(COLORS))
    return _Run(
        # Legends leave out what begins with an underscore.
        label=re.sub("^_", " _", label),
        report=report,
        first=first,
        epochs=own.read_epochs(1 + len(first.rounds)),
        color=COLORS[place],
        marker=MARKERS[(place + turn) % len(MARKERS)],
    )


def _draw(runs: Sequence[_Run]) -> Iterator[tuple[str, "Figure"]]:
    pruned = [run for run in runs if run.report.rounds]
    if pruned:
        yield "metric", _metric_figure(runs)
        yield "epochs", _epochs_figure(runs)
    looked_at = [run for run in pruned if run.report.dense.beyond]
    if looked_at:
        yield "beyond", _beyond_figure(looked_at)
    names = _file_names(pruned) if len(runs) > 1 else [""]
    for run, name in zip(pruned, names, strict=False):
        yield f"density_by_group{name}", _groups_figure(run)
    yield "learning", _learning_figure(runs)


def _file_names(runs: Sequence[_Run]) -> list[str]:
    names = ["-" + (re.sub(r"[^\w.]+", "-", run.label).strip("-")[:80] or "run") for run in runs]
    return [
        f"{name}-{number}" if names.count(name) > 1 else name
        for number, name in enumerate(names, start=1)
    ]


def _metric_figure(runs: Sequence[_Run]) -> "Figure":
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if len(runs) > HANDFUL:
        return _metric_panels(runs)
    figure, (axes,) = _canvas(_heading(runs, [run.report for run in runs]))
    metric = runs[0].report.metric
    handles = _legend_of_runs(runs)
    bounds = []
    for run in runs:
        results = [run.report.dense, *run.report.rounds]
        density = [result.density for result in results]
        value = [result.test[metric] for result in results]
        interval = [_interval(result, run.report.dense, metric) for result in results]
        low, high = map(list, zip(*interval, strict=True))
        axes.fill_between(density, low, high, color=run.color, alpha=0.2, linewidth=0)
        spread = [result.test_sd[metric] if result.test_sd else 0.0 for result in results]
        if any(spread):
            axes.errorbar(
                density, value, spread, fmt="none", ecolor=run.color, elinewidth=0.8, capsize=2
            )
        _draw_tickets(axes, run, value)
        ends = [v + sign * s for v, s in zip(value, spread, strict=True) for sign in (-1, 1)]
        bounds += [bound for bound in [*low, *high, *ends] if not isnan(bound)]
    dense = _references(axes, runs, "dense model", "--", lambda run: run.report.dense.test[metric])
    popular = _references(
        axes, runs, "popularity", ":", lambda run: run.report.popularity.test[metric]
    )
    if _fit_height(axes, bounds, [run.report.popularity.test[metric] for run in runs]):
        popular.set_label(f"{popular.get_label()}, below")
    _density_axis(axes)
    axes.set_ylabel(f"Test {metric}")
    for run in runs if len(runs) == 1 else ():
        if winner := _winner(run.report):
            place = winner.density, winner.test[metric]
            text = _percent(winner.density)
            axes.annotate(text, place, (0, 9), textcoords="offset points", ha="center", fontsize=7)
    handles += [dense, popular, Patch(color=REFERENCE, alpha=0.3, lw=0, label="95% interval")]
    if any(run.report.dense.test_sd for run in runs):
        bar: dict[str, Any] = {
            "linestyle": "none",
            "color": REFERENCE,
            "marker": "|",
            "markersize": 9,
        }
        handles.append(Line2D([], [], **bar, label="± 1 SD over seeds"))
    return _with_legend(figure, handles)


def _metric_panels(runs: Sequence[_Run]) -> "Figure":
    """A panel for each run, with the others in grey behind it."""
    from matplotlib.lines import Line2D

    rows = -(-len(runs) // 2)
    figure, panels = _canvas(_heading(runs, [run.report for run in runs]), rows, 2)
    metric = runs[0].report.metric
    curves = [
        (
            [result.density for result in (run.report.dense, *run.report.rounds)],
            [result.test[metric] for result in (run.report.dense, *run.report.rounds)],
        )
        for run in runs
    ]
    for axes, run in zip(panels, runs, strict=False):
        for density, value in curves:
            axes.plot(density, value, color=REFERENCE, alpha=0.35, linewidth=0.6)
        _draw_in_panel(axes, run, curves[runs.index(run)][1])
        axes.axhline(run.report.dense.test[metric], color=REFERENCE, linestyle="--", linewidth=0.8)
        axes.set_title(textwrap.fill(run.label, 24), color=run.color, fontsize=6.5)
    for axes in panels[len(runs) :]:
        axes.set_visible(False)
    for axes in panels[0 : len(runs) : 2]:
        axes.set_ylabel(f"Test {metric}")
    for axes in panels[: len(runs) - 2]:
        axes.set_xlabel("")
    marks: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": REFERENCE}
    return _with_legend(
        figure,
        [
            Line2D([], [], **marks, label="wins"),
            Line2D([], [], **marks, markerfacecolor="white", label="does not win"),
            Line2D([], [], color=REFERENCE, linestyle="--", label="its dense model"),
            Line2D([], [], color=REFERENCE, alpha=0.35, linewidth=0.6, label="the other runs"),
        ],
    )


def _fit_height(axes: "Axes", curves: Sequence[float], popularity: Sequence[float]) -> bool:
    """Leave out popularity so far below the curves that it would flatten them, and say if so."""
    low, height = min(curves), max(curves) - min(curves)
    near = [value for value in popularity if value >= low - height]
    if height == 0 or len(near) == len(popularity):
        return False
    axes.set_ylim(min([low, *near]) - 0.08 * height, max([*curves, *near]) + 0.08 * height)
    return True


def _interval(result: RoundResult, dense: RoundResult, metric: str) -> tuple[float, float]:
    """The interval of a round's metric: that of the relative difference times dense's mean."""
    mean, difference = dense.test[metric], result.difference
    if difference is None:
        return mean, mean
    if difference.low is None or difference.high is None:
        return nan, nan
    return mean * (1 + difference.low), mean * (1 + difference.high)


def _epochs_figure(runs: Sequence[_Run]) -> "Figure":
    figure, (best, reached) = _canvas(_heading(runs, [run.report for run in runs]), rows=2)
    for axes in (best, reached):
        dense = _references(
            axes, runs, "dense's best epoch", "--", lambda run: run.report.dense.best_epoch
        )
    for run in runs:
        of_dense, rounds = run.report.dense.best_epoch, run.report.rounds
        _draw_tickets(best, run, [of_dense, *(ticket.best_epoch for ticket in rounds)])
        epochs = [ticket.epochs_to_dense for ticket in rounds]
        _draw_tickets(reached, run, [of_dense, *(nan if e is None else e for e in epochs)])
    best.set_ylabel("Best epoch")
    reached.set_ylabel("Epochs to dense")
    for axes in (best, reached):
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
    _density_axis(reached)
    return _with_legend(figure, [*_legend_of_runs(runs), dense])


def _beyond_figure(runs: Sequence[_Run]) -> "Figure":
    """A panel for each thing that lists show, in the order of the report's table."""
    figure, panels = _canvas(_heading(runs, [run.report for run in runs]), 2, 2, share_y=False)
    for axes, name in zip(panels, BEYOND, strict=True):
        for run in runs:
            key = f"{name}@{run.report.config['topk']}"
            rounds = (run.report.dense, *run.report.rounds)
            _draw_in_panel(axes, run, [(found.beyond or {}).get(key, nan) for found in rounds])
        axes.set_ylabel(name.replace("_", " ").capitalize())
    for axes in panels[:2]:
        axes.set_xlabel("")
    return _with_legend(figure, _legend_of_runs(runs))


def _groups_figure(run: _Run) -> "Figure":
    figure, panels = _canvas(_heading([run], [run.first]), columns=2)
    chosen = _handful(run.first)
    for axes, side in zip(panels, ("user", "item"), strict=True):
        for ticket, style in zip(chosen, _sequence(len(chosen)), strict=True):
            assert ticket.analysis is not None
            found = getattr(ticket.analysis, f"density_by_{side}_group")
            density = [nan if value is None else value for value in found]
            axes.plot(range(1, len(density) + 1), density, **style, label=_percent(ticket.density))
        axes.set_xlabel(f"{side} groups by degree,\nlow to high".capitalize())
        axes.set_xticks(range(1, len(density) + 1, 3))
    _density_scale(panels)
    panels[0].set_ylabel("Remaining parameters")
    return _with_legend(figure, panels[0].get_lines(), heading="Remaining in all groups")


def _learning_figure(runs: Sequence[_Run]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _canvas(_heading(runs, [run.first for run in runs]))
    for run, result, label, style in _of_one(runs[0]) if len(runs) == 1 else _of_several(runs):
        epoch, value = _curve(run, result.round)
        best = [index for index, number in enumerate(epoch) if number == result.best_epoch]
        loses = isinstance(result, Ticket) and not result.wins
        fill: dict[str, Any] = {"markerfacecolor": "white"} if loses else {}
        axes.plot(epoch, value, **style, **fill, markevery=best, label=label)
    splits = sorted({run.first.config["select_on"] for run in runs}, reverse=True)
    names = {"valid": "validation", "test": "test"}
    split = " or ".join(names[split] for split in splits).capitalize()
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{split} {runs[0].report.metric}")
    heading = "Marked at the best epoch"
    if len(runs) > 1:
        heading = "Dense models and winners, marked at the best epoch"
    elif runs[0].first.rounds:
        heading = "Remaining parameters, marked at the best epoch\n(filled: wins, hollow: does not)"
    return _with_legend(figure, axes.get_lines(), heading)


def _of_one(run: _Run) -> Iterator[tuple[_Run, RoundResult, str, dict[str, Any]]]:
    """The learning curves to draw of a single run."""
    chosen = _handful(run.first)
    yield run, run.first.dense, "dense", {"color": "black", "linestyle": "--", "marker": "*"}
    for ticket, style in zip(chosen, _sequence(len(chosen)), strict=True):
        yield run, ticket, _percent(ticket.density), style


def _of_several(runs: Sequence[_Run]) -> Iterator[tuple[_Run, RoundResult, str, dict[str, Any]]]:
    """The learning curves to draw of several runs."""
    same = all(_curve(run, 0) == _curve(runs[0], 0) for run in runs)
    for run in runs[:1] if same else runs:
        color = REFERENCE if same else run.color
        style: dict[str, Any] = {"color": color, "linestyle": "--", "marker": "*"}
        label = "dense" if same else f"{run.label}, dense" if run.first.rounds else run.label
        yield run, run.first.dense, label, style
    for run, linestyle in zip(runs, cycle(LINES), strict=False):
        if winner := _winner(run.first):
            style = {"color": run.color, "linestyle": linestyle, "marker": run.marker}
            yield run, winner, f"{run.label}, {_percent(winner.density)}", style


def _curve(run: _Run, round: int) -> tuple[list[int], list[float]]:
    """Epochs at which a round was evaluated, and the metric that chooses among them."""
    metric, split = run.report.metric, run.first.config["select_on"]
    evaluated = [(r.epoch, getattr(r, split)) for r in run.epochs if r.round == round]
    points = [(epoch, found[metric]) for epoch, found in evaluated if found]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _handful(report: Report) -> list[Ticket]:
    """A handful of rounds from first to last, and the winner."""
    last = len(report.rounds) - 1
    indices = {round(last * step / (HANDFUL - 1)) for step in range(HANDFUL)}
    winner = _winner(report)
    return [
        ticket for index, ticket in enumerate(report.rounds) if index in indices or ticket == winner
    ]


def _winner(report: Report) -> Ticket | None:
    winner = report.winner
    return next((t for t in report.rounds if winner and t.round == winner.round), None)


def _sequence(length: int) -> list[dict[str, Any]]:
    """Styles of lines in an order: the lighter, the later."""
    from matplotlib import colormaps

    shades = [0.85 * index / max(1, length - 1) for index in range(length)]
    return [
        {"color": colormaps["viridis"](shade), "marker": MARKERS[index % len(MARKERS)]}
        for index, shade in enumerate(shades)
    ]


def _draw_tickets(axes: "Axes", run: _Run, values: Sequence[float]) -> None:
    """Draw a value of the dense model and of each ticket, winners filled, losers hollow."""
    rounds = run.report.rounds
    density = [result.density for result in [run.report.dense, *rounds]]
    axes.plot(density, values, color=run.color, label=run.label)
    x, y = np.array(density[1:]), np.array(values[1:])
    wins = np.array([ticket.wins for ticket in rounds], dtype=bool)
    sparsest = np.array([ticket == _winner(run.report) for ticket in rounds], dtype=bool)
    hollow = {"markerfacecolor": "white"}
    for label, among, style in (("wins", wins, {}), ("does not win", ~wins, hollow)):
        points: dict[str, Any] = {"linestyle": "none", "marker": run.marker, **style}
        axes.plot(x[among], y[among], color=run.color, label=f"{run.label}: {label}", **points)
    label = f"{run.label}: winner"
    axes.plot(x[sparsest], y[sparsest], color=run.color, label=label, **RING)


def _references(
    axes: "Axes",
    runs: Sequence[_Run],
    label: str,
    linestyle: Literal["--", ":"],
    value_of: Callable[[_Run], float],
) -> "Artist":
    """Draw a horizontal line of each run, or a single one if all are equal, for the legend."""
    from matplotlib.lines import Line2D

    values = [value_of(run) for run in runs]
    if len(set(values)) == 1:
        label += f" {values[0]:.4g}"
        line = axes.axhline(values[0], color=REFERENCE, linestyle=linestyle, linewidth=0.9)
        line.set_label(label)
        return line
    for run, value in zip(runs, values, strict=True):
        axes.axhline(
            value,
            color=run.color,
            linestyle=linestyle,
            linewidth=0.9,
            marker=run.marker,
            markersize=3,
            markevery=[1],
            clip_on=False,
            label=f"{run.label}: {label}",
        )
    return Line2D([], [], color=REFERENCE, linestyle=linestyle, linewidth=0.9, label=label)


def _legend_of_runs(runs: Sequence[_Run]) -> list["Artist"]:
    """Which run is which, and which tickets win."""
    from matplotlib.lines import Line2D

    several = len(runs) > 1
    color = REFERENCE if several else runs[0].color
    point = {"linestyle": "none", "marker": MARKERS[0]}

    def handle(label: str, **style: Any) -> Line2D:
        return Line2D([], [], **{"color": color, "label": label, **style})

    handles: list[Artist] = []
    for run in runs if several else ():
        winner = _winner(run.report)
        label = f"{run.label}, wins to {_percent(winner.density)}" if winner else run.label
        linestyle = "-" if run.report.rounds else "--"
        handles.append(handle(label, color=run.color, marker=run.marker, linestyle=linestyle))
    verdicts = {ticket.wins for run in runs for ticket in run.report.rounds}
    if True in verdicts:
        handles.append(handle("wins", **point))
    if False in verdicts:
        handles.append(handle("does not win", **point, markerfacecolor="white"))
    if any(run.report.winner for run in runs):
        handles.append(handle("winner", **RING))
    return handles


def _heading(runs: Sequence[_Run], reports: Sequence[Report]) -> str:
    """The settings that all have in common, and which were selected on test."""
    # Seeds, which follow a comma too, stay together.
    settings = [re.split(r", (?=[a-z])", title(report)) for report in reports]
    shared = [name for name in settings[0] if all(name in other for other in settings)]
    lines = textwrap.wrap(", ".join(shared), CHARACTERS)
    on_test = [run.label for run in runs if run.report.config["select_on"] == "test"]
    if len(on_test) == len(runs):
        lines.append("SELECTED ON TEST")
    elif on_test:
        lines += textwrap.wrap("SELECTED ON TEST: " + ", ".join(on_test), CHARACTERS)
    return "\n".join(lines)


def _canvas(
    heading: str, rows: int = 1, columns: int = 1, share_y: bool = True
) -> tuple["Figure", list["Axes"]]:
    # Without pyplot a figure needs no display, and goes when nobody holds it any more.
    from matplotlib.figure import Figure

    height = 1.9 if rows == 1 else 1.5 * rows
    figure = Figure(figsize=(WIDTH, height + 0.13 * heading.count("\n")), layout="constrained")
    figure.suptitle(heading, color=REFERENCE)
    panels = figure.subplots(
        rows, columns, sharex=True, sharey=share_y and columns > 1, squeeze=False
    )
    return figure, list(panels.flat)


def _with_legend(figure: "Figure", handles: Sequence["Artist"], heading: str = "") -> "Figure":
    """Add a legend below everything, and the height that it needs."""
    labels = [textwrap.fill(str(handle.get_label()), CHARACTERS - 16) for handle in handles]
    columns = min(3, max(1, CHARACTERS // (max(map(len, labels)) + 6)), len(handles))
    legend = figure.legend(
        handles=handles,
        labels=labels,
        loc="outside lower center",
        ncols=columns,
        title=heading or None,
    )
    legend.get_title().set_multialignment("center")
    lines = -(-sum(label.count("\n") + 1 for label in labels) // columns)
    lines += len(heading.splitlines())
    figure.set_figheight(figure.get_figheight() + 0.3 + 0.14 * lines)
    # Each layout starts from the one before, so that a second file would differ from a first.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _draw_in_panel(axes: "Axes", run: _Run, values: Sequence[float]) -> None:
    """As :func:`_draw_tickets`, where there is less room."""
    _draw_tickets(axes, run, values)
    for line in axes.lines[-4:]:
        line.set_markersize(0.6 * line.get_markersize())
    _density_axis(axes, narrow=True)


def _density_axis(axes: "Axes", narrow: bool = False) -> None:
    """Make x the density, denser to the left as in the literature on lottery tickets."""
    axes.set_xscale("log")
    # A layout does not make room for a label that is wider than its panel.
    axes.set_xlabel("Remaining\nparameters" if narrow else "Remaining parameters")
    # Panels share the axis, which another may have turned round.
    low, high = sorted(axes.get_xlim())
    axes.set_xlim(high, low)
    _percent_ticks(axes.xaxis, low, high, narrow=narrow)


def _density_scale(panels: Sequence["Axes"]) -> None:
    """Make the shared y logarithmic, down to a linear last step to 0, where groups died out."""
    lines = [line for axes in panels for line in axes.get_lines()]
    density = [value for line in lines for value in np.asarray(line.get_ydata()).tolist()]
    low, high = min(value for value in density if value > 0), max(density)
    if 0 in density:
        panels[0].set_yscale("symlog", linthresh=low, linscale=0.5)
        panels[0].set_ylim(-0.1 * low, 1.2 * high)
    else:
        panels[0].set_yscale("log")
    _percent_ticks(panels[0].yaxis, low, high, zero=0 in density)


def _percent_ticks(
    axis: "Axis", low: float, high: float, zero: bool = False, narrow: bool = False
) -> None:
    """Label a logarithmic axis with round percentages."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    span = np.log10(high / low)
    finest = (range(1, 10), (1, 2, 3, 4, 6, 8), (1, 2, 5), (1, 3), (1,))
    for base, steps in [*((10, steps) for steps in finest), (100, (1,))]:
        locator = LogLocator(base, steps, numticks=20)
        ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        # The share of the axis that a label takes, by its characters.
        characters = max((len(_percent(tick)) for tick in ticks), default=0)
        if all(np.diff(np.log10(ticks)) > characters * (0.06 if narrow else 0.022) * span):
            break
    axis.set_major_locator(FixedLocator([0, *ticks]) if zero else locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
