import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, HeteroData
from torch_geometric.transforms import RemoveIsolatedNodes, ToUndirected

from pyg_lth.datasets import DatasetError, InteractionGraph
from pyg_lth.datasets.graph import EDGE_TYPE, PARTS

TRAIN, VALID, TEST = [[0, 0, 3], [0, 2, 1]], [[2, 3, 1], [1, 4, 3]], [[3, 1], [0, 4]]


@pytest.fixture
def data():
    return InteractionGraph.from_pairs(TRAIN, TEST, VALID, num_users=5)


def parts(data):
    return {
        part: set(map(tuple, data[EDGE_TYPE][key].t().tolist()))
        for part, key in PARTS.items()
        if key in data[EDGE_TYPE]
    }


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_from_arrays(kind):
    data = InteractionGraph.from_pairs(kind(TRAIN), kind(TEST))
    assert isinstance(data, HeteroData) and data.validate()
    assert (data["user"].num_nodes, data["item"].num_nodes) == (4, 5)
    assert list(parts(data)) == ["train", "test"]
    assert data[EDGE_TYPE].edge_index.dtype == torch.int64


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([[0, 1]], "train has shape [1, 2]; give users, then items: [2, E]"),
        ([0, 1], "train has shape [2]"),
        ([[0, 1], [1]], "train is no array"),
        ([[0.0, 1.0], [1.0, 2.0]], "train holds float64; give indices"),
        ([["a"], ["b"]], "train holds <U1"),
        (np.array([[0], [2**63]], dtype=np.uint64), "train holds uint64"),
        ([[], []], "no interactions are left for train"),
        ([[-1], [0]], "train has a user or item beyond the"),
        ([[0, 0, 0], [1, 1, 1]], "train has a pair twice (user 0, item 1); remove one"),
        ([[2**33], [2**33]], "are too many to number the pairs"),
    ],
)
def test_arrays_that_are_no_graph(train, message):
    with pytest.raises(DatasetError) as caught:
        InteractionGraph.from_pairs(train, TEST)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_repeats_and_overlaps_are_counted_at_once():
    with pytest.raises(DatasetError, match=r"user 0, item 1 and 1 more"):
        InteractionGraph.from_pairs([[0, 0, 1, 1], [1, 1, 0, 0]], TEST)
    with pytest.raises(DatasetError, match=r"test shares 2 pairs with train \(first: user 1"):
        InteractionGraph.from_pairs([[1, 3], [4, 0]], TEST)


@pytest.mark.parametrize("transform", [None, ToUndirected()])
def test_homogeneous_labels_are_shifted(data, transform):
    both = data if transform is None else transform(data)
    whole = both.to_homogeneous()
    for part, key in PARTS.items():
        expected = {(user, item + 5) for user, item in parts(data)[part]}
        found = set(map(tuple, whole[key].t().tolist()))
        if part == "train" and transform:
            expected |= {(item, user) for user, item in expected}
        assert found == expected
    assert whole.num_nodes == 10 and whole.node_type.tolist() == [0] * 5 + [1] * 5
    assert parts(data)["valid"] == set(zip(*VALID, strict=True))


def test_subgraph_takes_the_labels_along(data):
    for users in (torch.tensor([3, 1]), torch.tensor([False, True, False, True, False])):
        part = data.subgraph({"user": users})
        number = {3: 0, 1: 1} if users.dtype == torch.long else {1: 0, 3: 1}
        for name, pairs in parts(data).items():
            expected = {(number[u], item) for u, item in pairs if u in number}
            assert parts(part)[name] == expected
        assert part["user"].num_nodes == 2 and part.validate()
    assert parts(data.subgraph({"item": torch.tensor([0])})).keys() == {"train", "test"}
    # As many labels as edges are still no attribute of the edges.
    even = data.edge_subgraph({EDGE_TYPE: torch.tensor([0])})
    assert parts(even)["valid"] == parts(data)["valid"] and len(parts(even)["train"]) == 1


def test_taking_nodes_away_takes_the_labels_and_says_so(data):
    left = RemoveIsolatedNodes()(data)
    assert left["user"].num_nodes == 2 and list(parts(left)) == ["train"]
    for key in ("edge_label_index", "val_edge_label_index"):
        with pytest.raises(AttributeError, match=r"take nodes away with data\.subgraph"):
            getattr(left[EDGE_TYPE], key)
    assert list(parts(data)) == ["train", "valid", "test"]
    full = InteractionGraph.from_pairs([[0, 1], [0, 1]], [[0], [1]])
    assert parts(RemoveIsolatedNodes()(full)) == parts(full)


def test_copies_and_batches_keep_the_labels(data):
    data["user"].num_nodes = 6  # a user more leaves the numbers as they are
    for same in (data.clone(), data.to("cpu"), InteractionGraph.from_dict(data.to_dict())):
        assert parts(same) == parts(data)
    batch = Batch.from_data_list([data, data])
    assert batch[EDGE_TYPE].val_edge_label_index.size(1) == 6
    assert batch[EDGE_TYPE].val_edge_label_index.max(1).values.tolist() == [9, 9]
