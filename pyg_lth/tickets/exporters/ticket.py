"""The ticket's own format."""

from pathlib import Path

from pyg_lth.tickets.ticket import Ticket


def export(ticket: Ticket, path: Path) -> None:
    """Write the ticket as :meth:`~pyg_lth.tickets.Ticket.load` reads it."""
    ticket.save(path)
