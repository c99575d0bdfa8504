"""``pyg-lth serve``: answers from a ticket over HTTP."""

import ipaddress
from pathlib import Path

import click

from pyg_lth.cli.streams import say


@click.command()
@click.argument(
    "path", metavar="TICKET", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for any that is free.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that answer; they share the file's pages.",
)
def serve(path: Path, host: str, port: int, workers: int) -> None:
    """Answer over HTTP from the file TICKET, until Ctrl-C.

    GET /recommend?user=ID&k=20, POST /recommend for several users or a history, GET
    /similar?item=ID, /health, /metrics; /docs shows them all. Needs: pip install "pyg-lth[serve]"
    """
    from pyg_lth.tickets.exporters import require

    require("pyg-lth serve", "serve", "fastapi", "uvicorn", "prometheus_client")

    from pyg_lth.tickets import server

    def announce(url: str) -> None:
        say(f"Answering from {path} on {url} (try {url}/docs); Ctrl-C ends it", err=True)
        if not _loopback(host):
            say(
                f"Whoever reaches {host} can ask for any user: there is no authentication", err=True
            )

    server.serve(path, host, port, workers, announce)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
