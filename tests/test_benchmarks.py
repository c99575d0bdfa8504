import gc
import json
import math
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
KEYS = {
    "step.lightgcn.vs_pyg",
    "step.lightgcn.vs_pyg_csr",
    "step.lightgcn.vs_recbole",
    "step.lightgcn-64.vs_recbole",
    "step.lightgcn-128.vs_recbole",
    "step.mf.vs_recbole",
    "epoch.mf.seconds",
    "softmax.mf.epoch.seconds",
    "softmax.mf.vs_plain",
    "softmax.lightgcn.bpr_vs",
    "evaluate.vs_pyg_example",
    "evaluate.vs_implicit",
    "prune.seconds",
    "prune.memory_ratio",
    "growth.exponent",
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The benchmarks are not installed: they run from the repository."""
    monkeypatch.syspath_prepend(str(REPOSITORY))


def test_contenders_take_turns_and_a_quick_one_runs_several_times_in_a_turn():
    from benchmarks.measuring import interleave

    turns = []

    def contender(name, seconds):
        def run(count):
            turns.append((name, count))
            return seconds

        return run

    runs = {"slow": contender("slow", 1.0), "quick": contender("quick", 0.05)}
    times = interleave(runs, repeats=2)
    assert times == {"slow": [1.0, 1.0], "quick": [0.05, 0.05]}
    warm_up = [("slow", 1), ("quick", 1), ("quick", 1)]
    assert turns == warm_up + [("slow", 1), ("quick", 4)] * 2


def test_a_peer_that_fails_midway_leaves_the_race_and_the_first_ends_it():
    from benchmarks.measuring import NotMeasured, interleave

    answers = iter([1.0, 1.0])

    def failing(count):
        for seconds in answers:
            return seconds
        raise NotMeasured("gone")

    def steady(count):
        return 1.0

    assert interleave({"ours": steady, "peer": failing}, 3) == {"ours": [1.0] * 3}
    with pytest.raises(NotMeasured, match="gone"):
        interleave({"ours": failing, "peer": steady}, 3)


def test_a_ratio_is_the_median_of_the_turns_own_ratios():
    from benchmarks.measuring import compare

    row = compare({"ours": [1.0, 10.0, 2.0], "peer": [5.0, 30.0, 8.0]})
    assert row["ours"] == 2.0
    assert row["peer"] == 8.0
    assert row["vs_peer"] == 4.0


def test_time_and_memory_of_a_task():
    from benchmarks.measuring import Task, measure

    def run(count):
        assert bytearray(b"x" * 2**27)
        return {"count": count}

    gc.collect()  # What other tests left is not to be let go of amid the measurement.
    answer = measure(Task(run, share=100.0), 4)
    assert 100.0 < answer["seconds"] < 110.0
    assert answer["peak"] - answer["before"] > 2**25
    assert answer["figures"] == {"count": 4}


def test_the_exponent_is_the_slope_of_the_logarithms():
    from benchmarks.growth import slope

    assert slope([10, 100, 1000], [1.0, 8.0, 64.0]) == pytest.approx(math.log10(8))


def test_a_generated_graph_has_distinct_interactions_in_range():
    from benchmarks.growth import generate

    count, pairs = generate(3000)
    assert count == 100
    assert pairs.min() >= 0
    assert pairs.max() < count
    assert pairs.unique(dim=1).size(1) == pairs.size(1) > 2000


def test_peers_that_cannot_start_are_reported_with_their_reason(tmp_path, monkeypatch):
    from benchmarks import contender

    modules = {
        "absent": ("benchmarks.peers.recbole", "no-such-environment", {}),
        "broken": ("benchmarks.peers.pyg", None, {}),  # It has no interactions to load.
    }
    monkeypatch.setattr(contender, "MODULES", modules)
    with contender.Contenders(tmp_path, *modules) as contenders:
        assert "not installed" in contenders.not_measured["absent"]
        assert "FileNotFoundError" in contenders.not_measured["broken"]
        with pytest.raises(contender.NotMeasured, match="FileNotFoundError"):
            contenders.measure("broken", task="step")


def test_our_contender_and_pyg_find_the_same(tmp_path, taste_graph):
    from benchmarks.contender import Contenders
    from benchmarks.data import Interactions, save_embedding

    interactions = Interactions.from_graph(taste_graph)
    interactions.save(tmp_path)
    save_embedding(tmp_path, "any", interactions.random_embedding(4))
    with Contenders(tmp_path, "pyg_lth", "pyg") as contenders:
        ours, theirs = (
            contenders.measure(name, 2, task="evaluate", embedding="any")
            for name in ("pyg_lth", "pyg")
        )
        for name in ("precision", "recall"):
            assert ours["figures"][name] == pytest.approx(theirs["figures"][name], rel=1e-5)
        step = {"task": "step", "dim": 4, "batch_size": 64}
        assert contenders.measure("pyg_lth", 2, **step, model="lightgcn")["seconds"] > 0
        assert contenders.measure("pyg", 2, **step, adjacency="csr")["seconds"] > 0


def test_the_results_file_keeps_parts_of_earlier_runs_and_has_every_ratio(tmp_path):
    from benchmarks.parts import Part
    from benchmarks.results import Results

    path = tmp_path / "results" / "machine.json"
    summary = {"seconds": 1.5, "memory_ratio": 1.25}
    Results(path).add("prune", Part([], summary), seconds=3.0)
    row = {"case": {"embedding": "lightgcn-32"}, "pyg_lth": 1.0, "vs_pyg": 12.0}
    Results(path).add("evaluate", Part([row], not_measured={"implicit": "why"}), seconds=4.0)
    content = json.loads(path.read_text())
    assert content["ratios"].keys() == KEYS
    measured = {key: value for key, value in content["ratios"].items() if value is not None}
    assert measured == {
        "prune.seconds": 1.5,
        "prune.memory_ratio": 1.25,
        "evaluate.vs_pyg_example": 12.0,
    }
    assert content["schema"] == 1
    assert content["device"] == "machine"
    assert content["parts"]["evaluate"]["not_measured"] == {"implicit": "why"}
    assert all({"date", "commit"} <= part.keys() for part in content["parts"].values())
    assert [file.name for file in path.parent.iterdir()] == ["machine.json"]


def test_the_command_explains_itself():
    command = [sys.executable, "-m", "benchmarks", "--help"]
    help_page = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert "--only" in help_page


def test_the_suite_for_the_gpu_runs_through_on_a_stand_in(monkeypatch, taste_graph):
    from benchmarks import gpu
    from benchmarks.data import Interactions

    for name, value in {
        "DEVICE": "cpu",
        "DIMS": (4,),
        "BATCH_SIZES": (64,),
        "GROWTH_EDGES": (3000, 6000),
        "EPOCHS": ({"model": "mf", "dim": 4, "batch_size": 64},),
    }.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu.pruning, "ENTRIES", 3200)
    interactions = Interactions.from_graph(taste_graph)
    split = gpu.ours.to_split(interactions)
    steps = gpu.measure_steps(split, 1)
    assert [row["case"]["model"] for row in steps.rows] == ["lightgcn", "mf"]
    assert {"vs_pyg", "vs_pyg_csr", "memory"} <= steps.rows[0].keys()
    assert gpu.measure_epochs(split, 1).rows[0]["case"]["steps"] > 0
    assert "vs_pyg" in gpu.measure_evaluation(interactions, 1).rows[0]
    assert gpu.measure_pruning(1).rows[0]["pyg_lth"] > 0
    assert gpu.measure_growth(1).summary.keys() == {"exponent"}


def test_a_step_on_a_gpu_says_that_it_is_a_graph_and_what_recording_it_took(
    watched, monkeypatch, taste_graph
):
    from benchmarks import gpu
    from benchmarks.data import Interactions

    held = {"now": 100, "peak": 100}
    record = gpu.ours.Training.quickest_step

    def recording(training):
        held["now"] += 7
        held["peak"] = held["now"] + 3
        return record(training)

    monkeypatch.setattr(gpu.ours.Training, "quickest_step", recording)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=held["now"])
    )
    monkeypatch.setattr(gpu, "interleave", lambda runs, repeats: {name: [1.0] for name in runs})
    split = gpu.ours.to_split(Interactions.from_graph(taste_graph))
    problem = gpu.ours.prepare(split, "cuda", dim=4, batch_size=64)
    monkeypatch.setattr(gpu.ours, "DRAWN", 3)
    row = gpu.race({}, {"pyg_lth": lambda: gpu.ours.training_step(problem)}, 1)
    assert row["memory"] == 10
    assert row["graph"] == "used"


def test_a_step_that_is_measured_keeps_its_training(watched, monkeypatch, taste_graph):
    from benchmarks import ours
    from benchmarks.data import Interactions

    trainings = []

    class Watched(ours.Training):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            trainings.append(weakref.ref(self))

    monkeypatch.setattr(ours, "Training", Watched)
    monkeypatch.setattr(ours, "DRAWN", 3)
    split = ours.to_split(Interactions.from_graph(taste_graph))
    task = ours.training_step(ours.prepare(split, "cuda", dim=4, batch_size=64))
    gc.collect()
    assert trainings[0]() is not None
    task.run(2)
    del task
    gc.collect()
    assert trainings[0]() is None


def test_without_a_gpu_its_figures_are_not_measured(monkeypatch):
    from click.testing import CliRunner

    from benchmarks import gpu

    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(gpu.main, [])
    assert result.exit_code == 2
    assert "not measured: torch sees no CUDA device" in result.output


def test_services_take_turns_and_each_figure_is_of_its_own(tmp_path, monkeypatch, taste_graph):
    from benchmarks import serving
    from benchmarks.data import Interactions

    asked = []

    class Service:
        def __init__(self, ticket, workers):
            self.name = ticket.stem

        def ask(self, users):
            asked.append(self.name)
            return serving.Turn(len(users) / 100, [0.01] * len(users))

        def memory(self):
            return {"resident": 3, "shared_once": 2}

        def end(self):
            asked.append(f"end {self.name}")

    monkeypatch.setattr(serving, "Service", Service)
    interactions = Interactions.from_graph(taste_graph)
    found = serving.measure(interactions, tmp_path, workers=2, requests=10, repeats=3)
    names = [name.replace(" ", "-").replace("%", "") for name in serving.TABLES]
    assert asked == names * 4 + [f"end {name}" for name in names]
    assert found.keys() == serving.TABLES.keys()
    for row in found.values():
        assert row["requests_a_second"] == pytest.approx(100)
        assert row["p50"] == row["p99"] == 0.01
        assert len(row["repeats"]) == 3
    assert found["10% int8"]["bytes"] < found["10% float32"]["bytes"]
    assert found["dense float32"]["bytes"] > 4 * 350 * serving.DIM


def test_reading_is_measured_with_what_was_held_before(tmp_path):
    small = ["--interactions", "3000", "--users", "50", "--items", "40", "--ids", "text"]
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.reading", "--folder", tmp_path, *small],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(told.stdout)
    assert (found["users"], found["bytes_of_csr"]) == (50, 8 * 51 + 4 * found["interactions"])
    assert found["interactions"] < found["rows"] == 3000
    assert found["bytes_at_peak"] > found["bytes_before"] > 2**24
    assert not list(tmp_path.iterdir())


def test_a_training_is_prepared_on_what_was_read(tmp_path):
    from benchmarks import reading

    log = tmp_path / "log"
    reading.draw(log, 3000, 50, 40, as_text=False)
    found = reading.reading(str(tmp_path), "training").run(1)
    assert found["entries"] == 90 * 8 and 500 < found["train"] < 2000
    assert found["loss"] == pytest.approx(math.log(2), abs=0.05)
