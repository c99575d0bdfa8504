"""The stored table as SciPy's CSR matrix."""

import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse

from pyg_lth.tickets.ticket import Ticket
from pyg_lth.whole_files import replacing


def export(ticket: Ticket, path: Path) -> None:
    """Write what :func:`scipy.sparse.load_npz` reads: float32, shape ``[users + items, dim]``.

    :func:`numpy.load` finds in the same file ``user_ids`` and ``item_ids``, ``seen_indptr`` and
    ``seen_indices`` (the items of each user in training and validation), and what a ticket that is
    propagated takes beside its table: ``train_indptr``, ``train_indices``, ``layer_weights``, which
    is empty for one that answers as it is, and ``score``, which is ``cosine`` where rows are then
    made of length one. ``item_bias`` is added to scores; it is empty where nothing is.
    """
    indptr, indices, values = ticket.table.to_csr()
    shape = (ticket.table.num_rows, ticket.dim)
    csr = scipy.sparse.csr_matrix((values, indices, indptr), shape)
    every = slice(0, ticket.num_users)
    more = {
        "user_ids": np.array(ticket.user_ids.at(np.arange(ticket.num_users))),
        "item_ids": np.array(ticket.item_ids.at(np.arange(ticket.num_items))),
        **dict(zip(("seen_indptr", "seen_indices"), ticket.seen(every), strict=True)),
        "layer_weights": np.array(ticket.layer_weights or (), np.float32),
        "score": np.array(ticket.score),
        "item_bias": np.zeros(0, np.float16) if ticket.bias is None else ticket.bias,
    }
    if ticket.layer_weights is not None:
        more |= dict(
            zip(("train_indptr", "train_indices"), ticket.train.of_users(every), strict=True)
        )
    with replacing(path) as temporary, temporary.open("w+b") as file:
        scipy.sparse.save_npz(file, csr)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, array in more.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
