import pytest
import torch

from pyg_lth import InputError
from pyg_lth.interactions import EDGE_TYPE, InteractionSplit

TRAIN = [(0, 0), (0, 2), (1, 1), (2, 0)]
VALID = [(0, 1)]
TEST = [(1, 0), (2, 2)]


@pytest.fixture
def graph(make_graph):
    return make_graph(3, 4, TRAIN, TEST, VALID)


def pairs(index):
    return [tuple(pair) for pair in index.t().tolist()]


def test_the_three_parts_are_read_and_sorted(make_graph):
    split = InteractionSplit.from_data(make_graph(3, 4, TRAIN[::-1], TEST[::-1], VALID))
    assert (split.num_users, split.num_items) == (3, 4)
    assert pairs(split.train) == TRAIN
    assert pairs(split.valid) == VALID
    assert pairs(split.test) == TEST


def test_validation_may_be_absent(make_graph):
    assert InteractionSplit.from_data(make_graph(3, 4, TRAIN, TEST)).valid is None


@pytest.mark.parametrize("node_type", ["user", "item"])
def test_a_missing_node_type_is_refused(graph, node_type):
    del graph[node_type]
    with pytest.raises(InputError, match="needs node types 'user' and 'item'"):
        InteractionSplit.from_data(graph)


def test_a_missing_edge_type_is_refused(graph):
    del graph[EDGE_TYPE]
    with pytest.raises(InputError, match="edge type"):
        InteractionSplit.from_data(graph)


@pytest.mark.parametrize("name", ["edge_index", "edge_label_index"])
@pytest.mark.parametrize("change", ["absent", "empty"])
def test_missing_train_or_test_interactions_are_refused(graph, name, change):
    if change == "absent":
        del graph[EDGE_TYPE][name]
    else:
        graph[EDGE_TYPE][name] = graph[EDGE_TYPE][name][:, :0]
    with pytest.raises(InputError, match=f"no interactions in .*'{name}'"):
        InteractionSplit.from_data(graph)


@pytest.mark.parametrize("name", ["edge_index", "edge_label_index", "val_edge_label_index"])
@pytest.mark.parametrize(
    "spoil",
    [lambda index: index.int(), lambda index: index.t(), lambda index: index[0]],
    ids=["int32", "transposed", "one row"],
)
def test_another_type_or_shape_is_refused(make_graph, name, spoil):
    graph = make_graph(3, 4, TRAIN, TEST, [(0, 1), (1, 2), (2, 1)])
    graph[EDGE_TYPE][name] = spoil(torch.cat([graph[EDGE_TYPE][name]] * 3, dim=1))
    with pytest.raises(InputError, match=rf"'{name}' must be int64 of shape \[2, E\]"):
        InteractionSplit.from_data(graph)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((3, 0), "'edge_label_index' column 1: user 3 is outside 0..2"),
        ((-1, 0), "'edge_label_index' column 1: user -1 is outside 0..2"),
        ((0, 4), "'edge_label_index' column 1: item 4 is outside 0..3"),
        ((0, -2), "'edge_label_index' column 1: item -2 is outside 0..3"),
    ],
)
def test_an_index_out_of_range_is_refused_with_its_place(make_graph, pair, message):
    with pytest.raises(InputError, match=message):
        InteractionSplit.from_data(make_graph(3, 4, TRAIN, [(1, 0), pair]))


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ([*TRAIN, TRAIN[0]], VALID, TEST),
        (TRAIN, [*VALID, TRAIN[0]], TEST),
        (TRAIN, VALID, [*TEST, TRAIN[0]]),
        (TRAIN, VALID, [*TEST, VALID[0]]),
    ],
    ids=["duplicate", "train in valid", "train in test", "valid in test"],
)
def test_an_interaction_that_stands_twice_is_refused(make_graph, train, valid, test):
    with pytest.raises(InputError, match="stands twice"):
        InteractionSplit.from_data(make_graph(3, 4, train, test, valid))


