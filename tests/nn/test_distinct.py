import pytest
import torch

from pyg_lth import kernels
from pyg_lth.nn.distinct import add_up, distinct_nodes

NUM_NODES = 30


@pytest.fixture(params=["native", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(kernels, "usable", lambda device: False)
    elif kernels.library() is None:
        pytest.skip("the kernels are not compiled")


@pytest.mark.parametrize("size", [0, 1, 5, 200])
@pytest.mark.parametrize("far_apart", [1, 2**32, 2**57])
def test_distinct_nodes_are_found(size, far_apart, way):
    batch = torch.randint(NUM_NODES, (size,)) * far_apart
    distinct, place = distinct_nodes(batch, NUM_NODES * far_apart)
    assert sorted(distinct.tolist()) == sorted(set(batch.tolist()))
    assert torch.equal(distinct[place], batch)


def test_a_batch_need_not_be_contiguous(way):
    batch = torch.randint(NUM_NODES, (8, 2))[:, 1]
    distinct, place = distinct_nodes(batch, NUM_NODES)
    assert torch.equal(distinct[place], batch)


@pytest.mark.parametrize("node", [-1, NUM_NODES, 2**40])
def test_a_node_out_of_range_is_refused(node, way):
    with pytest.raises(IndexError, match=f"there are {NUM_NODES}"):
        distinct_nodes(torch.tensor([3, 4, node, 5]), NUM_NODES)


@pytest.mark.parametrize("dim", [1, 7, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_rows_of_one_place_are_added_up(dim, dtype, way):
    rows, place = torch.randn(50, dim, dtype=dtype), torch.randint(9, (50,))
    expected = torch.zeros(10, dim, dtype=dtype)
    for row, where in zip(rows, place.tolist(), strict=True):
        expected[where] += row
    torch.testing.assert_close(add_up(rows, place, 10), expected)
    torch.testing.assert_close(add_up(rows.t().contiguous().t(), place, 10), expected)
