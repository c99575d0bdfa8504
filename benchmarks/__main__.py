"""`python -m benchmarks`: measure, print tables, write the results file."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.evaluate import measure_evaluation
from benchmarks.growth import measure_growth
from benchmarks.measuring import NotMeasured
from benchmarks.memory import measure_memory
from benchmarks.parts import Part, Setting
from benchmarks.pruning import measure_pruning
from benchmarks.results import RATIOS, Results, device_name, ratios
from benchmarks.search import measure_search
from benchmarks.several import measure_several
from benchmarks.softmax import measure_softmax
from benchmarks.step import measure_epochs, measure_steps

PARTS: dict[str, Callable[[Setting], Part]] = {
    "step": measure_steps,
    "epoch": measure_epochs,
    "evaluate": measure_evaluation,
    "memory": measure_memory,
    "prune": measure_pruning,
    "growth": measure_growth,
    "several": measure_several,
    "search": measure_search,
    "softmax": measure_softmax,
}
DETAILS = ("case", "repeats", "figures")


@click.command()
@click.option("--root", default="data", show_default=True, help="Folder of the data sets.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Only these parts.")
@click.option("--repeats", default=7, show_default=True, help="Turns of each contender.")
def main(root: str, only: tuple[str, ...], repeats: int) -> None:
    """Measure pyg-lth against its peers; write benchmarks/results/DEVICE.json."""
    console = Console()
    results = Results(Path(__file__).parent / "results" / f"{device_name()}.json")
    with tempfile.TemporaryDirectory() as folder:
        ours.load("gowalla", root).save(Path(folder))
        setting = Setting(root, Path(folder), repeats)
        for name in only or PARTS:
            start = time.perf_counter()
            try:
                part = PARTS[name](setting)
            except NotMeasured as error:
                part = Part([], not_measured={"pyg_lth": str(error)})
            results.add(name, part, time.perf_counter() - start)
            show(console, name, results.parts[name])
    table = Table("figure", "measured", "to be met", title="ratios")
    for key, value in ratios(results.parts).items():
        *_, relation, floor = RATIOS[key]
        table.add_row(key, _text(value), f"{relation} {floor}")
    console.print(table)
    console.print(f"written: {results.path}", soft_wrap=True)


def show(console: Console, name: str, part: dict[str, Any]) -> None:
    """Print one part: times in seconds, what ends in MiB is memory, `vs_` are ratios."""
    rows = [
        {**row["case"], **{key: _text(row[key]) for key in row if key not in DETAILS}}
        for row in part["rows"]
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    # Ten columns have to fit into eighty characters.
    table = Table(box=None, padding=(0, 1, 0, 0), title=f"{name} ({part['took']:.0f} s)")
    for position, column in enumerate(columns):
        # Names stand in the first one, and are not to be broken.
        table.add_column(
            column.replace("_", " "), overflow="fold", min_width=10 if position == 0 else None
        )
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    if rows:
        console.print(table)
    for key, value in part["summary"].items():
        console.print(f"{key}: {_text(value)}")
    for contender, reason in part["not_measured"].items():
        console.print(f"{contender}: not measured: {reason}", markup=False, soft_wrap=True)


def _text(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "not measured"
    return f"{value / 2**20:,.0f} MiB" if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    main()
