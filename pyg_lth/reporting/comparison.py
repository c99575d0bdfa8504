"""Runs side by side at equal density."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from pyg_lth.errors import encodable
from pyg_lth.evaluation.degree_groups import overlap
from pyg_lth.lottery import evidence
from pyg_lth.lottery.methods import METHODS
from pyg_lth.nn.backbones import BACKBONES
from pyg_lth.pruning.masks import Mask
from pyg_lth.results.report import Popularity, Report, RoundResult, Ticket, Winner
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.results.text import title
from pyg_lth.training.losses import LOSSES

if TYPE_CHECKING:
    import pandas as pd

# How far apart, relatively, the densities of tables of unequal size may be to count as equal.
SAME_DENSITY = 1e-3

# Settings whose values speak for themselves.
WORDS = ("method", "model", "loss", "dataset")

# Settings that shape no figure of a round: they label a run only where nothing else does.
LEAST = ("root", "propagation", "device", "rounds")


class Run(BaseModel):
    """One of the runs that are compared.

    Args:
        label: What tells it from the others.
        folder: Where it is.
        title: Its main settings.
        config: All its settings.
        seeds: The seeds that it has results of; with several, the figures are means.
        metric: Key of the metric that decides, on test.
        dense: Round 0, the dense model.
        popularity: The ranking that a ticket has to beat.
        winner: The winner to name: see :attr:`~pyg_lth.results.report.Report.winner`.
        strict_winner: The same in the strict reading.
        dense_converged: Whether the dense model stopped by itself, under every seed.
        sparsest_winner: The sparsest that wins on test; :obj:`None` where no ticket does.
        sparsest_strict_winner: The same in the strict reading.
        winner_cost_seconds: Time of all trainings that it takes to get the winner to name from
            nothing, in seconds.
        seconds: Time of all trainings of the run, of one seed, in seconds.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    folder: str
    title: str
    config: dict[str, Any]
    seeds: list[int]
    metric: str
    dense: RoundResult
    popularity: Popularity
    winner: Winner | None
    strict_winner: Winner | None
    dense_converged: bool
    sparsest_winner: Winner | None
    sparsest_strict_winner: Winner | None
    winner_cost_seconds: float | None
    seconds: float


class Entry(Ticket):
    """The ticket of one run at a density.

    Args:
        best: Whether its metric is the highest of its row; always :obj:`False` where no other run
            has a ticket there, or the figures cannot be compared.
    """

    best: bool


class Row(BaseModel):
    """What the runs came to at one density.

    Args:
        density: Share of living entries, in [0, 1].
        entries: One for each run, :obj:`None` where it has no ticket of this density.
    """

    model_config = ConfigDict(frozen=True)

    density: float
    entries: list[Entry | None]


class Agreement(BaseModel):
    """How far the masks of two runs agree at one density, or those of the seeds of one run.

    Args:
        density: Share of living entries, in [0, 1].
        first: Label of a run.
        second: Label of the other; the same label for the seeds of one run.
        seeds: The pairs of seeds that the figures are means over.
        jaccard: Entries that live in both, as a share of those that live in either.
        chance: What that is expected to be for random masks of these densities.
    """

    model_config = ConfigDict(frozen=True)

    density: float
    first: str
    second: str
    seeds: list[tuple[int, int]]
    jaccard: float
    chance: float


