import sys

import pytest
import torch

from pyg_lth import InputError, Propagation
from pyg_lth.propagation import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "scatter":
        pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    return request.param


def dense_adjacency(edges, num_nodes):
    """Write D^-1/2 A D^-1/2 down as in the LightGCN paper."""
    adjacency = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    for row, col in edges.t().tolist():
        adjacency[row, col] = 1
    scale = torch.tensor([sum(row) ** -0.5 if sum(row) else 0 for row in adjacency.tolist()])
    return scale.double().diag() @ adjacency @ scale.double().diag()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(6, 4, 12), (6, 4, 3), (1, 5, 3), (5, 1, 3)])
def test_product_is_that_of_the_dense_matrix(joint_edges, backend, size, seed):
    num_nodes = size[0] + size[1]
    edges = joint_edges(*size, seed=seed)
    expected = dense_adjacency(edges, num_nodes)
    propagation = Propagation(edges, num_nodes, backend)
    assert expected.count_nonzero() == 2 * size[2]
    torch.testing.assert_close(propagation @ torch.eye(num_nodes), expected.float())


def test_layers_combine_as_a_polynomial_forward_and_backward(joint_edges, backend):
    edges = joint_edges(6, 4, 12, seed=0)
    dense = dense_adjacency(edges, 10)
    alpha = torch.tensor([0.5, -1.0, 2.0, 0.25])
    polynomial = sum(a * dense.matrix_power(n) for n, a in enumerate(alpha.tolist()))
    x = torch.randn(10, 3, requires_grad=True)
    direction = torch.randn(10, 3)
    out = Propagation(edges, 10, backend).combine_layers(x, alpha)
    (out * direction).sum().backward()
    torch.testing.assert_close(out.double(), polynomial @ x.double(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        x.grad.double(), polynomial.t() @ direction.double(), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("columns", [1, 3, 4, 7])
def test_columns_propagate_alone(joint_edges, backend, monkeypatch, columns):
    propagation = Propagation(joint_edges(60, 40, 500, seed=0), 100, backend)
    x, alpha = torch.randn(100, 7), torch.tensor([0.5, -1.0, 2.0])
    expected = propagation.combine_layers(x, alpha)
    monkeypatch.setattr("pyg_lth.propagation.COLUMNS_AT_ONCE", columns)
    torch.testing.assert_close(propagation.combine_layers(x, alpha), expected)


def test_a_product_alone_is_differentiable(joint_edges, backend):
    edges = joint_edges(6, 4, 12, seed=0)
    x = torch.randn(10, 3, requires_grad=True)
    (Propagation(edges, 10, backend) @ x).sum().backward()
    torch.testing.assert_close(
        x.grad, dense_adjacency(edges, 10).sum(dim=0).float().unsqueeze(1).expand(10, 3)
    )


def test_gradient_stands_up_to_finite_differences(joint_edges, monkeypatch):
    edges = joint_edges(4, 3, 7, seed=0)
    dense = dense_adjacency(edges, 7)
    monkeypatch.setitem(BACKENDS, "csr", lambda row, col, weight, rowptr: dense.matmul)
    propagation = Propagation(edges, 7)
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(propagation.combine_layers, (x, alpha))


def test_a_node_without_edges_gets_a_zero_row(backend):
    out = Propagation(torch.tensor([[0, 2], [2, 0]]), 4, backend) @ torch.ones(4, 2)
    assert out.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]


def test_order_of_the_edges_does_not_matter(joint_edges, backend):
    edges = joint_edges(6, 4, 12, seed=0)
    shuffled = edges[:, torch.randperm(edges.size(1))]
    x = torch.randn(10, 3)
    assert torch.equal(Propagation(edges, 10, backend) @ x, Propagation(shuffled, 10, backend) @ x)


def test_the_adjacency_is_laid_out_once_in_int32(joint_edges, monkeypatch):
    build = torch.sparse_csr_tensor
    built = []

    def spy(crow, col, *args, **kwargs):
        built.append((crow.dtype, col.dtype))
        return build(crow, col, *args, **kwargs)

    monkeypatch.setattr(torch, "sparse_csr_tensor", spy)
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10)
    x = torch.randn(10, 3, requires_grad=True)
    for _ in range(3):
        propagation.combine_layers(x, torch.ones(3)).sum().backward()
    assert built == [(torch.int32, torch.int32)]


def test_backward_costs_as_many_products_as_forward(joint_edges, monkeypatch):
    build = BACKENDS["csr"]
    products = []

    def counted(*layout):
        product = build(*layout)
        return lambda x: (products.append(tuple(x.shape)), product(x))[1]

    monkeypatch.setitem(BACKENDS, "csr", counted)
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10)
    x = torch.randn(10, 3, requires_grad=True)
    out = propagation.combine_layers(x, torch.ones(4))
    assert products == [(10, 3)] * 3
    out.sum().backward()
    assert products == [(10, 3)] * 6


def test_scatter_without_torch_scatter_names_the_remedy(joint_edges, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    with pytest.raises(InputError) as error:
        Propagation(joint_edges(6, 4, 12, seed=0), 10, "scatter")
    message = str(error.value)
    assert "\n" not in message
    assert "pip install" in message
    assert "torch-scatter" in message


def test_repr_names_nodes_and_backend(joint_edges, backend):
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, backend)
    assert repr(propagation) == f"Propagation(num_nodes=10, backend={backend!r})"
