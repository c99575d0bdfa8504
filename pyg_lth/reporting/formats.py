"""A comparison as text: tables, these as Markdown and as LaTeX, and all figures as CSV."""

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pyg_lth.evaluation.significance import ALPHA
from pyg_lth.reporting.comparison import Agreement, Comparison, Entry, Run
from pyg_lth.results.frames import metric_columns, round_figures
from pyg_lth.results.report import RoundResult, Winner
from pyg_lth.results.text import NOTHING, percent

# What the heading says of all runs where they agree.
SHARED = ("dataset", "model", "dim", "layers", "loss", "method", "scope", "amount")

# What each line of the CSV says of its run.
OF_RUN = (
    *(*SHARED, "teacher", "distill", "rewind_epoch", "mask_from"),
    *("select_on", "topk", "tolerance"),
)

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: What it shows.
        mark: One star for a ticket that wins, two where it does in the strict reading.
        best: Whether it is the highest of its row.
    """

    text: str = NOTHING
    mark: str = ""
    best: bool = False


class Line(NamedTuple):
    """A row of a table: what it is about, and its cells."""

    head: str
    cells: list[Cell]


class Table(NamedTuple):
    """A table.

    Args:
        title: What it shows, in a few words.
        columns: Names of the columns, that of the row heads first.
        groups: The rows, in groups with a rule between them.
        caption: How to read it.
    """

    title: str
    columns: list[str]
    groups: list[list[Line]]
    caption: str


def heading(comparison: Comparison) -> str:
    """What all runs have in common."""
    runs = comparison.runs
    shared = [
        f"{name} {runs[0].config[name]}"
        for name in SHARED
        if name in runs[0].config and len({run.config.get(name) for run in runs}) == 1
    ]
    if all(run.seeds == runs[0].seeds for run in runs):
        seeds = ", ".join(map(str, runs[0].seeds))
        shared.append(f"seed{'s' if len(runs[0].seeds) > 1 else ''} {seeds}")
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return ", ".join([f"{count}: {shared[0]}", *shared[1:]]) if shared else count


def tables(comparison: Comparison, best: str = "bold") -> list[Table]:
    """The tables of a comparison: the deciding metric, the time, and the overlap if it is there.

    Args:
        comparison: The comparison.
        best: What the captions call the way in which the highest of a row is marked.
    """
    found = [_metrics(comparison, best), _times(comparison)]
    if comparison.agreements:
        found.append(_overlaps(comparison, comparison.agreements))
    return found


def to_markdown(comparison: Comparison) -> str:
    """The tables in GitHub's Markdown."""
    lines = [f"# {_markdown(heading(comparison))}", ""]
    for note in comparison.notes:
        lines += [f"**{_markdown(note)}**", ""]
    for table in tables(comparison):
        lines += [f"## {_markdown(table.title)}", "", *_table_in_markdown(table)]
    return "\n".join(lines)


def table_to_markdown(table: Table) -> str:
    """A single table in GitHub's Markdown."""
    return "\n".join([f"# {_markdown(table.title)}", "", *_table_in_markdown(table)])


def _table_in_markdown(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(map(_markdown, table.columns)) + " |"
    yield "|" + "---:|" * len(table.columns)
    for line in _lines(table):
        yield "| " + " | ".join([line.head, *map(_markdown_cell, line.cells)]) + " |"
    yield from ("", _markdown(table.caption), "")


def to_latex(comparison: Comparison) -> str:
    """The tables in LaTeX, for a document that uses the package booktabs."""
    notes = "".join(f"{note} " for note in comparison.notes)
    parts = ["% Needs \\usepackage{booktabs}.\n"]
    parts += [
        _table_in_latex(table, f"{notes}{table.title}; {heading(comparison)}. {table.caption}")
        for table in tables(comparison)
    ]
    return "\n".join(parts)


def table_to_latex(table: Table) -> str:
    """A single table in LaTeX, for a document that uses the package booktabs."""
    needs = "% Needs \\usepackage{booktabs}.\n"
    return needs + "\n" + _table_in_latex(table, f"{table.title}. {table.caption}")


def _table_in_latex(table: Table, caption: str) -> str:
    rules = "\\midrule\n".join(
        "".join(
            " & ".join([_latex(line.head), *map(_latex_cell, line.cells)]) + " \\\\\n"
            for line in group
        )
        for group in table.groups
    )
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_latex(caption)}}}\n"
        f"\\begin{{tabular}}{{{'r' * len(table.columns)}}}\n\\toprule\n"
        f"{' & '.join(map(_latex, table.columns))} \\\\\n\\midrule\n"
        f"{rules}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def to_csv(comparison: Comparison) -> str:
    """All figures of the rounds, a line for each round of each run, the dense ones included."""
    found = lines(comparison)
    return _csv(list(found[0]), found)


def lines(comparison: Comparison) -> list[dict[str, Any]]:
    """All figures of the rounds, a line for each round of each run, the dense ones included."""
    found = []
    for index, run in enumerate(comparison.runs):
        entries = [row.entries[index] for row in comparison.rows]
        for result in (run.dense, *filter(None, entries)):
            best = result.best if isinstance(result, Entry) else None
            found.append({**_of_run(run), **round_figures(result), "best": best})
    return found


def agreements_to_csv(agreements: Iterable[Agreement]) -> str:
    """How far masks agree, a line for each pair of runs at each density."""
    return _csv(
        list(Agreement.model_fields),
        (
            {**dict(a), "seeds": " ".join(f"{one}/{two}" for one, two in a.seeds)}
            for a in agreements
        ),
    )