class Comparison(BaseModel):
    """Runs side by side.

    Args:
        runs: The runs.
        rows: One for each density, the highest first.
        agreements: Of the masks; :obj:`None` where they were not asked for.
        notes: What a reader must know before reading any figure, a sentence each.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.PruneConfig(model="mf", dim=8, max_epochs=5, rounds=2)
        >>> report = pyg_lth.find_tickets(data, config, run_dir="runs/one")
        >>> frame = pyg_lth.compare_runs(["runs/one"]).to_frame()
        >>> frame[["round", "remaining"]].values.tolist()
        [[0, 1440], [1, 1296], [2, 1167]]
    """

    model_config = ConfigDict(frozen=True)

    runs: list[Run]
    rows: list[Row]
    agreements: list[Agreement] | None
    notes: list[str]

    def to_json(self) -> str:
        """All of it as JSON, without the analyses, which are each run's own."""
        own = {"analysis"}
        left_out: dict[str, Any] = {
            "runs": {"__all__": {"dense": own}},
            "rows": {"__all__": {"entries": {"__all__": own}}},
        }
        return self.model_dump_json(indent=2, exclude=left_out) + "\n"

    def to_frame(self) -> "pd.DataFrame":
        """A table of pandas with a row for each round of each run, the columns those of the CSV."""
        import pandas as pd

        from pyg_lth.reporting import formats

        return pd.DataFrame(formats.lines(self))

    def __repr__(self) -> str:
        labels = ", ".join(run.label for run in self.runs)
        return f"Comparison({len(self.runs)} runs at {len(self.rows)} densities: {labels})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from pyg_lth.reporting import formats
        from pyg_lth.results import notebook

        parts = [notebook.paragraph(formats.heading(self), strong=True)]
        parts += [notebook.paragraph(note, strong=True) for note in self.notes]
        for table in formats.tables(self, best="an arrow"):
            rows = [
                [line.head, *(f"{'→ ' * cell.best}{cell.text}{cell.mark}" for cell in line.cells)]
                for group in table.groups
                for line in group
            ]
            parts += [notebook.paragraph(table.title), notebook.table(table.columns, rows)]
            parts.append(notebook.paragraph(table.caption))
        return "".join(parts)


def compare_runs(run_dirs: Sequence[str | Path], with_overlap: bool = False) -> Comparison:
    """Lay runs side by side at equal density, each called by what tells it from the others.

    Args:
        run_dirs: The run folders.
        with_overlap: Whether to compare the masks too.

    Raises:
        InputError: If a folder holds no run, or one whose dense round is not done.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> for method in ("imp", "random"):
        ...     config = pyg_lth.PruneConfig(
        ...         method=method, model="mf", dim=8, max_epochs=5, rounds=2
        ...     )
        ...     report = pyg_lth.find_tickets(data, config, run_dir=f"runs/{method}")
        >>> pyg_lth.compare_runs(["runs/imp", "runs/random"])
        Comparison(2 runs at 2 densities: imp, random)
    """
    folders = [RunFolder(run) for run in run_dirs]
    names = labels(
        [folder.read_report() for folder in folders], [folder.path.resolve() for folder in folders]
    )
    return compare(list(zip(names, folders, strict=True)), with_overlap)


def labels(reports: Sequence[Report], folders: Sequence[Path] = ()) -> list[str]:
    """Say what tells runs apart: the values of the settings that differ between them.

    A single run is called by its method.

    Args:
        reports: Of the runs.
        folders: Of the runs, in the same order: their names tell apart what settings do not.
            Without them such runs are numbered.

    Returns:
        A label for each run, no two of them equal.
    """
    settings = [_settings(report) for report in reports]
    if len(settings) == 1:
        return [settings[0]["method"]]
    differing = _differing(settings)
    found = _labels(settings, [name for name in differing if name not in LEAST])
    if len(set(found)) < len(found):
        found = _labels(settings, differing)
    numbers = [f"run {index}" for index in range(1, len(reports) + 1)]
    names, paths = [folder.name for folder in folders], list(map(str, folders))
    own = found
    for more in filter(None, (names, paths, numbers)):
        count = Counter(found)
        found = [
            label if count[label] == 1 else f"{shared} {extra}".strip()
            for label, shared, extra in zip(found, own, more, strict=True)
        ]
    return found


def compare(runs: Sequence[tuple[str, RunFolder]], with_overlap: bool = False) -> Comparison:
    """Put runs side by side at equal density.

    Densities are equal when as many entries live, in tables of equal size, and else when they
    differ by no more than rounding.

    Args:
        runs: Labels, and run folders.
        with_overlap: Whether to read the masks and compare them too: those of the same seed
            between runs, or of each pair of seeds where two runs share none.

    Raises:
        InputError: If a folder holds no run, or one whose dense round is not done.
    """
    names = [label for label, _ in runs]
    folders = [folder for _, folder in runs]
    reports = [folder.read_report() for folder in folders]
    graphs = [folder.read_environment().get("graph") for folder in folders]
    mixed = _mixed(reports, graphs)
    rows = [_row(reports, tickets, not mixed) for tickets in _matched(reports)]
    agreements = list(_agreements(names, folders, reports, graphs, rows)) if with_overlap else None
    return Comparison(
        runs=[
            _run(label, folder, report)
            for label, folder, report in zip(names, folders, reports, strict=True)
        ],
        rows=rows,
        agreements=agreements,
        notes=list(_notes(names, reports, mixed, rows, agreements)),
    )


