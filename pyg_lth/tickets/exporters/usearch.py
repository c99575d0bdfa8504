"""The items as an index of usearch."""

from pathlib import Path

import numpy as np
from usearch.index import Index

from pyg_lth.errors import InputError
from pyg_lth.tickets.ticket import Ticket
from pyg_lth.whole_files import replacing


def export(ticket: Ticket, path: Path) -> None:
    """Write what ``usearch.index.Index.restore`` reads: the items, float32, by inner product.

    The search is approximate. With a user's row of :meth:`~pyg_lth.tickets.Ticket.embedding` it
    gives the ids of items where these are integers, and their indices where they are text; its
    distances are one less the score.

    Raises:
        InputError: If an id is negative.
    """
    keys = ticket.item_keys()
    if keys.min() < 0:
        raise InputError(
            f"an item's id is {keys.min()}, and usearch has no negative ones: take the format faiss"
        )
    items = ticket.embedding()[ticket.num_users :]
    index = Index(ndim=items.shape[1], metric="ip", dtype="f32")
    index.add(keys.astype(np.uint64), items)
    with replacing(path) as temporary:
        temporary.write_bytes(index.save() or b"")
