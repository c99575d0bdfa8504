"""Run folders of older code are read and resumed by the code of today.

``old_runs/NAME.tar.gz`` was made by the code before it moved into wings (commit a4ab757): ``whole``
is a run that nobody disturbed, ``part`` the same run killed on its way.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.backends.cpu import get_cpu_capability

from pyg_lth import PruneConfig, find_tickets
from pyg_lth.results.environment import describe_environment
from pyg_lth.results.run_folder import RunFolder

OLD_RUNS = Path(__file__).parent / "old_runs"
OF_THE_SMALL_GRAPH = ("lightgcn-imp", "lightgcn-dynamic", "mf-reinit", "mf-two-seeds")


@pytest.fixture
def unpack(tmp_path):
    def unpack(name):
        with tarfile.open(OLD_RUNS / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        # A run goes on with the versions that it was begun with; `assert_same` allows for others.
        here = describe_environment()["packages"]
        for path in tmp_path.rglob("environment.json"):
            kept = json.loads(path.read_text())
            kept["packages"] = {name: here[name] for name in kept["packages"]}
            path.write_text(json.dumps(kept))
        return tmp_path

    return unpack


def assert_same(actual, expected):
    """Compare bit for bit where torch computes as it did for those who made the old runs."""
    if (torch.__version__.split("+")[0], get_cpu_capability()) == ("2.13.0", "AVX512"):
        assert torch.equal(actual, expected)
    else:
        # Wider or narrower vectors, or another order of adding up.
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def compare_tables(part, whole):
    expected = sorted(path.relative_to(whole) for path in whole.rglob("best.safetensors"))
    assert sorted(path.relative_to(part) for path in part.rglob("best.safetensors")) == expected
    for name in [*expected, *(path.with_name("mask.safetensors") for path in expected)]:
        there = load_file(whole / name)
        for key, table in load_file(part / name).items():
            assert_same(table, there[key])


@pytest.mark.parametrize("name", OF_THE_SMALL_GRAPH)
def test_an_old_run_is_resumed_bit_for_bit(name, unpack, small_graph):
    folder = unpack(name)
    config = PruneConfig(**json.loads((folder / "part" / "config.json").read_text()))
    report = find_tickets(small_graph, config, run_dir=folder / "part", resume=True)
    compare_tables(folder / "part", folder / "whole")
    before = RunFolder(folder / "whole").read_report()
    assert [ticket.remaining for ticket in report.rounds] == [t.remaining for t in before.rounds]
    for ticket, old in zip(report.rounds, before.rounds, strict=True):
        assert ticket.test == pytest.approx(old.test)
        assert ticket.wins == old.wins


def test_an_old_run_of_the_command_line_is_resumed_and_reported(unpack, run, monkeypatch):
    folder = unpack("command-line")
    monkeypatch.chdir(folder)
    code, out, _ = run("prune", "--resume", "part", "--json")
    assert code == 0
    assert json.loads(out)["rounds"][-1]["round"] == 2
    compare_tables(folder / "part", folder / "whole")
    code, out, _ = run("report", "whole")
    dense = RunFolder("whole").read_report().dense
    assert code == 0 and f"{dense.test['recall@5']:.4f}" in out
    assert run("compare", "part", "whole")[0] == 0
