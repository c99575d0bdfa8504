"""The workers of one run on this machine: this process is the first and starts the others."""

import contextlib
import os
import signal
import subprocess  # nosec B404
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from pyg_lth.errors import WorkerLost
from pyg_lth.sweeps.children import command_line
from pyg_lth.sweeps.processes import tied_to_this_process
from pyg_lth.workers import JOINED, Workers, joined

# How long the others have to end once this one has, in seconds.
PATIENCE = 10.0

_Child = tuple["subprocess.Popen[bytes]", IO[bytes]]


@contextlib.contextmanager
def launched(number: int, arguments: Sequence[str]) -> Iterator[Workers]:
    """Be the first of some workers, and start the others on this machine.

    The cores are shared out evenly, unless ``OMP_NUM_THREADS`` says how many threads each gets. The
    others end with this process, however that ends.

    Args:
        number: How many workers, this one included; at least 2.
        arguments: Of ``pyg-lth``, which the others run too.

    Raises:
        InputError: If they do not come together.
        WorkerLost: If one of them ends before this one, with the reason.
    """
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // number)))
    torch.set_num_threads(int(threads))
    meeting = TCPStore("127.0.0.1", 0, number, is_master=True, wait_for_workers=False)
    place = {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(meeting.port),
        "OMP_NUM_THREADS": threads,
        # The store is there already.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    children = [_start(rank, place, arguments) for rank in range(1, number)]
    before = dict(os.environ)
    try:
        os.environ.update({**place, "RANK": "0", "LOCAL_RANK": "0"})
        with joined(lambda store: _wait_for(store, children)) as workers:
            yield workers
    except WorkerLost as error:
        time.sleep(0.2)  # Its exit code comes a moment after its last word.
        raise WorkerLost(_reason(children) or str(error)) from error
    finally:
        os.environ.clear()
        os.environ.update(before)
        _end(children)


def _start(rank: int, place: dict[str, str], arguments: Sequence[str]) -> _Child:
    # A file, since nobody reads a pipe while both work.
    said = tempfile.TemporaryFile()  # noqa: SIM115
    # This interpreter with this process's own arguments, as a list: no shell reads them.
    process = subprocess.Popen(  # nosec B603
        tied_to_this_process(command_line(*arguments)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        start_new_session=True,
    )
    return process, said


def _wait_for(store: Any, children: Sequence[_Child]) -> None:
    """Wait until all have arrived, or one has ended."""
    while store.add(JOINED, 0) <= len(children):
        if reason := _reason(children):
            raise WorkerLost(reason)
        time.sleep(0.02)


def _reason(children: Sequence[_Child]) -> str | None:
    """How the first worker ended that did; killed ones before those that noticed."""
    ended = [(child.poll(), rank) for rank, (child, _) in enumerate(children, start=1)]
    failed = sorted((code, rank) for code, rank in ended if code)
    if not failed:
        return None
    code, rank = failed[0]
    said = children[rank - 1][1]
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    if code < 0:
        how = f"ended by {signal.Signals(-code).name}"
    else:
        how = lines[-1].removeprefix("Error: ") if lines else f"exit code {code}"
    return f"worker {rank} of {len(children) + 1} was lost ({how}), so all stop"


def _end(children: Sequence[_Child]) -> None:
    """See the others end; those that do not are ended."""
    until = time.monotonic() + PATIENCE
    for child, said in children:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        said.close()
