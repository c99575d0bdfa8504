"""`python -m benchmarks.serving`: pyg-lth serve with a ticket beside the dense model, in one run.

Every contender is a service of its own on the loopback address; they take turns. Tables are random:
what is measured does not depend on what they recommend.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import psutil

from benchmarks.data import Interactions
from benchmarks.ours import load
from benchmarks.results import device_name
from pyg_lth.tickets import CompactTable, IdTable, ItemLists, Ticket
from pyg_lth.tickets.quantization import Values

DIM = 64
CONNECTIONS = 4
# The first knows next to no one: what it takes is what HTTP and Python take.
TABLES: dict[str, tuple[float, Values] | None] = {
    "nothing": None,
    "dense float32": (1.0, "float32"),
    "dense int8": (1.0, "int8"),
    "10% float32": (0.1, "float32"),
    "10% int8": (0.1, "int8"),
}


class Turn(NamedTuple):
    """What one turn of requests took: of all of them together, and of each."""

    seconds: float
    latencies: list[float]


class Service:
    """A running `pyg-lth serve`.

    Args:
        ticket: The file to answer from.
        workers: Processes that answer.
    """

    def __init__(self, ticket: Path, workers: int):
        command = [sys.executable, "-m", "pyg_lth.cli", "serve", str(ticket), "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--workers", str(workers)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if " on http://" not in line:
            raise RuntimeError(f"the service did not start: {line}")
        self._port = int(line.split(" on http://")[1].split()[0].rsplit(":")[-1])
        self._ticket = ticket

    def ask(self, users: Sequence[int]) -> Turn:
        """Ask for each user once, over several connections that stay open."""
        latencies: list[float] = []

        def one_after_the_other(some: Sequence[int]) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            for user in some:
                begin = time.perf_counter()
                connection.request("GET", f"/recommend?user={user}&k=20")
                answer = connection.getresponse()
                content = answer.read()
                latencies.append(time.perf_counter() - begin)
                if answer.status != 200:
                    raise RuntimeError(content.decode())
            connection.close()

        threads = [
            threading.Thread(target=one_after_the_other, args=(users[number::CONNECTIONS],))
            for number in range(CONNECTIONS)
        ]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(latencies) != len(users):
            raise RuntimeError("a request was not answered")
        return Turn(time.perf_counter() - begin, latencies)

    def memory(self) -> dict[str, int]:
        """Bytes of all workers: resident, shared pages counted once, and the mapped file so."""
        workers = [
            child
            for child in psutil.Process(self._process.pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        ] or [psutil.Process(self._process.pid)]
        resident = sum(worker.memory_info().rss for worker in workers)
        shared_once = sum(worker.memory_full_info().pss for worker in workers)
        maps = [part for worker in workers for part in worker.memory_maps()]
        file = [part for part in maps if part.path == str(self._ticket)]
        return {
            "workers": len(workers),
            "resident": resident,
            "shared_once": shared_once,
            "file_resident": sum(part.rss for part in file),
            "file_shared_once": sum(part.pss for part in file),
        }

    def end(self) -> None:
        """End it as `kill` does."""
        self._process.terminate()
        self._process.wait(60)


def build(interactions: Interactions, density: float, values: Values) -> Ticket:
    """A ticket of a random table with so many entries, for Gowalla's graph."""
    users, items = interactions.num_users, interactions.num_items
    table = interactions.random_embedding(DIM)
    table[np.random.default_rng(1).random(table.shape) >= density] = 0
    return Ticket(
        "mf",
        CompactTable.from_dense(table, values=values),
        ItemLists.from_pairs(interactions.train, users, items),
        IdTable.of(range(users)),
        IdTable.of(range(items)),
    )


@contextlib.contextmanager
def running(paths: dict[str, Path], workers: int) -> Iterator[dict[str, Service]]:
    """The services of some tickets, which end with the block."""
    services: dict[str, Service] = {}
    try:
        for name, path in paths.items():
            services[name] = Service(path, workers)
        yield services
    finally:
        for service in services.values():
            service.end()


def measure(
    interactions: Interactions, folder: Path, workers: int, requests: int, repeats: int
) -> dict[str, Any]:
    """Let the services take turns, and see what they hold afterwards."""
    tiny = Interactions(2, 2, np.array([[0, 1], [0, 1]]), np.array([[0], [1]]))
    paths = {}
    for name, given in TABLES.items():
        paths[name] = folder / f"{name.replace(' ', '-').replace('%', '')}.ticket"
        ticket = build(tiny, 1.0, "float32") if given is None else build(interactions, *given)
        ticket.save(paths[name])
    random = np.random.default_rng(2)
    turns: dict[str, list[Turn]] = {name: [] for name in TABLES}
    with running(paths, workers) as services:
        for turn in range(-1, repeats):
            users = random.integers(interactions.num_users, size=requests).tolist()
            for name, service in services.items():
                taken = service.ask(users)
                if turn >= 0:  # The first one warms up every worker.
                    turns[name].append(taken)
        memory = {name: service.memory() for name, service in services.items()}
    return {
        name: {
            "bytes": paths[name].stat().st_size,
            "requests_a_second": float(np.median([requests / turn.seconds for turn in taken])),
            **{
                f"p{share}": float(
                    np.median([np.quantile(turn.latencies, share / 100) for turn in taken])
                )
                for share in (50, 99)
            },
            "repeats": [turn.seconds for turn in taken],
            **memory[name],
        }
        for name, taken in turns.items()
    }


@click.command()
@click.option("--root", default="data", show_default=True, help="Folder of the data sets.")
@click.option("--workers", default=4, show_default=True)
@click.option("--requests", default=1000, show_default=True, help="Of a turn.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each contender.")
def main(root: str, workers: int, requests: int, repeats: int) -> None:
    """Measure pyg-lth serve; print a table and write benchmarks/results/serving-DEVICE.json."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(load("gowalla", root), Path(folder), workers, requests, repeats)
    base = found["nothing"]["shared_once"]
    click.echo("| table | file KB | requests a second | p50 ms | p99 ms | resident MB | held MB |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|")
    for name, row in found.items():
        click.echo(
            f"| {name} | {row['bytes'] / 1e3:,.0f} | {row['requests_a_second']:,.0f} "
            f"| {row['p50'] * 1e3:.1f} | {row['p99'] * 1e3:.1f} | {row['resident'] / 1e6:,.0f} "
            f"| {(row['shared_once'] - base) / 1e6:,.1f} |"
        )
    path = Path(__file__).parent / "results" / f"serving-{device_name()}.json"
    settings = {"workers": workers, "requests": requests, "connections": CONNECTIONS}
    path.write_text(json.dumps({"settings": settings, "services": found}, indent=1) + "\n")
    click.echo(f"written: {path}", err=True)


if __name__ == "__main__":
    main()
