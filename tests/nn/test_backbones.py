import copy

import pytest
import torch
from torch_geometric import nn

from pyg_lth import MF, LightGCN, Mask, Propagation, TrainConfig, apply_mask, kernels
from pyg_lth.nn.backbones import TABLE, build_backbone
from pyg_lth.nn.propagation import BACKENDS

DIM = 6
# Users, items and edges.
GRAPHS = {
    "random": (7, 9, 30),
    "complete": (5, 6, 30),
    "isolated nodes": (12, 15, 8),
    "one user": (1, 8, 5),
    "one item": (8, 1, 5),
    "one edge": (1, 1, 1),
}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


ON_A_CPU = [name for name in BACKENDS if not name.startswith("triton")]


def backend_or_skip(backend):
    if backend == "scatter":
        pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    if backend == "native" and not kernels.usable(torch.device("cpu")):
        pytest.skip("the kernels are not compiled")


def stock_and_ours(num_nodes, num_layers, alpha=None):
    stock = nn.LightGCN(num_nodes, DIM, num_layers, alpha=copy.copy(alpha))
    ours = LightGCN(num_nodes, DIM, num_layers, alpha=copy.copy(alpha))
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock, ours


@pytest.fixture(params=GRAPHS)
def graph(request, joint_edges):
    num_users, num_items, num_edges = GRAPHS[request.param]
    return num_users + num_items, joint_edges(num_users, num_items, num_edges, seed=0)


def assert_equals_stock(stock, ours, stock_edges, our_edges, num_nodes):
    """Compare embeddings, scores of pairs, rankings, and the gradient of a random projection."""
    expected, actual = stock.get_embedding(stock_edges), ours.get_embedding(our_edges)
    close(actual, expected)

    pairs = torch.randint(num_nodes, (2, 20))
    close(ours(our_edges, pairs), stock(stock_edges, pairs))
    close(
        ours.predict_link(our_edges, pairs, prob=True),
        stock.predict_link(stock_edges, pairs, prob=True),
    )

    k = min(4, num_nodes)
    source = torch.arange(num_nodes)
    scores = expected @ expected.t()
    wanted, given = (
        model.recommend(edges, src_index=source, dst_index=source.flip(0), k=k)
        for model, edges in ((stock, stock_edges), (ours, our_edges))
    )
    close(scores.gather(1, given), scores.gather(1, wanted))

    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()
    (actual * direction).sum().backward()
    close(ours.embedding.weight.grad, stock.embedding.weight.grad)


@pytest.mark.parametrize("backend", ON_A_CPU)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lightgcn_equals_stock_pyg(graph, backend, num_layers, seed):
    backend_or_skip(backend)
    torch.manual_seed(seed)
    num_nodes, edges = graph
    stock, ours = stock_and_ours(num_nodes, num_layers)
    assert_equals_stock(stock, ours, edges, Propagation(edges, num_nodes, backend), num_nodes)


@pytest.mark.parametrize("seed", range(10))
def test_lightgcn_equals_stock_pyg_on_graphs_of_any_size(joint_edges, seed):
    torch.manual_seed(seed)
    num_users, num_items = torch.randint(1, 30, (2,)).tolist()
    num_edges = int(torch.randint(1, num_users * num_items + 1, ()))
    num_nodes = num_users + num_items
    edges = joint_edges(num_users, num_items, num_edges, seed)
    edges = edges[:, torch.randperm(edges.size(1))]
    stock, ours = stock_and_ours(num_nodes, num_layers=3)
    assert_equals_stock(stock, ours, edges, Propagation(edges, num_nodes), num_nodes)


@pytest.mark.parametrize("alpha", [0.3, torch.tensor([0.7, 0.0, -0.2, 0.5])], ids=["float", "each"])
def test_layer_weights_are_those_of_stock_pyg(graph, alpha):
    num_nodes, edges = graph
    stock, ours = stock_and_ours(num_nodes, num_layers=3, alpha=alpha)
    assert_equals_stock(stock, ours, edges, Propagation(edges, num_nodes), num_nodes)


def test_lightgcn_still_takes_an_edge_index(graph):
    num_nodes, edges = graph
    stock, ours = stock_and_ours(num_nodes, num_layers=3)
    assert_equals_stock(stock, ours, edges, edges, num_nodes)


def test_mf_equals_stock_pyg_without_layers(graph):
    num_nodes, edges = graph
    stock, ours = nn.LightGCN(num_nodes, DIM, num_layers=0), MF(num_nodes, DIM)
    ours.load_state_dict(stock.state_dict(), strict=True)
    assert_equals_stock(stock, ours, edges, None, num_nodes)


def test_mf_never_looks_at_the_graph(graph):
    num_nodes, edges = graph
    model = MF(num_nodes, DIM)
    assert model.get_embedding() is model.embedding.weight
    assert model.get_embedding(edges) is model.embedding.weight
    assert model.get_embedding(Propagation(edges, num_nodes)) is model.embedding.weight


@pytest.mark.parametrize(
    ("stock", "ours"),
    [
        (nn.LightGCN(5, DIM, num_layers=3), LightGCN(5, DIM, num_layers=3)),
        (nn.LightGCN(5, DIM, num_layers=0), MF(5, DIM)),
    ],
    ids=["lightgcn", "mf"],
)
def test_the_state_dict_loads_both_ways(stock, ours):
    assert list(ours.state_dict()) == list(stock.state_dict())
    for source, target in ((stock, ours), (ours, stock)):
        source.reset_parameters()
        target.load_state_dict(source.state_dict(), strict=True)
        assert torch.equal(target.embedding.weight, source.embedding.weight)


