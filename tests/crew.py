"""Several workers in a test, each a forked process."""

import multiprocessing
import os
import pickle
import socket
import traceback

from pyg_lth.workers import joined

# A forked child starts in a moment, with torch already imported.
FORK = multiprocessing.get_context("fork")


def run_crew(size, function, *arguments):
    """Call ``function(workers, *arguments)`` in each of ``size`` workers; return what each did."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes = [FORK.Pipe(duplex=False) for _ in range(size)]
    processes = [
        FORK.Process(target=_work, args=(rank, size, port, pipe[1], function, arguments))
        for rank, pipe in enumerate(pipes)
    ]
    for process, (_, end) in zip(processes, pipes, strict=True):
        process.start()
        end.close()
    outcomes = [_received(pipe) for pipe, _ in pipes]
    for process in processes:
        process.join()
    wrong = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert not wrong, "\n".join(wrong)
    return [found for (found,) in outcomes]


def _received(pipe):
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return "a worker ended without a word"


def _work(rank, size, port, pipe, function, arguments):
    place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    try:
        with joined() as workers:
            found = (function(workers, *arguments),)
    except BaseException:
        found = traceback.format_exc()
    # Tensors by value: the pickler of multiprocessing would pass handles on them.
    pipe.send_bytes(pickle.dumps(found))
