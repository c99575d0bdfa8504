"""Methods, backbones and losses of others, without an edit of the package."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

import pyg_lth
from pyg_lth import InputError, PruneConfig, TrainConfig, find_tickets, strategies
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery import evidence, rewinding
from pyg_lth.lottery.methods import METHODS
from pyg_lth.nn.backbones import BACKBONES, build_backbone
from pyg_lth.pruning import criteria
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.strategies import PluginWarning
from pyg_lth.tickets.building import build_ticket
from pyg_lth.training.losses import LOSSES
from pyg_lth.training.problem import Problem

PLUGIN = Path(__file__).parent / "plugin"
CPU = torch.device("cpu")


@pytest.fixture
def guests(registries):
    """The module that the plugin of the tests brings, imported here."""
    spec = importlib.util.spec_from_file_location("lth_guests", PLUGIN / "lth_guests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", [METHODS, BACKBONES, LOSSES])
def test_what_is_listed_is_what_is_there(kind):
    for name in kind.names():
        assert kind[name] is not None
        assert kind.guest(name) is None


@pytest.mark.parametrize(
    ("setting", "known"), [("method", "imp"), ("model", "lightgcn"), ("loss", "bpr")]
)
def test_an_unknown_name_is_refused_with_the_known_ones(setting, known):
    with pytest.raises(ValidationError, match=f"there is no .* 'nothing': known are .*{known}"):
        PruneConfig(**{setting: "nothing"})


@pytest.mark.parametrize("name", ["", "Imp", "a b", "-a", "a--b", "a/b", "../a", "ä"])
def test_a_malformed_name_is_refused(registries, name):
    with pytest.raises(ValueError, match="cannot name a method"):
        pyg_lth.register_method(name, METHODS["imp"])


def test_a_name_that_is_taken_is_refused(registries):
    with pytest.raises(ValueError, match="there is a method 'imp' already"):
        pyg_lth.register_method("imp", METHODS["random"])
    pyg_lth.register_method("mine", METHODS["random"])
    with pytest.raises(ValueError, match="there is a method 'mine' already"):
        pyg_lth.register_method("mine", METHODS["random"])


def test_a_method_of_ones_own_finds_tickets(small_graph, quick_config, tmp_path, registries):
    def smallest(weight, generator, gradient):
        return -weight.abs()

    method = pyg_lth.Method(smallest, evidence.dense, rewinding.to_initialization)
    pyg_lth.register_method("smallest-first", method)
    report = find_tickets(small_graph, quick_config(method="smallest-first"), run_dir=tmp_path)
    dense = load_file(tmp_path / "round-000" / "best.safetensors")["embedding.weight"]
    mask = load_file(tmp_path / "round-003" / "mask.safetensors")["mask"]
    assert dense[mask].abs().max() <= dense[~mask].abs().min()
    assert [str(guest) for guest in strategies.guests_in(report.config)] == [
        f"method smallest-first ({__name__})"
    ]
    assert any(
        "smallest-first" in line for line in (tmp_path / "report.md").read_text().split("\n")
    )


def test_settings_follow_from_a_loss_and_a_backbone(registries):
    pyg_lth.register_loss("mine", LOSSES["bpr"], temperature=0.5)
    assert TrainConfig(loss="mine").temperature == 0.5
    assert TrainConfig(loss="mine", temperature=0.2).temperature == 0.2
    pyg_lth.register_backbone("deep", BACKBONES["lightgcn"], layers=5)
    assert TrainConfig(model="deep").layers == 5
    pyg_lth.register_backbone("flat", BACKBONES["mf"])
    with pytest.raises(ValidationError, match="flat has no propagation layers"):
        TrainConfig(model="flat", layers=1)


def test_loops_are_heard(small_graph, quick_config, guests):
    config = quick_config(model="looped")
    split = InteractionSplit.from_data(small_graph)
    problem = Problem.prepare(split, config, CPU)
    weights = problem.initialize()
    model = BACKBONES["looped"].build(70, config)
    model.load_state_dict(weights, strict=False)
    edges = problem.split.joint_edge_index()
    dense = torch.eye(70)
    dense[edges[0], edges[1]] = 1
    scale = dense.sum(dim=1).rsqrt()
    dense = scale[:, None] * dense * scale
    x = weights["embedding.weight"]
    expected = (x + dense @ x + dense @ dense @ x) / 3
    torch.testing.assert_close(model.get_embedding(problem.propagation), expected)


@pytest.mark.parametrize("model", ["looped", "ngcf"])
def test_a_ticket_of_a_guest_ranks_as_the_guest_does(
    small_graph, quick_config, tmp_path, guests, model
):
    config = quick_config(model=model, rounds=1)
    find_tickets(small_graph, config, run_dir=tmp_path)
    ticket = build_ticket(tmp_path, small_graph, round=1)
    problem = Problem.prepare(InteractionSplit.from_data(small_graph), config, CPU)
    trained = build_backbone(config, RunFolder(tmp_path).read_weights(1), CPU)
    expected = trained.get_embedding(problem.propagation).detach()
    torch.testing.assert_close(torch.from_numpy(ticket.embedding().copy()), expected)
    with pytest.raises(InputError, match="takes more than the graph"):
        build_ticket(tmp_path, small_graph, round=1, store="ego")


@pytest.mark.parametrize("method", ["imp", "finetune", "reinit", "snip", "dynamic"])
def test_a_backbone_with_more_parameters_trains_prunes_and_resumes(
    small_graph, quick_config, tmp_path, guests, method
):
    config = quick_config(model="ngcf", method=method, rounds=2)
    report = find_tickets(small_graph, config, run_dir=tmp_path / "whole")
    theta0 = load_file(tmp_path / "whole" / "theta0.safetensors")
    best = load_file(tmp_path / "whole" / "round-002" / "best.safetensors")
    assert (
        set(best) == set(theta0) == {name for name, _ in guests.NGCF(70, config).named_parameters()}
    )
    assert all((best[name] != theta0[name]).any() for name in best)
    mask = load_file(tmp_path / "whole" / "round-002" / "mask.safetensors")["mask"]
    assert not best["embedding.weight"][~mask].any()

    class Stop(pyg_lth.Callback):
        def on_epoch(self, record):
            if record.round == 1 and record.epoch == 2:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        find_tickets(
            small_graph, config, run_dir=tmp_path / "part", callback=Stop(), checkpoint_seconds=0
        )
    again = find_tickets(small_graph, config, run_dir=tmp_path / "part", resume=True)
    assert [r.test for r in again.rounds] == [r.test for r in report.rounds]
    for name, value in load_file(tmp_path / "part" / "round-002" / "best.safetensors").items():
        assert torch.equal(value, best[name])


class EntryPoint:
    """An entry point of an installed distribution, as importlib.metadata has it."""

    name = "stranger"

    class dist:
        name, version = "strangers", "0.3"

    def load(self):
        raise ImportError("no module named\nnumba")


def test_a_plugin_that_fails_is_one_line_and_the_rest_works(monkeypatch):
    monkeypatch.setattr(strategies.metadata, "entry_points", lambda group: [EntryPoint()])
    strategies.plugins.cache_clear()
    try:
        with pytest.warns(PluginWarning) as warned:
            assert "imp" in METHODS.names()
        assert [str(warning.message) for warning in warned] == [
            "plugin stranger of strangers 0.3 cannot be used: ImportError: no module named numba"
        ]
        assert METHODS["imp"].criterion is criteria.magnitude
    finally:
        monkeypatch.undo()
        strategies.plugins.cache_clear()


def test_a_plugin_is_used_from_the_command_line(tmp_path):
    site = tmp_path / "site"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    source = tmp_path / "source"
    source.mkdir()
    for path in PLUGIN.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    subprocess.run([sys.executable, "-m", *install, source], check=True, capture_output=True)

    def pyg_lth(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "pyg_lth.cli", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(site)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("Warning: plugin broken of lth-guests 1.2 cannot be used") == 1
        return done.stdout

    quick = "--model looped --method largest-rows --rounds 1 --dim 4 --max-epochs 1 --eval-every 1"
    report = json.loads(pyg_lth("prune", *quick.split(), "--out", "run", "--json"))
    assert report["rounds"][0]["density"] == pytest.approx(0.9, abs=1e-3)
    shown = " ".join(pyg_lth("report", "run").split())
    assert "method largest-rows (lth-guests 1.2, lth_guests)" in shown
    assert "backbone looped (lth-guests 1.2, lth_guests)" in shown
    plugins = {p["name"]: p for p in json.loads(pyg_lth("doctor", "--json"))["plugins"]}
    assert plugins["guests"]["error"] is None
    assert "a_module_that_nobody_has" in plugins["broken"]["error"]
