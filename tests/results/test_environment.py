import sys
from importlib import metadata

import pytest
import torch

from pyg_lth import kernels
from pyg_lth.nn.propagation import BACKENDS, Matrix
from pyg_lth.results.environment import check_backends, describe_environment


def test_the_environment_names_versions_and_machine():
    described = describe_environment()
    assert described["packages"]["torch"] == metadata.version("torch")
    assert described["threads"] == torch.get_num_threads()
    assert described["native_kernels"] == kernels.usable(torch.device("cpu"))
    assert described["memory"] > 2**20
    assert (described["gpu"] is None) == (not torch.cuda.is_available())


def test_every_backend_that_can_be_had_is_ok():
    findings = check_backends()
    assert set(findings) == set(BACKENDS)
    assert findings["csr"] == findings["edge-index"] == "ok"


def test_scatter_is_ok_where_it_is_installed():
    pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    assert check_backends()["scatter"] == "ok"


def test_native_is_ok_where_it_is_compiled():
    if not kernels.usable(torch.device("cpu")):
        pytest.skip("the kernels are not compiled")
    assert check_backends()["native"] == "ok"


def test_missing_kernels_are_told_of(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert "C compiler" in check_backends()["native"]
    assert describe_environment()["native_kernels"] is False


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    assert "pip install" in check_backends()["scatter"]


@pytest.mark.parametrize("backend", ["native", "csr"])
@pytest.mark.parametrize("column", [0, 31, 47, 49])
def test_a_backend_that_computes_wrongly_is_told_on(monkeypatch, backend, column):
    build = BACKENDS["csr"]

    def wrong(*layout):
        def product(x):
            out = build(*layout).product(x)
            # On a CPU blocks of 32 columns, and the 18 that are left.
            first = 32 if x.size(1) == 18 else 0
            if first <= column < first + x.size(1):
                out[-1, column - first] += 1
            return out

        return Matrix(product)

    monkeypatch.setitem(BACKENDS, backend, wrong)
    assert "wrong" in check_backends()[backend]


@pytest.mark.parametrize("failure", [ImportError, ValueError, AssertionError])
def test_a_backend_that_fails_is_told_on_however_it_does(monkeypatch, failure):
    def fail(*layout):
        raise failure("no such product\nand more of it")

    monkeypatch.setitem(BACKENDS, "csr", fail)
    findings = check_backends()
    assert findings["csr"] == "no such product"
    assert findings.keys() == BACKENDS.keys()
