import sys
from importlib import metadata

import pytest
import torch

from pyg_lth.environment import check_backends, describe_environment
from pyg_lth.propagation import BACKENDS


def test_the_environment_names_versions_and_machine():
    described = describe_environment()
    assert described["packages"]["torch"] == metadata.version("torch")
    assert described["threads"] == torch.get_num_threads()
    assert described["memory"] > 2**20
    assert (described["gpu"] is None) == (not torch.cuda.is_available())


def test_every_backend_that_can_be_had_is_ok():
    findings = check_backends()
    assert set(findings) == set(BACKENDS)
    assert findings["csr"] == findings["edge-index"] == "ok"


def test_scatter_is_ok_where_it_is_installed():
    pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    assert check_backends()["scatter"] == "ok"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    assert "pip install" in check_backends()["scatter"]


def test_a_backend_that_computes_wrongly_is_told_on(monkeypatch):
    monkeypatch.setitem(BACKENDS, "csr", lambda row, col, weight, rowptr: lambda x: 2 * x)
    assert "wrong" in check_backends()["csr"]
