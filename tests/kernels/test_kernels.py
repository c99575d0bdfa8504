import os
import re
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import pyg_lth.kernels
from pyg_lth import InputError, Mask, Propagation, kernels
from pyg_lth.interactions import InteractionSplit
from pyg_lth.kernels.signatures import SIGNATURES, Memory
from pyg_lth.nn import propagation
from pyg_lth.nn.backbones import TABLE
from pyg_lth.nn.propagation import AHEAD
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training

CPU = torch.device("cpu")
SOURCES = sorted(Path(pyg_lth.kernels.__file__).parent.glob("*.c"))
DIMS = [*range(1, 41), 50, 64, 100]

compiled = pytest.mark.skipif(not kernels.usable(CPU), reason="the kernels are not compiled")


def random_entries(num_nodes, num_edges):
    places = torch.randperm(num_nodes**2)[:num_edges].sort().values
    return [(p // num_nodes, p % num_nodes, float(torch.rand(()))) for p in places.tolist()]


# Number of nodes, and the entries (row, column, value) of a matrix that need not be symmetric.
MATRICES = {
    "random": lambda: (9, random_entries(9, 25)),
    "full": lambda: (7, random_entries(7, 49)),
    "sparse": lambda: (12, random_entries(12, 5)),
    "one long row": lambda: (40, [(7, col, 0.1 * col) for col in range(40)]),
    "one long column": lambda: (40, [(row, 7, 0.1 * row) for row in range(40)]),
    "last entry only": lambda: (5, [(4, 4, 0.5)]),
    "no entries": lambda: (4, []),
    "one node": lambda: (1, [(0, 0, 0.5)]),
    "one node without an edge": lambda: (1, []),
}


@pytest.fixture(params=MATRICES)
def matrix(request):
    return MATRICES[request.param]()


def layout_of(num_nodes, entries):
    rows = torch.tensor([row for row, _, _ in entries], dtype=torch.int64)
    cols = torch.tensor([col for _, col, _ in entries], dtype=torch.int32)
    degree = torch.bincount(rows, minlength=num_nodes)
    weight = torch.tensor([value for _, _, value in entries])
    return F.pad(degree.cumsum(0), (1, 0)), F.pad(cols, (0, AHEAD), value=num_nodes - 1), weight


def some_rows(num_nodes):
    """None of them, one, all in another order, and many with repetitions."""
    return [
        torch.empty(0, dtype=torch.int64),
        torch.tensor([num_nodes - 1]),
        torch.randperm(num_nodes),
        torch.randint(num_nodes, (3 * num_nodes,)),
    ]


def call(name, layout, numbers, x, num_rows):
    """Call a kernel, and see that it fills its result and leaves what follows alone."""
    buffer = torch.full((num_rows + 2, x.size(1)), torch.nan)
    kernels.call(name, *layout, *numbers, x, x.size(1), AHEAD, buffer[:num_rows])
    assert buffer[num_rows:].isnan().all()
    return buffer[:num_rows]


def gather(layout, rows, x):
    num_rows = x.size(0) if rows is None else rows.numel()
    return call("gather", layout, (rows, num_rows), x, num_rows)


def scatter(layout, rows, num_nodes, x):
    return call("scatter", layout, (rows, rows.numel(), num_nodes), x, num_nodes)


def gather_by_loops(entries, rows, x):
    out = torch.zeros(len(rows), x.size(1), dtype=torch.float64)
    for place, wanted in enumerate(rows):
        for row, col, value in entries:
            if row == wanted:
                out[place] += value * x[col].double()
    return out


def scatter_by_loops(entries, rows, num_nodes, x):
    out = torch.zeros(num_nodes, x.size(1), dtype=torch.float64)
    for place, wanted in enumerate(rows):
        for row, col, value in entries:
            if row == wanted:
                out[col] += value * x[place].double()
    return out


def assert_close(actual, expected):
    torch.testing.assert_close(actual.double(), expected, atol=1e-6, rtol=1e-5)


@compiled
def test_gather_multiplies_as_loops_do(matrix):
    num_nodes, entries = matrix
    layout, x = layout_of(*matrix), torch.randn(num_nodes, max(DIMS))
    expected = gather_by_loops(entries, range(num_nodes), x)
    for dim in DIMS:
        assert_close(gather(layout, None, x[:, :dim].contiguous()), expected[:, :dim])


@compiled
def test_gather_of_some_rows_multiplies_as_loops_do(matrix):
    num_nodes, entries = matrix
    layout, x = layout_of(*matrix), torch.randn(num_nodes, max(DIMS))
    for rows in some_rows(num_nodes):
        expected = gather_by_loops(entries, rows.tolist(), x)
        for dim in DIMS:
            assert_close(gather(layout, rows, x[:, :dim].contiguous()), expected[:, :dim])


@compiled
def test_scatter_multiplies_as_loops_do(matrix):
    num_nodes, entries = matrix
    layout = layout_of(*matrix)
    for rows in some_rows(num_nodes):
        x = torch.randn(rows.numel(), max(DIMS))
        expected = scatter_by_loops(entries, rows.tolist(), num_nodes, x)
        for dim in DIMS:
            actual = scatter(layout, rows, num_nodes, x[:, :dim].contiguous())
            assert_close(actual, expected[:, :dim])


@compiled
@pytest.mark.parametrize("num_rows", [255, 256, 257, 512, 600])
def test_gather_goes_through_all_rows_of_a_larger_matrix(num_rows):
    entries = random_entries(600, 1500)
    layout, x = layout_of(600, entries), torch.randn(600, 3)
    whole = torch.zeros(600, 3, dtype=torch.float64)
    for row, col, value in entries:
        whole[row] += value * x[col].double()
    rows = torch.randint(600, (num_rows,))
    assert_close(gather(layout, rows, x), whole[rows])
    assert_close(gather(layout, None, x), whole)


# Torch's threads are set for a process, so this needs one of its own.
WITH_SEVERAL_THREADS = """
import torch
from pyg_lth import Propagation, kernels

torch.manual_seed(0)
torch.use_deterministic_algorithms(True)  # fills new memory with NaN, so that no row is left out

def random(first, last, num_edges):
    return torch.randint(first, last, (num_edges,))

def both_ways(row, col):
    edges = torch.stack([row, col]).unique(dim=1)
    return torch.cat([edges, edges.flip(0)], dim=1)

graphs = {
    "random": (900, both_ways(random(0, 400, 3000), random(400, 900, 3000))),
    "star": (901, both_ways(torch.zeros(900, dtype=torch.long), torch.arange(1, 901))),
    "late star": (901, both_ways(torch.arange(900), torch.full((900,), 900))),
    "isolated ends": (700, both_ways(random(200, 250, 99), random(250, 300, 99))),
    "fewer edges than threads": (5, both_ways(torch.tensor([1]), torch.tensor([3]))),
    "no edges": (3, torch.empty(2, 0, dtype=torch.long)),
}
for name, (num_nodes, edges) in graphs.items():
    native, csr = (Propagation(edges, num_nodes, backend).matrix for backend in ("native", "csr"))
    for dim in (1, 7, 33, 64):
        x, nodes = torch.randn(num_nodes, dim), torch.randint(num_nodes, (1000,))
        rows = torch.randn(1000, dim)

        def products(matrix):
            return (
                matrix.product(x),
                matrix.product_at(nodes, x),
                matrix.product_from(nodes, rows, num_nodes),
            )

        expected = products(csr)
        first = None
        for threads in (1, 2, 3, 5, 16):
            torch.set_num_threads(threads)
            assert kernels.library().omp_get_max_threads() == threads
            actual = products(native)
            first = first or actual
            for one, other, wanted in zip(first, actual, expected):
                assert torch.equal(one, other), (name, dim, threads)
                # A node of many edges sums large numbers.
                torch.testing.assert_close(other, wanted, atol=1e-6, rtol=1e-4)
        torch.set_num_threads(1)
"""


@compiled
def test_products_are_those_of_torch_and_the_same_bits_on_any_number_of_threads():
    subprocess.run([sys.executable, "-c", WITH_SEVERAL_THREADS], check=True)


@compiled
def test_the_layout_leaves_room_for_looking_ahead(joint_edges, monkeypatch):
    calls, run = [], kernels.call
    monkeypatch.setattr(kernels, "call", lambda *given: (calls.append(given), run(*given)))
    _ = Propagation(joint_edges(6, 4, 12, seed=0), 10, "native") @ torch.randn(10, 3)
    ((name, rowptr, col, weight, _, _, _, _, ahead, _),) = calls
    assert name == "gather"
    assert (rowptr.dtype, col.dtype, weight.dtype) == (torch.int64, torch.int32, torch.float32)
    assert weight.numel() == rowptr[-1] == 24
    assert col.numel() == 24 + ahead
    assert 0 <= col.min() <= col.max() < 10


@compiled
@pytest.mark.parametrize(
    ("position", "argument", "named"),
    [
        (0, torch.zeros(5, dtype=torch.int32), "torch.int32"),
        (1, torch.zeros(99, dtype=torch.int64), "torch.int64"),
        (3, torch.zeros(4, dtype=torch.int32), "torch.int32"),
        (5, torch.zeros(4, 2, dtype=torch.float64), "torch.float64"),
        (5, torch.zeros(4, 2, dtype=torch.float16), "torch.float16"),
        (5, torch.zeros(2, 4).t(), r"strides \(1, 4\)"),
        (5, torch.zeros(4, 2, device="meta"), "on meta"),
    ],
)
def test_memory_of_another_kind_is_not_read(position, argument, named):
    arguments = [*layout_of(4, []), None, 4, torch.zeros(4, 2), 2, AHEAD, torch.zeros(4, 2)]
    kernels.call("gather", *arguments)
    arguments[position] = argument
    with pytest.raises(TypeError, match=named) as error:
        kernels.call("gather", *arguments)
    assert "\n" not in str(error.value)


@compiled
@pytest.mark.parametrize(
    ("position", "argument", "kind", "named"),
    [
        (0, None, TypeError, "takes as rowptr a tensor of torch.int64, not None"),
        (0, 4096, TypeError, "takes as rowptr a tensor of torch.int64, not 4096"),
        (8, 0.5, TypeError, "takes as out a tensor of torch.float32, not 0.5"),
        (4, torch.zeros(4), TypeError, r"takes as num_rows a number, not \(4,\)"),
        (4, None, TypeError, "takes as num_rows a number, not None"),
        (4, 4.0, TypeError, "takes as num_rows a number, not 4.0"),
        (4, -1, ValueError, "takes as num_rows a number from 0 to"),
        (4, 2**63, ValueError, "takes as num_rows a number from 0 to"),
        (4, 5, ValueError, r"takes as rows a shape of \(num_rows\), not None"),
        (6, 3, ValueError, r"takes as x a shape of \(num_nodes, dim\), not \(4, 2\)"),
        (7, AHEAD + 1, ValueError, r"takes as col a shape of \(num_edges \+ ahead\)"),
        (2, torch.zeros(9), ValueError, "takes as weight a shape of"),
        (5, torch.zeros(3, 2), ValueError, "takes as x a shape of"),
        (5, torch.zeros(8), ValueError, "takes as x a shape of"),
        (8, torch.zeros(3, 2), ValueError, "takes as out a shape of"),
        (3, torch.zeros(3, dtype=torch.int64), ValueError, "takes as rows a shape of"),
    ],
)
def test_no_other_memory_is_read_than_the_sizes_say(position, argument, kind, named):
    arguments = [*layout_of(4, []), None, 4, torch.zeros(4, 2), 2, AHEAD, torch.zeros(4, 2)]
    arguments[position] = argument
    with pytest.raises(kind, match=named) as error:
        kernels.call("gather", *arguments)
    assert "\n" not in str(error.value)


@compiled
def test_a_missing_argument_is_named():
    with pytest.raises(TypeError, match=r"the native add_up takes 6 arguments: .*'place'"):
        kernels.call("add_up", torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_that_of_the_function_in_c(name):
    source = "".join(path.read_text() for path in SOURCES)
    ((declared,),) = [re.findall(rf"^void {name}\(\n([^)]*)\)", source, re.MULTILINE)]
    types = {int: "int64_t", float: "float", torch.int64: "int64_t", torch.int32: "int32_t"}
    types |= {torch.float32: "float", torch.float64: "double"}
    expected = [
        f"{types[kind.dtype]} *{key}" if isinstance(kind, Memory) else f"{types[kind]} {key}"
        for key, kind in SIGNATURES[name].items()
    ]
    assert [" ".join(one.split()).removeprefix("const ") for one in declared.split(",")] == expected


@compiled
def test_more_nodes_than_int32_can_count_are_refused():
    # As wide as that without the memory.
    rowptr = torch.zeros(1, dtype=torch.int64).expand(2**31 + 2)
    none = torch.empty(0, dtype=torch.int64)
    with pytest.raises(InputError, match=r"counts nodes in int32.*`propagation=csr`"):
        propagation.BACKENDS["native"](none, none, torch.empty(0), rowptr)


# Threads of Python give each other the turn while a kernel runs; only long ones show what they do.
@compiled
def test_threads_share_a_propagation(joint_edges):
    shared, x = Propagation(joint_edges(300, 200, 900, seed=0), 500), torch.randn(500, 4)

    def differing(seed):
        source, wrong = torch.Generator().manual_seed(seed), 0
        for _ in range(150):
            nodes = torch.randint(500, (6000,), generator=source)
            _, ego = shared.combine_layers_at(nodes, x, torch.full((2,), 0.5))
            wrong += not torch.equal(ego, x[nodes])
        return wrong

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(differing, range(4))) == [0] * 4


@compiled
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_a_step_multiplies_the_whole_matrix_once_less_each_way(
    small_graph, quick_config, monkeypatch, num_layers
):
    training, batch = first_step(small_graph, quick_config(layers=num_layers, propagation="native"))
    calls, run = [], kernels.call

    def spy(name, *arguments):
        if name in ("gather", "scatter"):
            whole = name == "gather" and arguments[3] is None
            calls.append("product" if whole else name)
        run(name, *arguments)

    monkeypatch.setattr(kernels, "call", spy)
    training.step(batch)
    products = ["product"] * (num_layers - 1)
    assert calls == [*products, "gather", "scatter", *products]


def first_step(graph, config):
    problem = Problem.prepare(InteractionSplit.from_data(graph), config, CPU)
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    return training, next(iter(problem.sampler.epoch(torch.Generator().manual_seed(0))))


def test_kernels_are_not_for_a_gpu():
    assert not kernels.usable(torch.device("cuda"))


def nothing_compiled(name):
    return None


def no_file(name):
    return types.SimpleNamespace(origin=None)


def not_a_library(name):
    return types.SimpleNamespace(origin=__file__)


@pytest.mark.parametrize("find_spec", [nothing_compiled, no_file, not_a_library])
def test_without_a_library_there_are_no_kernels(monkeypatch, find_spec):
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    assert kernels.library.__wrapped__() is None


@pytest.fixture
def without_library(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)


def test_without_a_library_auto_is_csr(without_library, joint_edges):
    assert not kernels.usable(CPU)
    assert Propagation(joint_edges(6, 4, 12, seed=0), 10).backend == "csr"


def test_without_a_library_native_names_the_remedy(without_library, joint_edges):
    with pytest.raises(InputError, match="`propagation=csr`") as error:
        Propagation(joint_edges(6, 4, 12, seed=0), 10, "native")
    message = str(error.value)
    assert "\n" not in message
    assert "C compiler" in message


def test_a_step_without_a_library_is_that_with_one(small_graph, quick_config, monkeypatch):
    config = quick_config(layers=3)
    training, batch = first_step(small_graph, config)
    expected = training.step(batch), training.model.embedding.weight.detach()
    monkeypatch.setattr(kernels, "library", lambda: None)
    training, batch = first_step(small_graph, config)
    assert training.problem.propagation.backend == "csr"
    actual = training.step(batch), training.model.embedding.weight.detach()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_sources_compile_without_a_warning(source, tmp_path):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    options = ["-O3", "-fopenmp", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [compiler, *options, "-c", source, "-o", tmp_path / "object.o"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_there_are_sources_to_compile():
    assert "propagation.c" in [source.name for source in SOURCES]


@pytest.mark.skipif(kernels.library() is None, reason="the kernels are not compiled")
def test_kernels_older_than_the_package_are_told_on(monkeypatch):
    kernels.library.cache_clear()
    monkeypatch.setitem(SIGNATURES, "newer", {"size": int})
    try:
        with pytest.raises(InputError, match="lack 'newer', they are older than the package"):
            kernels.library()
    finally:
        kernels.library.cache_clear()
