import sys

import pytest
import torch

from pyg_lth import InputError, Propagation, kernels
from pyg_lth.nn.propagation import BACKENDS, Matrix, _PolynomialAt


# Those of Triton are interpreted without a GPU, slowly: tests/kernels/test_on_cuda.py.
@pytest.fixture(params=[name for name in BACKENDS if not name.startswith("triton")])
def backend(request):
    if request.param == "scatter":
        pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    if request.param == "native" and not kernels.usable(torch.device("cpu")):
        pytest.skip("the kernels are not compiled")
    return request.param


ALPHA = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.75])


@pytest.fixture(params=[1, 2, 32])
def columns_at_once(request, monkeypatch):
    monkeypatch.setattr("pyg_lth.nn.propagation.COLUMNS_AT_ONCE", request.param)


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
    monkeypatch.setattr("pyg_lth.nn.propagation.COLUMNS_AT_ONCE", columns)
    torch.testing.assert_close(propagation.combine_layers(x, alpha), expected)


def test_a_product_alone_is_differentiable(joint_edges, backend):
    edges = joint_edges(6, 4, 12, seed=0)
    x = torch.randn(10, 3, requires_grad=True)
    (Propagation(edges, 10, backend) @ x).sum().backward()
    torch.testing.assert_close(
        x.grad, dense_adjacency(edges, 10).sum(dim=0).float().unsqueeze(1).expand(10, 3)
    )


@pytest.fixture
def precise(joint_edges, monkeypatch):
    """A propagation in float64, which finite differences need."""
    edges = joint_edges(4, 3, 7, seed=0)
    dense = dense_adjacency(edges, 7)
    monkeypatch.setitem(BACKENDS, "csr", lambda row, col, weight, rowptr: Matrix(dense.matmul))
    return Propagation(edges, 7, "csr")


def test_gradient_stands_up_to_finite_differences(precise):
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    alpha = ALPHA.double()
    assert torch.autograd.gradcheck(precise.combine_layers, (x, alpha))
    assert torch.autograd.gradgradcheck(precise.combine_layers, (x, alpha))


@pytest.mark.parametrize("num_layers", [0, 1, 2, 4])
def test_gradient_of_some_rows_stands_up_to_finite_differences(
    precise, columns_at_once, num_layers
):
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    alpha, nodes = ALPHA[: num_layers + 1].double(), torch.tensor([3, 0, 3, 6, 3])
    assert torch.autograd.gradcheck(lambda x: precise.combine_layers_at(nodes, x, alpha), (x,))


def test_a_second_derivative_of_some_rows_is_refused(precise):
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    out, _ = precise.combine_layers_at(torch.tensor([3, 0]), x, ALPHA)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


def out_and_gradient(propagated, ego, x, used):
    """Both results, and the gradient of random projections of those that are used."""
    generator = torch.Generator().manual_seed(1)
    loss = 0
    for name, result in (("propagated", propagated), ("ego", ego)):
        direction = torch.randn(result.shape, generator=generator)
        if used in (name, "both"):
            loss = loss + (result * direction).sum()
    return propagated, ego, torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("used", ["both", "propagated", "ego"])
@pytest.mark.parametrize("num_layers", [0, 1, 2, 3, 4])
def test_some_rows_are_those_of_the_whole(joint_edges, backend, columns_at_once, num_layers, used):
    # The last node has no edge, and no row is asked for of the last but one.
    edges, nodes = joint_edges(6, 4, 12, seed=0), torch.tensor([3, 0, 3, 10, 8, 5, 3, 0])
    x, alpha = torch.randn(11, 5, requires_grad=True), ALPHA[: num_layers + 1]
    propagation = Propagation(edges, 11, backend)
    actual = out_and_gradient(*propagation.combine_layers_at(nodes, x, alpha), x, used)

    dense = dense_adjacency(edges, 11)
    whole = sum(a * dense.matrix_power(n) for n, a in enumerate(alpha.tolist())) @ x.double()
    expected = out_and_gradient(whole[nodes].float(), x[nodes], x, used)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)

    whole = propagation.combine_layers(x, alpha)
    expected = out_and_gradient(whole[nodes], x[nodes], x, used)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_no_rows_are_none(joint_edges, backend, num_layers):
    x = torch.randn(10, 5, requires_grad=True)
    nodes = torch.empty(0, dtype=torch.int64)
    out, ego = Propagation(joint_edges(6, 4, 12, seed=0), 10, backend).combine_layers_at(
        nodes, x, ALPHA[: num_layers + 1]
    )
    assert out.shape == ego.shape == (0, 5)
    (out.sum() + ego.sum()).backward()
    assert x.grad.count_nonzero() == 0