@pytest.mark.parametrize("node_type", ["user", "item"])
@pytest.mark.filterwarnings("ignore:Unable to accurately infer")
def test_an_unknown_number_of_nodes_is_refused(graph, node_type):
    del graph[node_type].num_nodes
    graph[node_type].name = "something else"
    with pytest.raises(InputError, match="num_nodes"):
        InteractionSplit.from_data(graph)


def test_joint_edges_go_both_ways_over_users_then_items(graph):
    edges = pairs(InteractionSplit.from_data(graph).joint_edge_index())
    there = [(user, item + 3) for user, item in TRAIN]
    assert edges == there + [(item, user) for user, item in there]


@pytest.fixture
def held_out(make_split):
    """Users of 1 to 30 train interactions, a tenth held out."""
    train = [(user, item) for user in range(30) for item in range(user + 1)]
    whole = make_split(30, 40, train, [(0, 39)])
    return whole, whole.hold_out_validation(seed=7)


def test_a_tenth_of_each_user_is_held_out(held_out):
    _, split = held_out
    quota = torch.bincount(split.valid[0], minlength=30).tolist()
    assert quota == [0] * 4 + [1] * 10 + [2] * 10 + [3] * 6


def test_what_is_held_out_and_what_stays_make_up_train(held_out):
    whole, split = held_out
    stays, held = set(pairs(split.train)), set(pairs(split.valid))
    assert not stays & held
    assert stays | held == set(pairs(whole.train))
    assert split.train.size(1) + split.valid.size(1) == whole.train.size(1)
    assert pairs(split.train) == sorted(pairs(split.train))
    assert torch.equal(split.test, whole.test)


def test_users_of_fewer_than_five_keep_all(held_out):
    whole, split = held_out
    few = [pair for pair in pairs(whole.train) if pair[0] < 4]
    assert [pair for pair in pairs(split.train) if pair[0] < 4] == few


def test_holding_out_repeats_with_its_seed_and_only_with_it(held_out):
    whole, split = held_out
    assert torch.equal(whole.hold_out_validation(seed=7).valid, split.valid)
    assert not torch.equal(whole.hold_out_validation(seed=8).valid, split.valid)


def test_every_interaction_is_equally_likely_to_be_held_out(make_split):
    split = make_split(1, 10, [(0, item) for item in range(9)], [(0, 9)])
    count = torch.zeros(10)
    for seed in range(900):
        count[split.hold_out_validation(seed).valid[1]] += 1
    # A hundred each on average, and ten the standard deviation.
    assert count[:9].min() > 60
    assert count[:9].max() < 140


def test_users_that_are_all_too_short_to_hold_out_are_an_error(make_split):
    with pytest.raises(InputError, match="val_edge_label_index"):
        make_split(3, 4, TRAIN, TEST).hold_out_validation(seed=0)


def test_moving_to_a_device_keeps_everything(graph, make_graph):
    for split in map(InteractionSplit.from_data, (graph, make_graph(3, 4, TRAIN, TEST))):
        assert split.to(torch.device("cpu")).fingerprint() == split.fingerprint()
        assert split.to(torch.device("meta")).train.device.type == "meta"


def test_the_fingerprint_is_that_of_the_graph_and_not_of_its_order(make_split):
    split = make_split(3, 4, TRAIN, TEST, VALID)
    assert split.fingerprint() == make_split(3, 4, TRAIN[::-1], TEST, VALID).fingerprint()
    others = [
        make_split(4, 4, TRAIN, TEST, VALID),
        make_split(3, 5, TRAIN, TEST, VALID),
        make_split(3, 4, [*TRAIN, (2, 3)], TEST, VALID),
        make_split(3, 4, TRAIN, TEST[:1], VALID),
        make_split(3, 4, TRAIN, TEST),
        make_split(3, 4, TRAIN, VALID, TEST),
    ]
    assert len({split.fingerprint(), *(other.fingerprint() for other in others)}) == 7
