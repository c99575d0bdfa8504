"""`python -m benchmarks.tickets RUN…`: what tickets of runs weigh, hold, and how fast they answer.

Every row is measured of a file that was written and read back, beside the dense model of its run in
float32, which is made into a ticket too and takes turns with it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measuring import compare, interleave
from benchmarks.results import device_name
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.evaluation.significance import paired_difference
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.tickets import Ticket
from pyg_lth.tickets.building import Store, build_ticket, split_of_run
from pyg_lth.tickets.embedding import TicketEmbedding
from pyg_lth.tickets.quantization import Values

ROWS = 4096
TOP = 20

# What a process holds after a first answer beyond what Python with its imports holds: its own
# memory with the file's pages, and all of it, code of libraries that it came to touch included.
HOLDS = """
import json, sys
from pathlib import Path
from pyg_lth.tickets import Ticket

def held():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return found["Anonymous"], found["Rss"]

def pages(path):
    mine, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.split()[0][-1] != ":":
            inside = line.endswith(path)
        elif inside and line.startswith("Rss:"):
            mine += int(line.split()[1]) * 1024
    return mine

before = held()
ticket = Ticket.load(sys.argv[1])
ticket.recommend(ticket.user_ids.at([0]), k=20)
after = held()
own = after[0] - before[0] + pages(sys.argv[1])
print(json.dumps({"own": own, "resident": after[1] - before[1]}))
"""


def kinds(rounds: Sequence[int], propagates: bool) -> Iterator[tuple[int, Store | None, Values]]:
    """Round, storage and values of each ticket; the dense model in float32 comes first."""
    for values in ("float32", "float16", "int8", "int4"):
        yield 0, None, values
    if propagates:
        for values in ("float32", "int8"):
            yield 0, "final", values
    for round in rounds:
        for values in ("float32", "int8"):
            yield round, None, values


def speeds(path: Path, dense: Path, repeats: int) -> dict[str, float]:
    """Of a ticket and the dense one in turns: seconds for rows, and users a second for lists."""
    users = np.random.default_rng(0).integers
    tickets = {"ticket": Ticket.load(path), "dense": Ticket.load(dense)}
    index = torch.from_numpy(users(tickets["ticket"].table.num_rows, size=ROWS))
    plain = torch.from_numpy(tickets["dense"].table.to_dense())
    compact = TicketEmbedding(tickets["ticket"].table)

    def repeated(run: Callable[[], Any]) -> Callable[[int], float]:
        def seconds(count: int) -> float:
            begin = time.perf_counter()
            for _ in range(count):
                run()
            return (time.perf_counter() - begin) / count

        return seconds

    gathers = {
        "ticket": repeated(lambda: compact(index)),
        "dense": repeated(lambda: torch.nn.functional.embedding(index, plain)),
    }
    lists = {
        name: repeated(lambda ticket=ticket: ticket.rank(slice(0, ROWS), TOP))
        for name, ticket in tickets.items()
    }
    gathered, ranked = (compare(interleave(runs, repeats)) for runs in (gathers, lists))
    return {
        "gather_seconds": gathered["ticket"],
        "gather_vs_dense": 1 / gathered["vs_dense"],
        "users_a_second": min(ROWS, tickets["ticket"].num_users) / ranked["ticket"],
        "rank_vs_dense": 1 / ranked["vs_dense"],
    }


def measure(run: Path, rounds: Sequence[int], repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Write, read and measure the tickets of a run of one seed."""
    own = RunFolder(run)
    data, settings = own.read_data().split.to_data(), own.read_config()
    split = split_of_run(own, data)
    evaluate = Evaluator(split, "test", TOP)
    tested = torch.unique(split.test[0]).numpy()
    rows: list[dict[str, Any]] = []
    first: dict[str, npt.NDArray[np.float32]] = {}
    dense = folder / "0.ticket"
    for number, (round, store, values) in enumerate(kinds(rounds, settings["layers"] > 0)):
        path = folder / f"{number}.ticket"
        build_ticket(run, data, round=round, store=store, values=values).save(path)
        ticket = Ticket.load(path)
        ranked = torch.from_numpy(ticket.rank(tested, TOP)[0])
        users = {name: value.numpy() for name, value in evaluate.per_user(ranked).items()}
        first = first or users
        holds = subprocess.run(
            [sys.executable, "-c", HOLDS, str(path)], capture_output=True, text=True, check=True
        )
        rows.append(
            {
                "round": round,
                "density": ticket.table.density,
                "stored": ticket.notes["store"],
                "values": values,
                "file": path.stat().st_size,
                "to_answer": ticket.nbytes()["to_answer"],
                **json.loads(holds.stdout),
                **speeds(path, dense, repeats),
                **{
                    name: {
                        "value": float(users[name].mean()),
                        "difference": paired_difference(
                            users[name][None], first[name][None], 0.0, 0
                        ).model_dump(),
                    }
                    for name in (f"recall@{TOP}", f"ndcg@{TOP}")
                },
            }
        )
        click.echo(as_row(rows[-1]))
    return rows


def as_row(row: dict[str, Any]) -> str:
    """A row of the table, in Markdown."""

    def metric(name: str) -> str:
        found, against = row[name]["value"], row[name]["difference"]
        if not against["relative"]:
            return f"{found:.4f}"
        return f"{found:.4f} ({against['low']:+.1%}..{against['high']:+.1%})"

    return (
        f"| {row['density']:.1%} {row['stored']} {row['values']} | {row['file'] / 1e3:,.0f} "
        f"| {row['to_answer'] / 1e3:,.0f} | {row['own'] / 1e3:,.0f} | {row['resident'] / 1e3:,.0f} "
        f"| {row['gather_seconds'] * 1e3:.2f} ({row['gather_vs_dense']:.1f}) "
        f"| {row['users_a_second']:,.0f} ({row['rank_vs_dense']:.2f}) "
        f"| {metric(f'recall@{TOP}')} | {metric(f'ndcg@{TOP}')} |"
    )


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--round", "rounds", multiple=True, type=int, help="Rounds; all of them by default.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each ticket.")
def main(runs: Sequence[Path], rounds: Sequence[int], repeats: int) -> None:
    """Measure tickets of runs; print tables and write benchmarks/results/tickets-DEVICE.json."""
    path = Path(__file__).parent / "results" / f"tickets-{device_name()}.json"
    found = json.loads(path.read_text())["runs"] if path.exists() else {}
    for run in runs:
        click.echo(
            f"\n{run.name}\n\n| density, stored, values | file KB | to answer KB | own KB "
            "| resident KB | gather ms (vs dense) | users a second (time vs dense) "
            f"| recall@{TOP} | ndcg@{TOP} |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
        )
        done = range(1, len(RunFolder(run).read_results()))
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(run, rounds or done, repeats, Path(folder))
        settings = {k: v for k, v in RunFolder(run).read_config().items() if k != "root"}
        found[run.name] = {"settings": settings, "rows": rows}
        path.write_text(json.dumps({"runs": found}, indent=1) + "\n")
    click.echo(f"written: {path}", err=True)


if __name__ == "__main__":
    main()
