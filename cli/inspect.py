"""``pyg-lth inspect``: what a ticket weighs and where it comes from."""

import json
from pathlib import Path

import click

from pyg_lth.cli.streams import say


@click.command()
@click.argument("ticket", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(ticket: Path, as_json: bool) -> None:
    """Show the bytes, density, metrics and provenance of the file TICKET."""
    from pyg_lth.tickets.description import describe, paragraphs

    about = describe(ticket)
    if as_json:
        say(json.dumps(about, indent=2))
        return
    for index, (title, lines) in enumerate(paragraphs(about)):
        say("\n" * bool(index) + title, bold=True)
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            say(f"  {name:<{width}}{'  ' if width else ''}{text}")
