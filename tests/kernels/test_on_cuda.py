"""The kernels in Triton, run by its interpreter where there is no CUDA device, on tiny graphs."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from pyg_lth import InputError, Propagation, kernels
from pyg_lth.nn import propagation as propagations
from pyg_lth.training import losses
from pyg_lth.training.optimizers import BETAS, EPSILON
from pyg_lth.training.sampling import Parts

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

on_cuda = pytest.importorskip(
    "pyg_lth.kernels.on_cuda", reason="Triton is not installed", exc_type=ImportError
)

ALPHA = torch.tensor([0.5, -1.0, 2.0, 0.25])

# Nodes, and edges in one direction.
GRAPHS = {
    "one node": (1, []),
    "no edges": (3, []),
    "one edge": (2, [(0, 1)]),
    "a long row among empty ones": (9, [(0, 2), (0, 3), (0, 5), (0, 6), (0, 7), (1, 2), (1, 7)]),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Rows are split from three edges on, which are fetched two at a time."""
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_PROGRAM", 3)
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_LISTED", 2)
    monkeypatch.setattr(on_cuda, "EDGES_AT_ONCE", 2)
    monkeypatch.setattr(on_cuda, "NODES_AT_ONCE", 4)
    monkeypatch.setattr(propagations, "COLUMNS_AT_ONCE", 1024)


def prepare(graph, backend="triton"):
    num_nodes, pairs = GRAPHS[graph]
    edges = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t()
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    plain = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    for row, col in itertools.chain(pairs, (pair[::-1] for pair in pairs)):
        plain[row, col] = (len(edges[0][edges[0] == row]) * len(edges[0][edges[0] == col])) ** -0.5
    return Propagation(edges.to(DEVICE), num_nodes, backend), plain


def polynomial(plain, x, alpha):
    return sum(a * plain.matrix_power(n) @ x for n, a in enumerate(alpha.tolist()))


