import numpy as np
import pytest

from pyg_lth.tickets import CompactTable, IdTable, ItemLists, Ticket


def build_ticket(
    values="float32", form=None, ids=False, valid=False, layers=0, seed=0, bias=False, **given
):
    """Seven users and nine items with random embeddings of four columns."""
    generator = np.random.default_rng(seed)
    table = generator.standard_normal((16, 4)).astype(np.float32)
    table[generator.random(table.shape) < 0.5] = 0
    there = generator.random((7, 9)) < 0.3
    held_out = ~there & (generator.random((7, 9)) < 0.1)
    if bias:
        given["bias"] = generator.standard_normal(9).astype(np.float16)
    return Ticket(
        "lightgcn" if layers else "mf",
        CompactTable.from_dense(table, values=values, form=form),
        ItemLists.from_pairs(np.stack(np.nonzero(there)), 7, 9),
        IdTable.of([f"user {index}" for index in range(7)] if ids else range(7)),
        IdTable.of([100 - index for index in range(9)] if ids else range(9)),
        ItemLists.from_pairs(np.stack(np.nonzero(held_out)), 7, 9) if valid else None,
        (1 / (layers + 1),) * (layers + 1) if layers else None,
        **given,
    )


@pytest.fixture(scope="session")
def make_ticket():
    return build_ticket