def _metrics(comparison: Comparison, best: str) -> Table:
    runs = comparison.runs
    reference = [
        Line("popular", [Cell(_fraction(run.popularity.test[run.metric])) for run in runs]),
        Line("dense", [_metric(run, run.dense) for run in runs]),
    ]
    pruned = [
        Line(percent(row.density), list(map(_metric, runs, row.entries))) for row in comparison.rows
    ]
    winners = [
        Line("winner", _densities(comparison, [run.winner for run in runs])),
        Line("strict", _densities(comparison, [run.strict_winner for run in runs])),
    ]
    names = _distinct(run.metric for run in runs)
    return Table(
        f"{' or '.join(names)} on test, by density",
        ["density", *(run.label for run in runs)],
        [reference, pruned, winners] if pruned else [reference],
        _legend(comparison, best),
    )


def _legend(comparison: Comparison, best: str) -> str:
    runs, entries = comparison.runs, [e for row in comparison.rows for e in row.entries if e]
    several = any(len(run.seeds) > 1 for run in runs)
    sentences = []
    if any(run.config["select_on"] == "valid" for run in runs):
        whose = "" if all(run.config["select_on"] == "valid" for run in runs) else " of the others"
        sentences.append(
            f"Epochs and masks{whose} were chosen on validation, winners too; test is only "
            "reported."
        )
    if several:
        sentences.append("±: standard deviation over seeds.")
    if entries:
        tolerances = _distinct(
            f"{run.config['tolerance']:g}" for run in runs if "tolerance" in run.config
        )
        seeds = f", with p below {ALPHA:g} over several seeds" if several else ""
        sentences.append(
            f"*: wins, being as good as dense (tolerance {' or '.join(tolerances)}) and better than"
            f" popularity{seeds}; **: strictly, its best epoch being no later than dense's as well."
            " winner, strict: density of the ticket that is named."
        )
    if any(entry.best for entry in entries):
        sentences.append(f"{best}: highest of its row; whether by more than chance is not tested.")
    return " ".join(sentences)


def _times(comparison: Comparison) -> Table:
    runs, rows = comparison.runs, comparison.rows
    dense = [Line("dense", [_seconds(run.dense.cost_seconds) for run in runs])]
    pruned = [
        Line(
            percent(row.density),
            [_seconds(entry.cost_seconds if entry else None) for entry in row.entries],
        )
        for row in rows
    ]
    ends = [
        Line("winner", [_seconds(run.winner_cost_seconds) for run in runs]),
        Line("whole run", [_seconds(run.seconds) for run in runs]),
    ]
    return Table(
        "Seconds of training that it takes to get there from nothing",
        ["density", *(run.label for run in runs)],
        [dense, pruned, ends] if pruned else [dense],
        "Times of one seed, evaluation included; over several seeds, the means.",
    )


def _overlaps(comparison: Comparison, agreements: Sequence[Agreement]) -> Table:
    pairs = _distinct((agreement.first, agreement.second) for agreement in agreements)
    found = {(a.density, a.first, a.second): a for a in agreements}
    chance = {a.density: a.chance for a in agreements}

    def cell(density: float, pair: tuple[str, str]) -> Cell:
        agreement = found.get((density, *pair))
        if agreement is None:
            return Cell()
        times = f" {agreement.jaccard / agreement.chance:.1f}×" if agreement.chance else ""
        return Cell(f"{_fraction(agreement.jaccard, 3)}{times}")

    lines = [
        Line(
            percent(density),
            [Cell(_fraction(chance[density], 3)), *(cell(density, pair) for pair in pairs)],
        )
        for density in chance
    ]
    names = [one if one == two else f"{one} / {two}" for one, two in pairs]
    return Table(
        "Overlap of the masks (Jaccard), by density",
        ["density", "chance", *names],
        [lines],
        "Entries that live in both, as a share of those that live in either, and how many times"
        " chance that is. Between two runs, masks of the same seed, or of all pairs of seeds where"
        " they share none; under the name of one run, those of its seeds.",
    )


def _metric(run: Run, result: RoundResult | None) -> Cell:
    if result is None:
        return Cell()
    spread = f"±{_fraction(result.test_sd[run.metric])}" if result.test_sd else ""
    text = f"{_fraction(result.test[run.metric])}{spread}"
    if not isinstance(result, Entry):
        return Cell(text)
    return Cell(
        text,
        "**" if result.strict and run.dense_converged else "*" if result.wins else "",
        result.best,
    )


def _densities(comparison: Comparison, winners: Sequence[Winner | None]) -> list[Cell]:
    """In which rows the winners are."""
    row_of = {
        (index, entry.round): row.density
        for row in comparison.rows
        for index, entry in enumerate(row.entries)
        if entry
    }
    return [
        Cell(percent(row_of[index, winner.round]) if winner else "none")
        for index, winner in enumerate(winners)
    ]


def _seconds(seconds: float | None) -> Cell:
    if seconds is None:
        return Cell()
    return Cell(f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}")


def _fraction(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def _lines(table: Table) -> Iterator[Line]:
    for group in table.groups:
        yield from group


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return text + _markdown(cell.mark)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = f"\\textbf{{{text}}}" if cell.best else text
    # The mark takes no room, so that figures stand below each other.
    return f"{text}\\rlap{{$^{{{cell.mark}}}$}}" if cell.mark else text


def _of_run(run: Run) -> dict[str, Any]:
    return {
        "run": run.label,
        "folder": run.folder,
        **{name: run.config.get(name) for name in OF_RUN},
        "seeds": " ".join(map(str, run.seeds)),
        **metric_columns("popularity", run.popularity.test),
    }


def _csv(columns: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