def same(found, expected):
    torch.testing.assert_close(found.cpu().double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dim", [1, 7, 32, 33, 128])
def test_layers_combine_as_a_polynomial_forward_and_backward(graph, dim):
    propagation, plain = prepare(graph)
    x = torch.randn(len(plain), dim)
    placed = x.clone().to(DEVICE).requires_grad_()
    out = propagation.combine_layers(placed, ALPHA.to(DEVICE))
    same(out, polynomial(plain, x.double(), ALPHA))
    direction = torch.randn_like(x)
    out.backward(direction.to(DEVICE))
    same(placed.grad, polynomial(plain, direction.double(), ALPHA))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("dim", [2, 7])
def test_some_rows_and_their_gradient_are_those_of_the_whole(graph, num_layers, dim):
    propagation, plain = prepare(graph)
    alpha, x = ALPHA[: num_layers + 1], torch.randn(len(plain), dim)
    nodes = torch.randint(len(plain), (6,))  # some come twice
    placed = x.clone().to(DEVICE).requires_grad_()
    found = propagation.combine_layers_at(nodes.to(DEVICE), placed, alpha.to(DEVICE))
    whole = x.double().requires_grad_()
    expected = polynomial(plain, whole, alpha)[nodes], whole[nodes]
    for one, other in zip(found, expected, strict=True):
        same(one, other)
    directions = torch.randn(2, 6, dim)
    for values, along in ((found, directions.to(DEVICE)), (expected, directions.double())):
        sum((v * d).sum() for v, d in zip(values, along, strict=True)).backward()
    same(placed.grad, whole.grad)


def test_no_rows_are_none():
    propagation, _ = prepare("one edge")
    x, none = torch.randn(2, 3, device=DEVICE), torch.empty(0, dtype=torch.long, device=DEVICE)
    x.requires_grad_()
    out, ego = propagation.combine_layers_at(none, x, ALPHA.to(DEVICE))
    assert out.shape == ego.shape == (0, 3)
    (out.sum() + ego.sum()).backward()
    assert not x.grad.any()


@pytest.mark.parametrize("nodes", [[], [5], [0, 0], [3, 1, 3, 3, 0, 9, 1, 7, 8], [2] * 9 + [1] * 3])
def test_distinct_nodes_are_those_of_a_naive_loop(nodes):
    distinct = sorted(set(nodes))
    order = sorted(range(len(nodes)), key=lambda i: (nodes[i], i))
    begin = [[nodes[i] for i in order].index(node) for node in distinct]
    left = len(nodes) - len(distinct)
    found = on_cuda.distinct_nodes(torch.tensor(nodes, dtype=torch.long, device=DEVICE))
    assert [part.tolist() for part in found] == [
        [*distinct, *[-1] * left],
        [distinct.index(node) for node in nodes],
        order,
        [*begin, *[len(nodes)] * (left + 1)],
    ]


def test_tables_that_the_kernels_cannot_read_are_refused():
    propagation, _ = prepare("one edge")
    with pytest.raises(ValueError, match="3 rows for a graph of 2"):
        propagation @ torch.randn(3, 4, device=DEVICE)
    with pytest.raises(TypeError, match="float32"):
        propagation @ torch.randn(2, 4, device=DEVICE).double()


@pytest.mark.parametrize(("dim", "negatives"), [(1, 1), (7, 3), (32, 1)])
def test_bpr_and_its_gradients_are_those_of_the_losses(dim, negatives):
    table, rows = torch.randn(5, dim), 3 * torch.randn(4, dim)
    nodes, place = (torch.randint(high, (2 + negatives, 3)) for high in (5, 4))  # some come twice
    reg = 0.3
    loss, of_rows, of_table = on_cuda.bpr(*(x.to(DEVICE) for x in (nodes, place, rows, table)), reg)
    out, ego = (x.double()[at].requires_grad_() for x, at in ((rows, place), (table, nodes)))
    scores = (out[0] * out[1]).sum(dim=1), (out[0] * out[2:]).sum(dim=2)
    shared = ego.new_empty(0, dim)
    expected = losses.bpr(*scores) + reg * losses.l2(Parts(ego[0], ego[1], ego[2:], shared))
    expected.backward()
    same(loss, expected.detach())
    same(of_rows, out.grad.view(-1, dim))
    same(of_table, ego.grad.view(-1, dim))


@pytest.mark.parametrize("graph", ["one edge", "a long row among empty ones"])
def test_a_step_with_the_last_sums_is_the_one_of_torch(graph):
    propagation, _ = prepare(graph)
    layout, dim = propagation.matrix._layout, 5
    table = torch.randn(propagation.num_nodes, dim, device=DEVICE)
    living = (torch.rand_like(table) < 0.6).float()
    table *= living
    plain = table.clone().requires_grad_()
    rate, betas = torch.tensor(0.05, device=DEVICE), torch.tensor(BETAS, dtype=torch.float64)
    torchs = torch.optim.Adam([plain], lr=0.05, betas=BETAS, eps=EPSILON, fused=True)
    mean, square = torch.zeros_like(table), torch.zeros_like(table)
    for step in range(1, 4):
        if step == 3:
            torchs.param_groups[0]["lr"] = 0.01
            rate.fill_(0.01)
        source, added = torch.randn(2, *table.shape, device=DEVICE)
        sums = (source, propagation.matrix._scale, (added, None, None, rate.new_ones(1)))
        plain.grad = on_cuda.gather(layout, *sums) * living
        torchs.step()
        corrections = (1 - betas**step).to(DEVICE)
        adam = on_cuda.Adam(table, mean, square, living, rate, corrections, BETAS, EPSILON)
        assert on_cuda.gather(layout, *sums, adam=adam) is table
    torch.testing.assert_close(table, plain.detach())
    state = torchs.state[plain]
    torch.testing.assert_close(mean, state["exp_avg"])
    torch.testing.assert_close(square, state["exp_avg_sq"])
    assert not table[living == 0].any() and not mean[living == 0].any()


@pytest.mark.parametrize("dim", [3, 32])
def test_rows_in_bfloat16_give_the_layers_to_their_precision(dim):
    propagation, plain = prepare("a long row among empty ones", "triton-bfloat16")
    alpha, x = ALPHA[:3], torch.randn(len(plain), dim)
    nodes = torch.tensor([0, 7, 2, 0])
    placed, whole = x.clone().to(DEVICE).requires_grad_(), x.double().requires_grad_()
    found, _ = propagation.combine_layers_at(nodes.to(DEVICE), placed, alpha.to(DEVICE))
    expected = polynomial(plain, whole, alpha)[nodes]
    direction = torch.randn(4, dim)
    found.backward(direction.to(DEVICE))
    expected.backward(direction.double())
    for one, other in ((found, expected), (placed.grad, whole.grad)):
        difference = (one.detach().cpu() - other.detach()).abs().max()
        assert 1e-6 < difference < 0.02 * other.abs().max()


def test_rows_in_bfloat16_are_summed_in_float32(monkeypatch):
    """In their own type the sum of ones would stay at 256."""
    monkeypatch.setattr(on_cuda, "EDGES_AT_ONCE", 64)
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_PROGRAM", 256)
    count, one = 700, torch.ones(1, 1, device=DEVICE)
    row = torch.zeros(count, dtype=torch.long, device=DEVICE)
    layout = on_cuda.Layout.of(row.new_tensor([0, count]), row)
    source, nothing = one.bfloat16(), (one, None, None, torch.zeros_like(one))
    assert on_cuda.gather(layout, source, one.view(1), nothing).item() == count


# What a kernel takes on a GPU: pointers to these types, and numbers; the rest is known beforehand.
COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pyg_lth.kernels import on_cuda

TYPES = {
    **dict.fromkeys(("rows", "rowptr", "order", "begin", "nodes", "listed"), "*i64"),
    **dict.fromkeys(("col", "slot", "place"), "*i32"),
    **dict.fromkeys(("source", "parts", "scale", "added", "share", "weight", "out"), "*fp32"),
    **dict.fromkeys(("mean", "square", "living", "rate", "table", "loss"), "*fp32"),
    **dict.fromkeys(("of_rows", "of_table"), "*fp32"),
    **dict.fromkeys(("dim", "most", "size", "negatives", "count"), "i32"),
    "corrections": "*fp64",
    "reg": "fp32",
}
SIZES = {"BY_ROW": True, "OF_A_PROGRAM": 512, "ROWS": 4, "EDGES": 4, "BLOCK": 32}
SIZES |= {"BETA_1": 0.9, "BETA_2": 0.999, "EPSILON": 1e-8}
NO_STEP = dict.fromkeys(("mean", "square", "living", "rate", "corrections"))

def build(kernel, types={}, **known):
    constants = {(i,): known.get(n, SIZES.get(n)) for i, n in enumerate(kernel.arg_names)
                 if n in known or n in SIZES}
    signature = {n: "constexpr" if n in known or n in SIZES else {**TYPES, **types}[n]
                 for n in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    assert "cubin" in compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 1}).asm