def _settings(report: Report) -> dict[str, Any]:
    """The settings of a run as far as they can tell it from others."""
    settings = {"method": "dense", **report.config}
    first = settings.pop("seed")
    settings["seeds"] = (first, first + settings.pop("seeds", 1) - 1)
    return settings


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Settings that two runs have unlike values of, those that say most first."""
    names = dict.fromkeys([*WORDS, "dim", *itertools.chain(*settings)])
    names["seeds"] = names.pop("seeds")  # To the end.
    differing = [name for name in names if len({s[name] for s in settings if name in s}) > 1]
    following = [
        {
            "score": "dot",
            "negatives": 1,
            **BACKBONES.defaults(s["model"]),
            **LOSSES.defaults(s["loss"]),
        }
        for s in settings
    ]
    # What follows from other settings tells nothing of its own.
    return [
        name
        for name in differing
        if not all(s.get(name) == f.get(name) for s, f in zip(settings, following, strict=True))
    ]


def _labels(settings: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    return [" ".join(_part(name, s[name]) for name in names if name in s) for s in settings]


def _part(name: str, value: Any) -> str:
    """A setting as part of a label."""
    if name == "seeds":
        first, last = value
        return f"seed {first}" if first == last else f"seeds {first}-{last}"
    if name == "dataset":
        return Path(value).name.partition(".")[0] or str(value)
    if name == "mask_from":
        return "own masks" if value is None else f"masks of {Path(value).name}"
    if name == "teacher":
        return "no teacher" if value is None else f"taught by {Path(value).name}"
    if name in WORDS:
        return str(value)
    key = name.replace("_", " ")
    return f"no {key}" if value is None else f"{key} {value}"


def _run(label: str, folder: RunFolder, report: Report) -> Run:
    winner = report.winner
    costs = {ticket.round: ticket.cost_seconds for ticket in report.rounds}
    return Run(
        label=encodable(label),
        folder=encodable(str(folder.path)),
        title=title(report),
        config=report.config,
        seeds=report.seeds,
        metric=report.metric,
        dense=report.dense.model_copy(update={"analysis": None}),
        popularity=report.popularity,
        winner=_plain(winner),
        strict_winner=_plain(report.strict_winner),
        dense_converged=report.dense_converged,
        sparsest_winner=report.sparsest_winner,
        sparsest_strict_winner=report.sparsest_strict_winner,
        winner_cost_seconds=None if winner is None else costs[winner.round],
        seconds=_seconds(report),
    )


def _plain(winner: Winner | None) -> Winner | None:
    return winner and Winner(round=winner.round, density=winner.density)


def _seconds(report: Report) -> float:
    """Time of all trainings of a run, those included that only found masks."""
    seconds = sum(result.seconds for result in (report.dense, *report.rounds))
    if not report.rounds or report.config["mask_from"] is not None:
        return seconds
    # What the last ticket cost beside its own training tells how long these trainings took.
    source, last = METHODS[report.config["method"]].evidence, report.rounds[-1]
    if source is evidence.thresholds:
        return seconds + last.cost_seconds - last.seconds
    if source in (evidence.rewound, evidence.shuffled):
        return seconds + last.cost_seconds - last.seconds - report.dense.seconds
    return seconds


def _matched(reports: Sequence[Report]) -> list[dict[int, Ticket]]:
    """The tickets of each density by index of their run, the highest density first."""
    rows: list[dict[int, Ticket]] = []

    def goes_with(index: int, ticket: Ticket, other: int, there: Ticket) -> bool:
        if reports[index].dense.remaining == reports[other].dense.remaining:
            return ticket.remaining == there.remaining
        return abs(ticket.density - there.density) <= SAME_DENSITY * there.density

    tickets = [(index, t) for index, report in enumerate(reports) for t in report.rounds]
    for index, ticket in sorted(tickets, key=lambda found: (-found[1].density, found[0])):
        row = next(
            (
                row
                for row in rows
                if index not in row and all(goes_with(index, ticket, *item) for item in row.items())
            ),
            None,
        )
        if row is None:
            rows.append(row := {})
        row[index] = ticket
    return rows


def _row(reports: Sequence[Report], tickets: dict[int, Ticket], comparable: bool) -> Row:
    values = {index: ticket.test[reports[index].metric] for index, ticket in tickets.items()}
    best = max(values.values()) if comparable and len(values) > 1 else None
    entries = {
        index: Entry(**{**dict(ticket), "analysis": None}, best=values[index] == best)
        for index, ticket in tickets.items()
    }
    return Row(
        density=max(ticket.density for ticket in tickets.values()),
        entries=[entries.get(index) for index in range(len(reports))],
    )


def _mixed(reports: Sequence[Report], graphs: Sequence[Any]) -> list[str]:
    """In what runs differ that must be equal for their figures to be compared."""
    found = {
        "data set": set(graphs),
        "select_on": {report.config["select_on"] for report in reports},
        "topk": {report.config["topk"] for report in reports},
    }
    return [name for name, values in found.items() if len(values) > 1]


def _notes(
    names: Sequence[str],
    reports: Sequence[Report],
    mixed: Sequence[str],
    rows: Sequence[Row],
    agreements: Sequence[Agreement] | None,
) -> Iterator[str]:
    if mixed:
        yield f"The runs differ in {_listed(mixed)}: their figures are not comparable."
    on_test = [
        name
        for name, report in zip(names, reports, strict=True)
        if report.config["select_on"] == "test"
    ]
    if on_test:
        whose = "" if len(on_test) == len(names) else f" of {_listed(on_test)}"
        yield (
            f"Epochs and masks{whose} were SELECTED ON TEST (the authors' protocol): optimistic."
        )
    unconverged = [
        n for n, report in zip(names, reports, strict=True) if not report.dense_converged
    ]
    if unconverged:
        whose = "" if len(unconverged) == len(names) else f" of {_listed(unconverged)}"
        yield (
            f"The dense model{whose} was stopped at max_epochs and had not converged: strict "
            "verdicts are withheld."
        )
    for name, report in zip(names, reports, strict=True):
        planned, seeds = report.config.get("rounds", 0), report.config.get("seeds", 1)
        if len(report.rounds) < planned:
            yield (
                f"{name} has done {len(report.rounds)} of {planned} rounds"
                f"{' so far' if report.ended is None else f': {report.ended}'}."
            )
        if len(report.seeds) < seeds:
            yield f"{name} has done {len(report.seeds)} of {seeds} seeds so far."
    shared = any(sum(entry is not None for entry in row.entries) > 1 for row in rows)
    if len(reports) > 1 and not shared:
        yield "No two runs have a ticket of the same density."
    if agreements is not None and not agreements:
        yield "No two masks are of the same density, graph and dimension: there is no overlap."


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _agreements(
    names: Sequence[str],
    folders: Sequence[RunFolder],
    reports: Sequence[Report],
    graphs: Sequence[Any],
    rows: Iterable[Row],
) -> Iterator[Agreement]:
    """Compare the masks of each row; tables of another graph or size have nothing in common."""
    tables = [
        (graph, report.dense.remaining) for graph, report in zip(graphs, reports, strict=True)
    ]

    def read(index: int, entry: Entry | None) -> dict[int, Mask]:
        report, folder = reports[index], folders[index]
        if entry is None:
            return {}
        several = report.config.get("seeds", 1) > 1
        return {
            seed: (folder.of_seed(seed) if several else folder).read_round(entry.round)[0]
            for seed in report.seeds
        }

    for row in rows:
        masks = [read(index, entry) for index, entry in enumerate(row.entries)]
        for one, two in itertools.combinations_with_replacement(range(len(masks)), 2):
            seeds = _pairs_of_seeds(masks[one], masks[two], one == two)
            if not seeds or tables[one] != tables[two]:
                continue
            found = [overlap(masks[one][seed], masks[two][other]) for seed, other in seeds]
            yield Agreement(
                density=row.density,
                first=names[one],
                second=names[two],
                seeds=seeds,
                jaccard=fmean(pair.jaccard for pair in found),
                chance=fmean(pair.chance for pair in found),
            )


def _pairs_of_seeds(
    first: Iterable[int], second: Iterable[int], same_run: bool
) -> list[tuple[int, int]]:
    if same_run:
        return list(itertools.combinations(first, 2))
    seeds, others = list(first), list(second)
    shared = [(seed, seed) for seed in seeds if seed in others]
    return shared or list(itertools.product(seeds, others))
