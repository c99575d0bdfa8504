"""The page of a run: one HTML file that tells all to a reader who has nothing else."""

import importlib.util
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree  # nosec B405

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.evaluation.degree_groups import GroupSizes, Means
from pyg_lth.results.report import Report, RoundResult
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.results.text import (
    BEYOND,
    BEYOND_CAPTION,
    COLUMNS,
    beyond_rows,
    caption,
    change,
    headline,
    limits,
    percent,
    questions,
    refit,
    remarks,
    score,
    subject,
    table_rows,
    title,
    unconverged,
    why_none_wins,
)

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
# A style in a page holds for all of it.
LEFT_OUT = (f"{{{SVG}}}metadata", f"{{{SVG}}}style")

CAPTIONS = {
    "metric": "The metric that decides, on test, against density.",
    "epochs": "Epochs until the best evaluation, and until it is as good as dense at its best.",
    "beyond": "What the lists show beyond accuracy, against density.",
    "density_by_group": "Density of the users and of the items of each degree group.",
    "learning": "The metric that chooses epochs, over the epochs of some rounds.",
}


class Row(NamedTuple):
    """A row of the table of rounds.

    Args:
        cells: The text under each of :data:`~pyg_lth.results.text.COLUMNS`.
        wins: Whether it is a ticket that wins.
        mark: Of the winner in either reading.
    """

    cells: tuple[str, ...]
    wins: bool
    mark: str


class File(NamedTuple):
    """A file for a reader to take.

    Args:
        path: Where it is, from the folder above the run folder.
        content: What it holds.
        size: In bytes.
    """

    path: Path
    content: str
    size: int


class Side(NamedTuple):
    """What an analysis says of the users, or of the items.

    Args:
        name: ``user`` or ``item``.
        sizes: Of the degree groups.
        empty: Share of them whose whole row is masked.
        density: Of each group.
        dense: Each metric of each group under the dense model.
        metrics: The same under the ticket.
        hit: The groups in which either of them has a hit, by index.
        missed: The others.
    """

    name: str
    sizes: GroupSizes
    empty: float
    density: Means
    dense: dict[str, Means]
    metrics: dict[str, Means]
    hit: list[int]
    missed: list[int]

    @property
    def missed_names(self) -> str:
        """Their numbers, counted from 1."""
        return ", ".join(str(group + 1) for group in self.missed)


class Picture(NamedTuple):
    """A figure and its caption."""

    svg: str
    caption: str