def test_memory_may_lie_in_any_order(joint_edges, backend):
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, backend)
    plain = torch.randn(10, 6)
    nodes = torch.tensor([[3, 9], [0, 9], [3, 9], [8, 9]])[:, 0]
    wanted = nodes.contiguous()
    across = plain.t().contiguous().t().requires_grad_()
    assert not (nodes.is_contiguous() or across.is_contiguous())
    plain.requires_grad_()
    for columns in (slice(0, 6), slice(1, 4)):
        actual, expected = (
            (
                propagation.combine_layers(x[:, columns], ALPHA),
                *propagation.combine_layers_at(n, x[:, columns], ALPHA),
            )
            for x, n in ((across, nodes), (plain, wanted))
        )
        torch.testing.assert_close(actual, expected)
        # The gradient of a sum is one number in memory, that of a transpose lies across.
        for loss in (torch.sum, lambda out: (out.t().contiguous() * torch.arange(len(out))).sum()):
            grads = [
                torch.autograd.grad(sum(map(loss, outs)), x, retain_graph=True)[0]
                for outs, x in ((actual, across), (expected, plain))
            ]
            torch.testing.assert_close(*grads)


@pytest.mark.parametrize("num_rows", [9, 11])
def test_embeddings_of_another_number_of_nodes_are_refused(joint_edges, backend, num_rows):
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, backend)
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        propagation @ torch.randn(num_rows, 3)


@pytest.mark.parametrize("num_rows", [9, 11])
def test_native_reads_no_rows_that_are_not_there(joint_edges, num_rows):
    if not kernels.usable(torch.device("cpu")):
        pytest.skip("the kernels are not compiled")
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, "native")
    with pytest.raises(ValueError, match=f"{num_rows} rows for a graph of 10 nodes"):
        propagation.combine_layers_at(torch.tensor([0]), torch.randn(num_rows, 3), ALPHA)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
@pytest.mark.parametrize("node", [10, -1])
def test_nodes_out_of_range_are_refused(joint_edges, backend, num_layers, node):
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, backend)
    with pytest.raises(IndexError):
        propagation.combine_layers_at(
            torch.tensor([0, node]), torch.randn(10, 3), ALPHA[: num_layers + 1]
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_native_refuses_what_is_not_float32(joint_edges, dtype):
    if not kernels.usable(torch.device("cpu")):
        pytest.skip("the kernels are not compiled")
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, "native")
    x = torch.randn(10, 3).to(dtype)
    with pytest.raises(TypeError, match=f"float32 .* not {dtype} .* convert it first"):
        propagation @ x
    with pytest.raises(TypeError, match=f"float32 .* not {dtype} .* convert it first"):
        propagation.combine_layers_at(torch.tensor([0]), x, ALPHA)


def test_every_way_to_multiply_is_that_of_the_plain_matrix(joint_edges, backend):
    edges = joint_edges(6, 4, 12, seed=0)
    matrix = Propagation(edges, 11, backend).matrix
    plain = Matrix(dense_adjacency(edges, 11).float().matmul)
    nodes = torch.tensor([3, 0, 3, 10, 8, 5, 3, 0])
    x, rows = torch.randn(11, 21), torch.randn(8, 21)
    torch.testing.assert_close(matrix.product(x), plain.product(x))
    torch.testing.assert_close(matrix.product_at(nodes, x), plain.product_at(nodes, x))
    torch.testing.assert_close(
        matrix.product_from(nodes, rows, 11), plain.product_from(nodes, rows, 11)
    )


def test_a_node_without_edges_gets_a_zero_row(backend):
    out = Propagation(torch.tensor([[0, 2], [2, 0]]), 4, backend) @ torch.ones(4, 2)
    assert out.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]


