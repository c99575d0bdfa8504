"""The items as an index of faiss."""

from pathlib import Path

import faiss
import numpy as np

from pyg_lth.tickets.ticket import Ticket
from pyg_lth.whole_files import replacing


def export(ticket: Ticket, path: Path) -> None:
    """Write what ``faiss.read_index`` reads: the items, float32, by exact inner product.

    Searched with a user's row of :meth:`~pyg_lth.tickets.Ticket.embedding`, it gives the ids of
    items where these are integers, and their indices where they are text.
    """
    items = np.ascontiguousarray(ticket.embedding()[ticket.num_users :])
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(items.shape[1]))
    index.add_with_ids(items, ticket.item_keys())
    with replacing(path) as temporary:
        temporary.write_bytes(faiss.serialize_index(index).data)
