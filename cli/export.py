"""``pyg-lth export``: a round of a run as a file that answers."""

from pathlib import Path
from typing import Any

import click

from pyg_lth.cli.settings import build, options_of
from pyg_lth.datasets import DatasetOptions
from pyg_lth.errors import InputError
from pyg_lth.settings_file import read_settings
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

    The data set is the one that the run was made with; the options that name one are for a run
    begun from Python, or for data that has moved.
    """
    if winner and number is not None:
        raise InputError("--winner and --round are two rounds: give one")
    check_installed(kind)
    options = _dataset_of(run, given)

    # Imported only now: torch takes seconds, and bad usage should not wait for it.
    from pyg_lth.datasets import load_dataset
    from pyg_lth.tickets.building import build_ticket
    from pyg_lth.tickets.exporters import export as write

    data = load_dataset(options)
    ticket = build_ticket(
        run,
        data[0],
        round=number,
        seed=seed,
        store=store,
        values=values,
        form=form,
        density=density,
        bytes=budget,
        user_ids=data.user_ids,
        item_ids=data.item_ids,
    )
    chosen = ticket.notes["provenance"]["round"]
    path = out or run / f"round-{chosen:03d}{EXPORTERS[kind].suffix or f'-{kind}'}"
    write(ticket, path, kind)
    click.echo(path)
    if kind == "ticket":
        click.echo(
            f"{path.stat().st_size:,} bytes, round {chosen}, {ticket.table.density:.2%} of the "
            f"entries as {ticket.table.form}, {ticket.table.kind}. Next:\n"
            f"pyg-lth inspect {path}\n"
            f"pyg-lth recommend {path} --user {ticket.user_ids.at([0])[0]}",
            err=True,
        )


def _dataset_of(run: Path, given: dict[str, Any]) -> DatasetOptions:
    """The data set of the run, as it was read unless the flags say otherwise."""
    kept = run / "config.json"
    if not kept.exists():
        raise InputError(f"{run} holds no run: there is no config.json in it")
    settings = {
        name: value
        for name, value in read_settings(kept).items()
        if name in DatasetOptions.model_fields
    }
    if "dataset" not in settings and given.get("dataset") is None:
        raise InputError(
            f"{run} was begun from Python: name its data set with --dataset and --root"
        )
    given = {name: value for name, value in given.items() if value is not None}
    return build(DatasetOptions, None, settings | given)