def to_html(folder: RunFolder, command: str | None = None) -> str:
    """Build the page of a run.

    It loads nothing and runs no script. Figures are left out where matplotlib is not installed. Of
    several seeds, files and analysis are those of the first.

    Args:
        folder: The run.
        command: The command line that repeats it; :obj:`None` for a run that was begun from Python.

    Returns:
        An HTML document.

    Raises:
        InputError: If the folder holds no run, or one whose dense round is not done.
    """
    report = folder.read_report()
    several = report.config.get("seeds", 1) > 1
    own = folder.of_seed(report.seeds[0]) if several else folder
    own_report = own.read_report() if several else report
    shown = subject(report)
    named = report.winner or report.winner_by_validation
    # Where there is none to name, what became of the sparsest ticket.
    round = len(report.rounds) if named is None else shown.round
    analysed = [own_report.dense, *own_report.rounds][round]
    return _template().render(
        folder=folder.path.resolve(),
        winner=report.winner,
        strict_winner=report.strict_winner,
        report=report,
        results=[report.dense, *report.rounds],
        refit=refit(report),
        headline=headline(report),
        more=_more(report),
        warnings=list(_warnings(report)),
        title=title(report),
        questions=questions(report, _num_test_users(own)),
        limits=limits(report),
        notes=folder.notes,
        shown=shown,
        files=_files(folder, own, shown),
        snippet=_snippet(folder, own, own_report, shown),
        next_command=_next_command(folder, report, shown),
        command=command or _program(report),
        by_command=command is not None,
        columns=COLUMNS,
        rows=_rows(report),
        caption=caption(report),
        pictures=list(_pictures(folder, own_report, analysed)),
        several=several,
        seed=own_report.seeds[0],
        analysed=analysed,
        sides=_sides(own_report, analysed),
        beyond_columns=["round", "density", *BEYOND],
        beyond_rows=beyond_rows(report),
        beyond_caption=BEYOND_CAPTION,
        machine=folder.read_environment(),
    )


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("pyg_lth.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "metric": score, "change": change}
    return environment.get_template("page.html.jinja")


def _num_test_users(folder: RunFolder) -> int | None:
    if not (_round(folder, 0) / "users.safetensors").exists():
        return None
    return folder.read_users(0)["user"].numel()


def _more(report: Report) -> list[str]:
    """What belongs right under the headline."""
    why = why_none_wins(report)
    return [*([f"Why: {why}"] if why else []), *([" ".join(remarks(report))] * bool(report.rounds))]


def _warnings(report: Report) -> Iterator[tuple[str, str]]:
    """What a reader must know before any figure: a few loud words, and what they mean."""
    if report.config["select_on"] == "test":
        yield (
            "SELECTED ON TEST.",
            "Test chose the epochs and, through them, the masks, as in the authors' protocol: "
            "every metric of this page is optimistic.",
        )
    if not report.dense_converged:
        yield "DENSE HAD NOT CONVERGED.", unconverged(report)


def _next_command(folder: RunFolder, report: Report, shown: RoundResult) -> str | None:
    """The command that makes a file of the ticket; :obj:`None` where there is no ticket."""
    if not shown.round:
        return None
    which = "--winner" if report.winner else f"--round {shown.round}"
    return f"pyg-lth export {shlex.quote(folder.path.resolve().name)} {which}"


def _rows(report: Report) -> list[Row]:
    # The tolerant reading comes last: a round that is the winner in both has its mark.
    readings = ((report.strict_winner, "☆ "), (report.winner, "★ "))
    marks = {str(winner.round): mark for winner, mark in readings if winner is not None}
    return [
        Row(cells, cells[-1] in ("yes", "strict"), marks.get(cells[0], ""))
        for cells in table_rows(report)
    ]


def _round(folder: RunFolder, round: int) -> Path:
    return folder.path.resolve() / f"round-{round:03d}"


def _files(run: RunFolder, folder: RunFolder, shown: RoundResult) -> list[File]:
    """The mask and the table of a round, where they are still there."""
    mask, table = (
        _round(folder, shown.round) / name for name in ("mask.safetensors", "best.safetensors")
    )
    above = run.path.resolve().parent
    return [
        File(path.relative_to(above), content, path.stat().st_size)
        for path, content in (
            (mask, "tensor mask, true for an entry that remains"),
            (table, "tensor embedding.weight, the table at the best epoch, float32"),
        )
        if path.exists()
    ]


def _snippet(run: RunFolder, folder: RunFolder, report: Report, shown: RoundResult) -> str:
    """Python that makes the embedding table of a round."""
    assert report.groups is not None
    users, items = (sum(side.nodes) for side in (report.groups.users, report.groups.items))
    place = _round(folder, shown.round).relative_to(run.path.resolve().parent)
    lines = [
        "from pathlib import Path",
        "",
        "from safetensors.torch import load_file",
        "",
        f"folder = Path({place.as_posix()!r})",
        'mask = load_file(folder / "mask.safetensors")["mask"]',
        'weight = load_file(folder / "best.safetensors")["embedding.weight"]',
        f"table = weight * mask  # shape [{users + items}, {report.config['dim']}]",
        f"users, items = table.split([{users}, {items}])",
    ]
    if report.config["layers"] == 0:
        lines.append("scores = users @ items.T  # the higher, the sooner an item is recommended")
    return "\n".join(lines)


def _program(report: Report) -> str:
    """Python that repeats a run on the graph ``data``."""
    form = PruneConfig if "rounds" in report.config else TrainConfig
    known = {name: value for name, value in report.config.items() if name in form.model_fields}
    changed = form.model_validate(known).model_dump(exclude_defaults=True)
    arguments = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    return (
        "import pyg_lth\n\n"
        f"config = pyg_lth.{form.__name__}({arguments})\n"
        'report = pyg_lth.find_tickets(data, config, run_dir="runs/again")'
    )


def _sides(report: Report, analysed: RoundResult) -> list[Side]:
    groups, dense, found = report.groups, report.dense.analysis, analysed.analysis
    assert groups is not None and dense is not None and found is not None
    return [
        _side(
            "user",
            groups.users,
            found.empty_users,
            found.density_by_user_group,
            dense.metrics_by_user_group,
            found.metrics_by_user_group,
        ),
        _side(
            "item",
            groups.items,
            found.empty_items,
            found.density_by_item_group,
            dense.metrics_by_item_group,
            found.metrics_by_item_group,
        ),
    ]


def _side(
    name: str,
    sizes: GroupSizes,
    empty: float,
    density: Means,
    dense: dict[str, Means],
    metrics: dict[str, Means],
) -> Side:
    hit = [
        group
        for group in range(len(density))
        if any(values[group] for found in (dense, metrics) for values in found.values())
    ]
    missed = [group for group in range(len(density)) if group not in hit]
    return Side(name, sizes, empty, density, dense, metrics, hit, missed)


def _pictures(folder: RunFolder, report: Report, analysed: RoundResult) -> Iterator[Picture]:
    """The figures of a run; none where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from pyg_lth.reporting.plots import figures, render

    labels = _labels(folder.read_report(), report, analysed)
    for name, figure in figures([(folder.path.resolve().name, folder)]).items():
        label = f"{CAPTIONS[name]} {labels[name]}"
        yield Picture(_inline(render(figure, "svg"), name, label), CAPTIONS[name])


def _labels(report: Report, first: Report, analysed: RoundResult) -> dict[str, str]:
    """The data of each figure in words."""
    metric = report.metric
    found = analysed.analysis
    assert found is not None

    def rounds(report: Report, text_of: Any) -> str:
        return "; ".join(
            f"{percent(result.density)}: {text_of(result)}"
            for result in (report.dense, *report.rounds)
        )

    def chosen(result: RoundResult) -> str:
        return f"{score((result.valid or result.test)[metric])} at epoch {result.best_epoch}"

    def epochs(result: RoundResult) -> str:
        reached = "never" if result.epochs_to_dense is None else f"{result.epochs_to_dense:g}"
        return f"{result.best_epoch:g}" + (f" and {reached}" if result.round else "")

    users, items = (
        ", ".join(map(percent, density))
        for density in (found.density_by_user_group, found.density_by_item_group)
    )
    return {
        "metric": f"{metric} at each density: {rounds(report, lambda r: score(r.test[metric]))}; "
        f"popularity: {score(report.popularity.test[metric])}.",
        "epochs": f"At each density: {rounds(report, epochs)}.",
        "beyond": "The table under Beyond accuracy holds the data.",
        "density_by_group": f"In round {analysed.round}, from the lowest degrees to the highest: "
        f"users {users}; items {items}.",
        "learning": f"The best of each density: {rounds(first, chosen)}.",
    }


def _inline(svg: bytes, name: str, label: str) -> str:
    """An SVG document as an element of a page, with identifiers of its own and a text instead."""
    ElementTree.register_namespace("", SVG)
    # What matplotlib has just drawn here.
    root = ElementTree.fromstring(svg)  # nosec B314
    for element in root.iter():
        for child in [child for child in element if child.tag in LEFT_OUT]:
            element.remove(child)
        link = element.attrib.pop(XLINK, None)
        if link is not None:
            element.set("href", link.replace("#", f"#{name}-"))
        for key, value in element.items():
            owned = f"{name}-{value}" if key == "id" else value.replace("url(#", f"url(#{name}-")
            element.set(key, owned)
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")
