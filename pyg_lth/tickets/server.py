"""The processes of ``pyg-lth serve``: one or several that share a socket and the ticket's pages."""

import contextlib
import errno
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from pyg_lth.errors import InputError
from pyg_lth.tickets.ticket import Ticket

if TYPE_CHECKING:
    from fastapi import FastAPI

# Where a worker finds the ticket.
_TICKET = "PYG_LTH_SERVED_TICKET"

_SETTINGS: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "limit_concurrency": 1000,
    "timeout_graceful_shutdown": 5,
}


def serve(
    path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer over HTTP until SIGINT or SIGTERM; what has begun is answered before it ends.

    Several workers map the same file. A ticket that has to be propagated is propagated once, to a
    file beside the others of the service, which all workers map and which goes with it.

    Args:
        path: The ticket's file.
        host: The address to listen on.
        port: The port, 0 for any that is free.
        workers: Processes that answer.
        on_ready: Called with the address once connections are taken.

    Raises:
        InputError: If the ticket cannot be read, or nothing can listen there.
    """
    ticket = Ticket.load(path)
    with _listening(host, port) as listening, tempfile.TemporaryDirectory() as folder:
        address = listening.getsockname()
        name = f"[{address[0]}]" if listening.family == socket.AF_INET6 else address[0]
        url = f"http://{name}:{address[1]}"
        with _ending_quietly():
            if workers == 1:
                from pyg_lth.tickets.service import create_app

                server = uvicorn.Server(uvicorn.Config(create_app(ticket), **_SETTINGS))
                on_ready(url)
                server.run([listening])
            else:
                shared = Path(path).resolve()
                if ticket.layer_weights is not None:
                    shared = Path(folder) / "propagated.ticket"
                    ticket.propagated().save(shared)
                del ticket
                counters = Path(folder) / "counters"
                counters.mkdir()
                os.environ |= {_TICKET: str(shared), "PROMETHEUS_MULTIPROC_DIR": str(counters)}
                config = uvicorn.Config(
                    f"{__name__}:worker", factory=True, workers=workers, **_SETTINGS
                )
                on_ready(url)
                supervisor = Multiprocess(config, [listening])
                supervisor.run()
                if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
                    raise InputError(f"a worker could not start with {path}: see above")


def worker() -> "FastAPI":
    """The application of a worker, which :func:`serve` starts."""
    from pyg_lth.tickets.service import create_app

    return create_app(Ticket.load(os.environ[_TICKET]))


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=1024)
        # Head and body of an answer are two writes; the second must not wait for the client to
        # acknowledge the first. Connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except socket.gaierror as error:
        raise InputError(f"{host} is no address of this machine: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is in use: choose another") from None
        raise InputError(f"port {port} of {host} cannot be opened: {error.strerror}") from None


@contextlib.contextmanager
def _ending_quietly() -> Any:
    """End on SIGTERM as on SIGINT, without a traceback: uvicorn raises both again at its end."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
