import pytest
import torch

from pyg_lth import kernels
from pyg_lth.batches import DistinctNodes, add_up

NUM_NODES = 30


@pytest.fixture(params=["native", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(kernels, "usable", lambda device: False)
    elif kernels.library() is None:
        pytest.skip("the kernels are not compiled")


@pytest.mark.parametrize("size", [0, 1, 5, 200])
def test_distinct_nodes_are_found_in_one_batch_after_the_other(size, way):
    nodes = DistinctNodes(NUM_NODES)
    for _ in range(3):
        batch = torch.randint(NUM_NODES, (size,))
        distinct, place = nodes.find(batch)
        assert sorted(distinct.tolist()) == sorted(set(batch.tolist()))
        assert torch.equal(distinct[place], batch)


def test_a_batch_need_not_be_contiguous(way):
    batch = torch.randint(NUM_NODES, (8, 2))[:, 1]
    distinct, place = DistinctNodes(NUM_NODES).find(batch)
    assert torch.equal(distinct[place], batch)


@pytest.mark.skipif(kernels.library() is None, reason="the kernels are not compiled")
@pytest.mark.parametrize("node", [-1, NUM_NODES, 2**40])
def test_a_node_out_of_range_is_refused_and_leaves_no_trace(node):
    nodes = DistinctNodes(NUM_NODES)
    with pytest.raises(IndexError, match=f"there are {NUM_NODES}"):
        nodes.find(torch.tensor([3, 4, node, 5]))
    distinct, place = nodes.find(torch.tensor([4, 3, 4]))
    assert distinct[place].tolist() == [4, 3, 4]
    assert distinct.numel() == 2


@pytest.mark.parametrize("dim", [1, 7, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_rows_of_one_place_are_added_up(dim, dtype, way):
    rows, place = torch.randn(50, dim, dtype=dtype), torch.randint(9, (50,))
    expected = torch.zeros(10, dim, dtype=dtype)
    for row, where in zip(rows, place.tolist(), strict=True):
        expected[where] += row
    torch.testing.assert_close(add_up(rows, place, 10), expected)
    torch.testing.assert_close(add_up(rows.t().contiguous().t(), place, 10), expected)
