import copy

import pytest
import torch
from torch_geometric import nn

from pyg_lth import MF, LightGCN, Propagation, TrainConfig
from pyg_lth.backbones import build_backbone
from pyg_lth.propagation import BACKENDS

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


def scatter_or_skip(backend):
    if backend == "scatter":
        pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")


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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lightgcn_equals_stock_pyg(graph, backend, num_layers, seed):
    scatter_or_skip(backend)
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


def one_way(edges, num_nodes, monkeypatch):
    return Propagation(edges[:, : edges.size(1) // 2], num_nodes)


def normalised_twice(edges, num_nodes, monkeypatch):
    build = BACKENDS["csr"]
    monkeypatch.setitem(
        BACKENDS, "csr", lambda row, col, weight, rowptr: build(row, col, weight**2, rowptr)
    )
    return Propagation(edges, num_nodes)


def not_normalised(edges, num_nodes, monkeypatch):
    build = BACKENDS["csr"]
    monkeypatch.setitem(
        BACKENDS, "csr", lambda row, col, weight, rowptr: build(row, col, weight**0, rowptr)
    )
    return Propagation(edges, num_nodes)


@pytest.mark.parametrize("mistake", [one_way, normalised_twice, not_normalised])
def test_the_comparison_with_stock_pyg_notices(mistake, joint_edges, monkeypatch):
    edges = joint_edges(7, 9, 30, seed=0)
    stock, ours = stock_and_ours(16, num_layers=3)
    with pytest.raises(AssertionError, match="not close"):
        assert_equals_stock(stock, ours, edges, mistake(edges, 16, monkeypatch), 16)


@pytest.mark.parametrize(("model", "layers"), [("lightgcn", 2), ("mf", 0)])
def test_build_backbone_builds_what_the_settings_name(model, layers):
    config = TrainConfig(model=model, layers=layers, dim=5)
    backbone = build_backbone(config, 7, torch.device("cpu"))
    assert isinstance(backbone, MF if model == "mf" else LightGCN)
    assert backbone.embedding.weight.shape == (7, 5)
    assert backbone.num_layers == layers
