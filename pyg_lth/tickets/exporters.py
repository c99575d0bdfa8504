"""The forms that a ticket can be exported to, each written by one function.

Nothing of a form is imported before it is asked for.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from pyg_lth.tickets.ticket import Ticket


class Exporter(NamedTuple):
    """How a form is written.

    Args:
        function: ``module:name`` of a function of a :class:`~pyg_lth.tickets.Ticket` and a path.
        suffix: Of the names of its files, empty for a folder.
    """

    function: str
    suffix: str


EXPORTERS: dict[str, Exporter] = {
    "ticket": Exporter("pyg_lth.tickets.exporters:_save", ".ticket"),
}


def export(ticket: Ticket, path: Path, form: str) -> None:
    """Write a ticket in one of the forms of :data:`EXPORTERS`.

    Raises:
        InputError: If it cannot be written so.
    """
    module, name = EXPORTERS[form].function.split(":")
    write: Callable[[Ticket, Path], None] = getattr(import_module(module), name)
    write(ticket, path)


def _save(ticket: Ticket, path: Path) -> None:
    ticket.save(path)