def test_order_of_the_edges_does_not_matter(joint_edges, backend):
    edges = joint_edges(6, 4, 12, seed=0)
    shuffled = edges[:, torch.randperm(edges.size(1))]
    x = torch.randn(10, 3)
    assert torch.equal(Propagation(edges, 10, backend) @ x, Propagation(shuffled, 10, backend) @ x)


def test_the_csr_adjacency_is_laid_out_once_in_int32(joint_edges, monkeypatch):
    build = torch.sparse_csr_tensor
    built = []

    def spy(crow, col, *args, **kwargs):
        built.append((crow.dtype, col.dtype))
        return build(crow, col, *args, **kwargs)

    monkeypatch.setattr(torch, "sparse_csr_tensor", spy)
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, "csr")
    x = torch.randn(10, 3, requires_grad=True)
    for _ in range(3):
        propagation.combine_layers(x, torch.ones(3)).sum().backward()
    assert built == [(torch.int32, torch.int32)]


@pytest.mark.parametrize("num_edges", [0, 12])
def test_what_lay_in_the_memory_of_a_csr_product_is_not_in_it(joint_edges, monkeypatch, num_edges):
    edges, x = joint_edges(6, 4, num_edges, seed=0), torch.randn(10, 3)
    expected = Propagation(edges, 10, "edge-index") @ x
    propagation = Propagation(edges, 10, "csr")
    dirty = []

    def new_empty(like, *shape):
        dirty.append(like.new_full(shape, torch.nan))
        return dirty[-1]

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    torch.testing.assert_close(propagation @ x, expected)
    assert dirty


def test_backward_costs_as_many_products_as_forward(joint_edges, monkeypatch):
    build = BACKENDS["csr"]
    products = []

    def counted(*layout):
        matrix = build(*layout)
        return Matrix(lambda x: (products.append(tuple(x.shape)), matrix.product(x))[1])

    monkeypatch.setitem(BACKENDS, "csr", counted)
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, "csr")
    x = torch.randn(10, 3, requires_grad=True)
    out = propagation.combine_layers(x, torch.ones(4))
    assert products == [(10, 3)] * 3
    out.sum().backward()
    assert products == [(10, 3)] * 6


def test_auto_is_native_where_it_can_be_used(joint_edges):
    wanted = "native" if kernels.usable(torch.device("cpu")) else "csr"
    assert Propagation(joint_edges(6, 4, 12, seed=0), 10).backend == wanted


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


def test_nodes_that_come_twice_need_not_be_known(joint_edges, backend):
    # As on CUDA, where the host would have to wait to know them.
    propagation = Propagation(joint_edges(6, 4, 12, seed=0), 10, backend)
    nodes, alpha = torch.tensor([3, 9, 3, 0, 3]), torch.tensor([0.5, -1.0, 2.0])
    direction = torch.randn(2, 5, 4)
    results = []
    for at in (
        propagation.combine_layers_at,
        lambda nodes, x, alpha: _PolynomialAt.apply(x, alpha, propagation.matrix, nodes, nodes),
    ):
        x = torch.arange(40.0).view(10, 4).requires_grad_()
        out = torch.stack(at(nodes, x, alpha))
        (out * direction).sum().backward()
        results.append((out, x.grad))
    for known, unknown in zip(*results, strict=True):
        torch.testing.assert_close(unknown, known)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_empty_rows_are_left_out_without_changing_a_bit(joint_edges, backend, num_layers, share):
    living = torch.rand(90) < share
    whole = Propagation(joint_edges(50, 40, 300, seed=0), 90, backend)
    alpha, nodes = torch.rand(num_layers + 1), torch.randint(90, (60,))
    table, grads = torch.randn(90, 40) * living[:, None], torch.randn(2, 60, 40)

    def run(propagation):
        x = table.clone().requires_grad_()
        outs = propagation.combine_layers_at(nodes, x, alpha)
        torch.autograd.backward(outs, list(grads))
        return *outs, x.grad[living]

    for part, right in zip(run(whole.among(living)), run(whole), strict=True):
        assert torch.equal(part, right)
    # What is propagated whole is not thought to have empty rows.
    full = torch.randn(90, 3)
    assert torch.equal(whole.among(living) @ full, whole @ full)