build(on_cuda._gather, SPLIT=True, ROWS=1, EDGES=16)
build(on_cuda._gather, SPLIT=False, slot=None, place=None, share=None, **NO_STEP)
build(on_cuda._gather, SPLIT=False)
build(on_cuda._gather, {"source": "*bf16", "out": "*bf16"}, SPLIT=False, **NO_STEP)
build(on_cuda._add_parts)
build(on_cuda._add_parts, **NO_STEP)
build(on_cuda._add_up, {"rows": "*fp32"})
build(on_cuda._group, {"nodes": "*i32", "place": "*i64"}, BLOCK=8192)
BPR = {"rows": "*fp32", "place": "*i64"}
build(on_cuda._bpr, BPR)
# A number that is 1 is known beforehand too.
build(on_cuda._bpr, BPR, negatives=1)
build(on_cuda._bpr, BPR, negatives=1, size=1, dim=1)
"""


def test_the_kernels_compile_for_a_gpu_without_one(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    # Triton reads the source of what it compiles from a file.
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)


def test_without_triton_it_is_refused_in_one_line_and_auto_does_without(monkeypatch):
    kernels.triton_usable.cache_clear()
    monkeypatch.delattr(kernels, "on_cuda")
    monkeypatch.setitem(sys.modules, "pyg_lth.kernels.on_cuda", None)
    edges = torch.tensor([[0, 1], [1, 0]], device=DEVICE)
    with pytest.raises(InputError, match=r"'triton' is not to be had .* `propagation=csr`$"):
        Propagation(edges, 2, "triton")
    assert Propagation(edges, 2).backend != "triton"
    kernels.triton_usable.cache_clear()


def test_auto_takes_triton_on_cuda_alone(monkeypatch):
    monkeypatch.setattr(kernels, "triton_usable", lambda device: True)
    assert propagations._quickest(torch.device("cuda")) == "triton"
    assert propagations._quickest(torch.device("cpu")) != "triton"
