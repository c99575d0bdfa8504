"""Runs side by side by what their tickets weigh, with the ways that use no mask."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyg_lth.reporting.formats import Cell, Line, Table
from pyg_lth.reporting.frontier import TICKET, Frontier, Point, efficient, simpler
from pyg_lth.results.text import interval, percent, score, signed

# A method whose tickets need no places, and so count as a simpler way.
SIMPLE_METHODS = ("narrow",)


class Run(NamedTuple):
    """A run that is weighed.

    Args:
        label: What tells it from the others.
        method: How its masks were found.
        frontier: What was measured of it.
    """

    label: str
    method: str
    frontier: Frontier


class Weighed(NamedTuple):
    """A point of a curve.

    Args:
        name: Of its curve: the label of a run, or the way.
        point: What was measured.
        beaten_by: The simpler way that gets as much in no more bytes, with its name; :obj:`None`
            for what is itself simple, or beaten by none.
    """

    name: str
    point: Point
    beaten_by: "tuple[str, Point] | None"


def curves(runs: Sequence[Run]) -> dict[str, list[Weighed]]:
    """The efficient points of each run's tickets and of each simpler way, by name.

    Args:
        runs: The runs, of one metric. Dense models that are the same are taken once.
    """
    metric = runs[0].frontier.metric
    ways: dict[str, list[Point]] = {}
    seen: set[str] = set()
    for run in runs:
        simple = [point for point in run.frontier.points if point.way != TICKET]
        alike = repr([(point.way, point.values, point.bytes, point.test) for point in simple])
        suffix = f" of {run.label}" if seen else ""
        for point in simple if alike not in seen else []:
            ways.setdefault(f"{point.way}{suffix}", []).append(point)
        seen.add(alike)
    tickets = {
        run.label: [point for point in run.frontier.points if point.way == TICKET] for run in runs
    }
    for run in runs:
        if run.method in SIMPLE_METHODS:
            ways[run.label] = tickets.pop(run.label)

    def beaten(point: Point) -> "tuple[str, Point] | None":
        found = [
            (name, better)
            for name, points in ways.items()
            if (better := simpler(point, points, metric)) is not None
        ]
        return max(found, key=lambda f: (f[1].test[metric], -f[1].bytes), default=None)

    return {
        name: [
            Weighed(name, point, beaten(point) if name in tickets else None)
            for point in efficient(points, metric)
        ]
        for name, points in {**tickets, **ways}.items()
        if points
    }


def table(runs: Sequence[Run]) -> Table:
    """The curves as a table, a group of rows for each."""
    metric = runs[0].frontier.metric
    groups = [
        [Line(_head(weighed), list(_cells(weighed, metric))) for weighed in points]
        for points in curves(runs).values()
    ]
    return Table(
        f"{metric} on test, by bytes that scores need",
        ["stored as", "bytes", metric, "vs dense", "95% interval", "beaten by"],
        groups,
        _caption(runs),
    )


def to_csv(runs: Sequence[Run]) -> str:
    """All points of all runs, a line each, those included that others beat."""
    text = io.StringIO()
    metrics = list(runs[0].frontier.points[0].test)
    names = ["run", "way", "values", "round", "density", "bytes", *metrics, "relative", "low"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "high", "p_value"])
    for run in runs:
        for p in run.frontier.points:
            against = p.difference
            stored = [run.label, p.way, p.values, p.round, p.density, p.bytes]
            ends = [against.relative, against.low, against.high, against.p_value]
            writer.writerow([*stored, *(p.test[name] for name in metrics), *ends])
    return text.getvalue()


def to_json(runs: Sequence[Run]) -> str:
    """All that was measured, by run, and the sentences on it."""
    found = {run.label: run.frontier.model_dump(mode="json") for run in runs}
    return json.dumps({"runs": found, "notes": list(below(runs))}, indent=2) + "\n"


def below(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each run whose tickets a simpler way beats."""
    found = curves(runs)
    for run in runs:
        points = found.get(run.label, [])
        beaten = [weighed for weighed in points if weighed.beaten_by]
        if run.method in SIMPLE_METHODS or not points:
            continue
        if not beaten:
            yield f"{run.label}: no simpler way gets as much in as few bytes as its tickets."
        else:
            yield (
                f"{run.label}: of {len(points)} tickets that no other of it beats, {len(beaten)} "
                "lie below the line of a simpler way."
            )


def _head(weighed: Weighed) -> str:
    point = weighed.point
    share = f" {percent(point.density)}" if point.density < 1 else ""
    return f"{weighed.name}{share} {point.values}"


def _cells(weighed: Weighed, metric: str) -> Iterator[Cell]:
    point, difference = weighed.point, weighed.point.difference
    yield Cell(f"{point.bytes:,}")
    yield Cell(score(point.test[metric]))
    yield Cell() if difference.relative is None else Cell(signed(difference.relative))
    yield Cell(interval(difference, "..")) if difference.low is not None else Cell()
    yield Cell() if weighed.beaten_by is None else Cell(_head(Weighed(*weighed.beaten_by, None)))


def _caption(runs: Sequence[Run]) -> str:
    notes = dict.fromkeys(note for run in runs for note in run.frontier.notes)
    seeds = sorted({run.frontier.seed for run in runs})
    sentences = [
        f"Of seed {', '.join(map(str, seeds))}. What is stored is read back and ranked: quantised "
        "values as they are in the file. Bytes: values, places, scales, codebooks, the bias of "
        "items where they have one, and the train graph where a table has to be propagated; not "
        "ids, nor the items that lists leave out.",
        *below(runs),
        "Of each curve only the points that no other of it beats. beaten by: a way without a mask "
        "that gets at least as much in no more bytes; whether by more than chance is not tested.",
        *(f"{note.capitalize()}." for note in notes),
    ]
    return " ".join(sentences)
