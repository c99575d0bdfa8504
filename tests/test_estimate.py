"""What a run needs is reckoned before it takes any, and what is not there is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyg_lth
from pyg_lth import InputError
from pyg_lth.estimate import Estimate, estimate, measure, needs, size, steps
from pyg_lth.interactions import InteractionSplit
from pyg_lth.training.problem import Problem
from pyg_lth.workers import Workers

CPU = torch.device("cpu")
ABSURD = [
    ["--dim", 10**9],
    ["--dim", 10**30],
    ["--batch-size", 10**9],
    ["--topk", 10**18],
    ["--negatives", 10**9],
    ["--rounds", 10**9],
    ["--seeds", 10**8],
    ["--loss", "softmax", "--batch-size", 10**6],
    ["--loss", "ccl", "--batch-size", 10**6, "--negatives", 10**6],
]


@pytest.fixture
def split(small_graph):
    return InteractionSplit.from_data(small_graph)


@pytest.mark.parametrize("absurd", ABSURD, ids=lambda value: " ".join(map(str, value)))
@pytest.mark.parametrize("command", ["prune", "dry"])
def test_absurd_sizes_are_refused_before_anything_is_taken(
    run, tmp_path, monkeypatch, absurd, command
):
    monkeypatch.chdir(tmp_path)
    dry = ["--dry-run"] if command == "dry" else []
    code, out, err = run("prune", "--model", "mf", "--out", "run", *dry, *absurd)
    assert code == 2
    assert err.count("\n") == 1 and "free" in err
    assert bool(out) == bool(dry)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("settings", "to_lower"),
    [
        ({"dim": 10**9}, "`dim`"),
        ({"topk": 10**18}, "`topk`"),
        ({"batch_size": 10**9}, "`batch_size` or `negatives`"),
        ({"negatives": 10**9}, "`batch_size` or `negatives`"),
    ],
)
def test_what_takes_the_most_memory_is_what_should_be_lowered(
    small_graph, quick_config, settings, to_lower
):
    with pytest.raises(InputError, match=f"lower {to_lower}, or take a larger machine"):
        pyg_lth.find_tickets(small_graph, quick_config(**settings))


def test_a_run_takes_what_was_reckoned():
    """In a process of its own, which has no other peak."""
    program = """
import psutil, torch, pyg_lth
from pathlib import Path
from pyg_lth.datasets import InteractionGraph
from pyg_lth.estimate import needs
from pyg_lth.interactions import InteractionSplit
from pyg_lth.workers import Workers
torch.set_num_threads(1)
pairs = torch.cartesian_prod(torch.arange(500), torch.arange(10)).t()
data = InteractionGraph.from_pairs(pairs, pairs + torch.tensor([[0], [10]]), pairs
    + torch.tensor([[0], [20]]), num_users=500, num_items=30)
config = pyg_lth.PruneConfig(model="mf", dim=2000, max_epochs=1, rounds=1, batch_size=500)
before = psutil.Process().memory_info().rss
pyg_lth.find_tickets(data, config, checkpoint_seconds=0.0)
# What getrusage knows as the peak may be that of the process which started this one.
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
taken = int(peak) * 1024 - before
print(taken / needs(InteractionSplit.from_data(data), config).memory)
"""
    out = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert 0.3 < float(out) < 1


def test_the_folder_is_no_larger_than_reckoned(tmp_path, small_graph, split, quick_config):
    for settings in ({"method": "pep"}, {"method": "shuffle", "refit": True, "seeds": 2}):
        config = quick_config(model="mf", dim=100, max_epochs=2, **settings)
        folder = tmp_path / "-".join(["run", *map(str, settings.values())])
        pyg_lth.find_tickets(small_graph, config, run_dir=folder)
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert written < needs(split, config).disk < 4 * written
        # What is there is not needed again.
        left = estimate(split, config, CPU, folder).disk
        assert left == needs(split, config).disk - written


def test_seeds_side_by_side_need_memory_each(split, quick_config):
    config = quick_config(seeds=4)
    alone, together = needs(split, config), needs(split, config, jobs=2)
    assert (together.memory, together.disk) == (2 * alone.memory, alone.disk)


def test_the_time_of_a_run_is_measured(split, quick_config):
    config = quick_config(rounds=4, max_epochs=10, method="reinit", seeds=3)
    found = measure(estimate(split, config, CPU), split, config, CPU, jobs=2)
    assert found.steps == -(-split.train.size(1) // 64)
    # Five rounds and three trainings for masks alone; of three seeds two are done in turn.
    assert found.seconds_at_most == pytest.approx(2 * 8 * 10 * found.seconds_an_epoch)
    assert 0 < found.seconds_an_epoch < 10


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_steps_of_an_epoch_are_counted_as_they_are_taken(split, quick_config, parts):
    config = quick_config(batch_by="edge", disjoint_parts=parts)
    problem = Problem.prepare(split.hold_out_validation(0), config, CPU)
    assert steps(problem.split, config) == problem.sampler.steps
    found = measure(estimate(problem.split, config, CPU), problem.split, config, CPU)
    assert found.seconds_an_epoch > 0


def test_too_little_disk_is_said_with_what_to_do():
    there = Estimate(10, 100, 5 << 30, 1 << 20, "dim", 3)
    assert "about 5.0 GiB and 1.0 MiB are free" in there.shortage
    assert "`run_dir`" in there.shortage


def test_a_dry_run_prints_what_the_run_would_take_and_begins_none(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("prune", "train"):
        code, out, _ = run(command, "--model", "mf", "--dry-run", "--out", "kept")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()[:4]] == [
            *("memory", "disk", "steps", "time"),
        ]
        assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("prune", "--dry-run", "--json", "--max-epochs", 10**30)
    found = json.loads(out)
    assert code == 0
    assert found["steps"] == 11 and found["seconds_at_most"] > 1e9
    assert found["memory"] < found["memory_free"] and found["disk"] < found["disk_free"]
    assert not Path("kept").exists() and not Path("runs").exists()
    code, out, _ = run("prune", "--dry-run", "--max-epochs", 10**30)
    assert code == 0 and "more than a century" in out


def test_sizes_are_readable():
    sizes = [0, 1023, 2048, 3 << 20, 5 << 30, 7 << 40, 1 << 90]
    assert list(map(size, sizes)) == [
        *("0 bytes", "1,023 bytes", "2.0 KiB", "3.0 MiB", "5.0 GiB", "7.0 TiB", "1.1e+15 TiB")
    ]


def test_workers_share_the_memory_of_the_table(split, monkeypatch):
    config = pyg_lth.PruneConfig(dim=4096, max_epochs=1)
    one, two, four = (needs(split, config, 1, Workers(size=n)).memory for n in (1, 2, 4))
    assert one < two < four  # On one machine the table is one, and the rest is there for each.
    assert four < 2 * one
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert needs(split, config, 1, Workers(size=4)).memory < one / 3
    assert {needs(split, config, 1, Workers(size=n)).disk for n in (1, 2, 4)} == {
        needs(split, config).disk
    }
