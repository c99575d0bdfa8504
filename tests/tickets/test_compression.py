import numpy as np
import pytest
import torch

import pyg_lth
from pyg_lth.errors import InputError


def largest(table, keep):
    """The places of the largest entries; of equal ones the lower index goes first."""
    flat = np.abs(table).ravel()
    order = sorted(range(flat.size), key=lambda place: (flat[place], place))
    return set(order[flat.size - keep :])


@pytest.mark.parametrize("density", [0.29, 1.0, 0.003])
def test_exactly_so_many_of_the_largest_are_kept(density):
    table = np.random.default_rng(0).integers(1, 9, (20, 15)).astype(np.float32)
    found = pyg_lth.compress(torch.from_numpy(table), density=density).to_dense()
    keep = {0.29: 87, 1.0: 300, 0.003: 0}[density]
    assert set(np.flatnonzero(found)) == largest(table, keep)
    assert (found[found != 0] == table[found != 0]).all()


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("form", [None, "bitmap"])
def test_a_number_of_bytes_is_used_up(values, form):
    module = torch.nn.Sequential(torch.nn.Embedding(50, 20), torch.nn.Linear(20, 1))
    dense = pyg_lth.compress(module, values=values)
    for budget in (170, 600, 1000, dense.nbytes):
        compact = pyg_lth.compress(module, bytes=budget, values=values, form=form)
        assert compact.nbytes <= budget
        one_more = pyg_lth.compress(
            module, density=min(1, (compact.stored + 1) / 1000), values=values, form=form
        )
        assert one_more.nbytes > budget or compact.stored == 1000


def test_without_a_budget_nothing_is_pruned():
    table = torch.diag(torch.arange(8.0))
    compact = pyg_lth.compress(table)
    assert compact.stored == 7 and (compact.to_dense() == table.numpy()).all()
    assert pyg_lth.compress(table, density=0.5).stored == 7


@pytest.mark.parametrize(
    ("table", "given", "message"),
    [
        (torch.ones(2, 2), {"density": 0.5, "bytes": 9}, "give one"),
        (torch.ones(2, 2), {"density": 0}, "no share"),
        (torch.ones(2, 2), {"bytes": 0}, "does not fit into 0 bytes"),
        (torch.ones(2), {}, "two dimensions"),
        (torch.nn.Linear(2, 2), {}, "0 embeddings"),
        (torch.full((2, 2), torch.nan), {"density": 0.5}, "not finite"),
    ],
)
def test_what_cannot_be_compressed_is_refused(table, given, message):
    with pytest.raises(InputError, match=message):
        pyg_lth.compress(table, **given)
