"""``pyg-lth export``: a round of a run as a file that answers."""

from pathlib import Path
from typing import Any

import click

from pyg_lth.cli.settings import options_of
from pyg_lth.cli.streams import say, shell
from pyg_lth.datasets import DatasetOptions
from pyg_lth.errors import InputError
from pyg_lth.tickets.exporters import EXPORTERS, check_installed
from pyg_lth.tickets.places import FORMS
from pyg_lth.tickets.quantization import VALUES


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--round", "number", type=int, help="Round of the run; 0 is the dense model.")
@click.option("--winner", is_flag=True, help="The winner.  [default]")
@click.option("--seed", type=int, help="Of several seeds, which.  [default: the first]")
@click.option(
    "--store",
    type=click.Choice(["ego", "final", "pruned"]),
    help="Of a model that propagates: its table and the graph, the propagated table, or that "
    "table pruned to --density or --bytes.  [default: ego]",
)
@click.option(
    "--values",
    type=click.Choice(VALUES),
    default="float32",
    show_default=True,
    help="How to store values; integers have a scale for each row.",
)
@click.option(
    "--form",
    type=click.Choice(FORMS),
    help="How to store places.  [default: as takes the fewest bytes]",
)
@click.option("--density", type=float, help="Share of the entries that --store pruned keeps.")
@click.option("--bytes", "budget", type=int, help="Bytes of the table that --store pruned keeps.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(EXPORTERS)),
    default="ticket",
    show_default=True,
    help="; ".join(f"{name}: {exporter.summary}" for name, exporter in EXPORTERS.items()) + ".",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="What to write.  [default: in the run folder]"
)
@options_of(DatasetOptions)
def export(
    run: Path,
    number: int | None,
    winner: bool,
    seed: int | None,
    store: Any,
    values: Any,
    form: Any,
    density: float | None,
    budget: int | None,
    kind: str,
    out: Path | None,
    **given: Any,
) -> None:
    """Write a ticket of the run folder RUN to a file.

    The data are those that the run folder keeps; the options that name a data set are for runs of
    older versions, which keep none.
    """
    if winner and number is not None:
        raise InputError("--winner and --round are two rounds: give one")
    check_installed(kind)

    # Imported only now: torch takes seconds, and bad usage should not wait for it.
    from pyg_lth.cli import run_data
    from pyg_lth.tickets.building import build_ticket
    from pyg_lth.tickets.exporters import export as write

    given = run_data.of_run(run, given)
    ticket = build_ticket(
        run,
        given["data"],
        round=number,
        seed=seed,
        store=store,
        values=values,
        form=form,
        density=density,
        bytes=budget,
        user_ids=given["user_ids"],
        item_ids=given["item_ids"],
    )
    chosen = ticket.notes["provenance"]["round"]
    path = out or run / f"round-{chosen:03d}{EXPORTERS[kind].suffix or f'-{kind}'}"
    write(ticket, path, kind)
    say(path)
    if kind == "ticket":
        say(
            f"{path.stat().st_size:,} bytes, round {chosen}, {ticket.table.density:.2%} of the "
            f"entries as {ticket.table.form}, {ticket.table.kind}. Next:\n"
            f"pyg-lth inspect {shell(path)}\n"
            f"pyg-lth recommend {shell(path)} --user {shell(ticket.user_ids.at([0])[0])}",
            err=True,
        )
