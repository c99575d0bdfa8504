"""Searches and sweeps killed by SIGKILL at moments drawn at random end as if never killed.

The short form is in tests/results/test_resume.py, which also kills at chosen moments.
"""

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import time

import pytest
import torch

from pyg_lth import find_tickets
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.sweeps.children import command_line

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

KILLS_OF_SEARCHES, KILLS_OF_SWEEPS = 190, 10

# A forked child starts in a moment, with torch already imported.
FORK = multiprocessing.get_context("fork")

SEARCHES = [
    {},
    {"model": "mf"},
    {"method": "oneshot"},
    {"method": "random"},
    {"method": "reinit"},
    {"method": "finetune", "lr_decay": 0.9},
    {"method": "lr-rewind"},
    {"method": "pep", "reg": 0.5, "max_epochs": 60, "rounds": 2},
    {"method": "snip"},
    {"method": "dynamic", "max_epochs": 8},
    {"method": "dynamic", "model": "mf", "max_epochs": 8},
    {"method": "narrow"},
    {"method": "shuffle", "model": "mf"},
    {"rewind_epoch": 2},
    {"refit": True},
    {"seeds": 2},
    {"seeds": 2, "model": "mf", "method": "reinit", "refit": True},
]


def start(graph, config, folder):
    """Begin or resume a search in a process of its own, which saves after every step."""

    def child():
        torch.set_num_threads(1)
        # What a killed process has written stays; only a machine that fails loses it.
        os.fsync = lambda descriptor: None
        resume = (folder / "config.json").exists()
        find_tickets(graph, config, run_dir=folder, resume=resume, checkpoint_seconds=0)

    process = FORK.Process(target=child)
    process.start()
    return process


def finish(graph, config, folder):
    """Run a search to its end; return how long that took, in seconds."""
    begin = time.monotonic()
    process = start(graph, config, folder)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begin


def test_searches(small_graph, quick_config, tmp_path, written):
    dice, kills = random.Random(0), KILLS_OF_SEARCHES
    for number, settings in enumerate(SEARCHES):
        config = quick_config(**settings)
        whole = tmp_path / f"{number}-whole"
        seconds = finish(small_graph, config, whole)
        expected = written(whole)
        wanted = kills * (number + 1) // len(SEARCHES) - kills * number // len(SEARCHES)
        for attempt in itertools.count():
            folder = tmp_path / f"{number}-{attempt}"
            # A killed process has gone further than it saved: it may take several to get on.
            while wanted:
                process = start(small_graph, config, folder)
                process.join(dice.uniform(0.05, 0.7) * seconds)
                process.kill()
                process.join()
                if process.exitcode == 0:
                    break
                assert process.exitcode == -signal.SIGKILL
                wanted -= 1
            finish(small_graph, config, folder)
            assert written(folder) == expected, (settings, attempt)
            assert RunFolder(folder).check() == []
            assert list(folder.rglob("*.tmp*")) == []
            if not wanted:
                break


def test_sweeps(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    shared = dict(model="mf", dim=4, max_epochs=2, eval_every=1, rounds=2, root=str(tmp_path))
    for out in ("whole", "killed"):
        grid = {"out": out, "settings": shared, "grid": {"method": ["imp", "reinit"], "seed": [0]}}
        (tmp_path / f"{out}.json").write_text(json.dumps(grid))

    def sweep(name):
        return subprocess.Popen(command_line("sweep", f"{name}.json", "--jobs", "1", "--quiet"))

    begin = time.monotonic()
    assert sweep("whole").wait() == 0
    seconds = time.monotonic() - begin
    expected = written(tmp_path / "whole")
    dice = random.Random(0)
    kills = 0
    while kills < KILLS_OF_SWEEPS:
        process = sweep("killed")
        try:
            process.wait(dice.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            assert written(tmp_path / "killed") == expected
            (tmp_path / "killed").rename(tmp_path / f"done-{kills}")
    while (code := sweep("killed").wait()) == 1:
        # The run of the sweep that was killed last may still be ending.
        time.sleep(1)
    assert code == 0
    assert written(tmp_path / "killed") == expected
