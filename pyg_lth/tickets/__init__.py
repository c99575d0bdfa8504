"""Tickets that can be shipped: small files that answer with numpy alone."""

from pyg_lth.tickets.id_table import IdTable
from pyg_lth.tickets.lists import ItemLists
from pyg_lth.tickets.table import CompactTable
from pyg_lth.tickets.ticket import Recommendation, Ticket

__all__ = ["CompactTable", "IdTable", "ItemLists", "Recommendation", "Ticket"]