def one_way(row, col, weight):
    return weight * (row < col)


def normalised_twice(row, col, weight):
    return weight**2


def not_normalised(row, col, weight):
    return weight**0


@pytest.mark.parametrize("backend", ON_A_CPU)
@pytest.mark.parametrize("mistake", [one_way, normalised_twice, not_normalised])
def test_the_comparison_with_stock_pyg_notices(mistake, backend, joint_edges, monkeypatch):
    backend_or_skip(backend)
    edges, build = joint_edges(7, 9, 30, seed=0), BACKENDS[backend]

    def mistaken(row, col, weight, rowptr):
        return build(row, col, mistake(row, col, weight), rowptr)

    monkeypatch.setitem(BACKENDS, backend, mistaken)
    stock, ours = stock_and_ours(16, num_layers=3)
    with pytest.raises(AssertionError, match="not close"):
        assert_equals_stock(stock, ours, edges, Propagation(edges, 16, backend), 16)


def assert_looks_up(model, nodes, propagation, expected_out, expected_ego):
    """Compare a look-up and the gradient of its random projection with whole tables."""
    (parameter,) = model.parameters()
    out, ego = model.lookup(nodes, propagation)
    close(out, expected_out[nodes])
    close(ego, expected_ego[nodes])
    first, second = torch.randn(2, *out.shape)
    actual, expected = (
        torch.autograd.grad((a * first).sum() + (b * second).sum(), parameter, retain_graph=True)
        for a, b in ((out, ego), (expected_out[nodes], expected_ego[nodes]))
    )
    close(actual, expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend", ON_A_CPU)
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_a_look_up_is_some_rows_of_the_embeddings(graph, backend, num_layers, masked):
    backend_or_skip(backend)
    num_nodes, edges = graph
    alpha = torch.tensor([0.7, 0.0, -0.2, 0.5])[: num_layers + 1]
    stock, ours = stock_and_ours(num_nodes, num_layers, alpha)
    if masked:
        apply_mask(ours, Mask(torch.rand(num_nodes, DIM) < 0.6))
    nodes, propagation = torch.randint(num_nodes, (9,)), Propagation(edges, num_nodes, backend)
    weight = ours.embedding.weight
    assert_looks_up(ours, nodes, propagation, ours.get_embedding(propagation), weight)
    with torch.no_grad():
        stock.embedding.weight.copy_(weight)
        close(ours.lookup(nodes, propagation)[0], stock.get_embedding(edges)[nodes])


@pytest.mark.parametrize("masked", [False, True])
def test_a_look_up_in_mf_is_some_rows_of_the_table(graph, masked):
    num_nodes, edges = graph
    model, nodes = MF(num_nodes, DIM), torch.randint(num_nodes, (9,))
    if masked:
        apply_mask(model, Mask(torch.rand(num_nodes, DIM) < 0.6))
    weight = model.embedding.weight
    for propagation in (None, Propagation(edges, num_nodes)):
        assert_looks_up(model, nodes, propagation, weight, weight)


def test_a_masked_look_up_has_no_gradient_at_dead_entries(graph):
    num_nodes, edges = graph
    model, mask = LightGCN(num_nodes, DIM, num_layers=2), Mask(torch.rand(num_nodes, DIM) < 0.6)
    parameter = apply_mask(model, mask)
    out, ego = model.lookup(torch.arange(num_nodes), Propagation(edges, num_nodes))
    (out.square().sum() + ego.sum()).backward()
    assert parameter.grad[~mask.table].count_nonzero() == 0
    assert ego[~mask.table].count_nonzero() == 0
    assert parameter.grad[mask.table].count_nonzero() == mask.remaining


@pytest.mark.parametrize(("model", "layers"), [("lightgcn", 2), ("mf", 0)])
def test_build_backbone_builds_what_the_settings_name(model, layers):
    config = TrainConfig(model=model, layers=layers, dim=5)
    backbone = build_backbone(config, {TABLE: torch.ones(7, 5)}, torch.device("cpu"))
    assert isinstance(backbone, MF if model == "mf" else LightGCN)
    assert torch.equal(backbone.embedding.weight, torch.ones(7, 5))
    assert backbone.num_layers == layers


@pytest.mark.parametrize(("first", "mean"), [(0, [0, 1, 2, 3]), (2, [2, 3]), (3, [3])])
def test_the_mean_is_that_of_the_layers_from_the_first_on(joint_edges, first, mean):
    edges = joint_edges(7, 9, 30, seed=0)
    table = torch.randn(16, DIM)
    config = TrainConfig(dim=DIM, layers=3, first_layer=first)
    model = build_backbone(config, {TABLE: table}, torch.device("cpu"))
    powers = [table]
    for _ in range(3):
        powers.append(nn.LGConv()(powers[-1], edges))
    expected = sum(powers[layer] for layer in mean) / len(mean)
    close(model.get_embedding(Propagation(edges, 16)), expected)


def test_layers_without_a_propagation_are_refused():
    with pytest.raises(ValueError, match="2 layers need a propagation"):
        LightGCN(4, DIM, num_layers=2).lookup(torch.tensor([0]), None)
