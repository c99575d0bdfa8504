"""A run that is killed or interrupted and resumed ends as one that was not, bit for bit."""

import functools
import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401
import torch
from safetensors.torch import load_file

from pyg_lth import Callback, InputError, find_tickets
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.pruning import selection
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.sampling import TripletSampler
from pyg_lth.training.trainer import Training

# A forked child starts in a moment, with torch and scipy already imported.
FORK = multiprocessing.get_context("fork")

# Where to kill a run, the owner and name of the function, and in how many calls of it a process
# is killed at the latest.
MOMENTS = {
    "in training": (Training, "step", 20),
    "in sampling": (TripletSampler, "sample", 5),
    "in evaluation": (Evaluator, "__call__", 5),
    "in pruning": (selection, "prune", 1),
    "in writing, on opening": (Path, "open", 20),
    "in writing, on flushing": (os, "fsync", 20),
    "in writing, on renaming": (Path, "replace", 20),
    "in writing a state": (RunFolder, "write_state", 20),
    "in dropping a state": (Path, "unlink", 1),
    "in writing a round": (RunFolder, "write_round", 1),
    "in writing a report": (RunFolder, "write_report", 1),
}


@pytest.fixture(scope="module")
def config(quick_config):
    return quick_config(rounds=3)


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(v) for key, v in value.items() if not key.endswith("seconds")}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def outcome(folder):
    """All that a run leaves, apart from its times and from where it was run."""
    tables = {
        str(path.relative_to(folder)): {name: t.tolist() for name, t in load_file(path).items()}
        for path in sorted(folder.rglob("*.safetensors"))
    }
    texts = {
        str(path.relative_to(folder)): [
            without_seconds(json.loads(part))
            for part in (
                path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            )
        ]
        for path in sorted(folder.rglob("*.json*"))
    }
    return tables, texts


@pytest.fixture(scope="module")
def unbroken(small_graph, config, tmp_path_factory):
    """What a run that nobody disturbed leaves."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert run_in_child(small_graph, config, folder) == 0
    return outcome(folder)


def start_in_child(graph, config, folder, sabotage=lambda: None, callback=None):
    """Begin or resume a run in a process of its own, which saves after every step."""

    def child():
        torch.set_num_threads(1)
        # What a killed process has written stays; only a machine that fails loses it.
        os.fsync = lambda descriptor: None
        sabotage()
        find_tickets(
            graph,
            config,
            run_dir=folder,
            resume=(folder / "config.json").exists(),
            callback=callback,
            checkpoint_seconds=0,
        )

    process = FORK.Process(target=child)
    process.start()
    return process


def run_in_child(*args):
    """Wait for such a run; return its exit code, negative for the signal that ended it."""
    process = start_in_child(*args)
    process.join()
    return process.exitcode


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_call(owner, name, calls, before):
    """Have this process killed in a later call of a function, before or after what it does."""
    function, counter = getattr(owner, name), itertools.count(1)

    def deadly(*args, **kwargs):
        last = next(counter) == calls
        if last and before:
            kill_this_process()
        result = function(*args, **kwargs)
        if last:
            kill_this_process()
        return result

    setattr(owner, name, deadly)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_again_and_again_ends_as_one_never_killed(
    small_graph, config, unbroken, tmp_path, moment, before
):
    owner, name, most_calls = MOMENTS[moment]
    dice = random.Random(f"{moment} {before}")
    folder = tmp_path / "killed"
    kills = 0
    for _ in range(6):
        calls = dice.randint(1, most_calls)
        sabotage = functools.partial(kill_in_call, owner, name, calls, before)
        code = run_in_child(small_graph, config, folder, sabotage)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert run_in_child(small_graph, config, folder) == 0
    assert outcome(folder) == unbroken


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "reinit"},
        {"method": "dynamic", "max_epochs": 8},
        {"method": "dynamic", "model": "mf", "max_epochs": 8},
        {"method": "pep", "reg": 0.5, "max_epochs": 300, "rounds": 2},
        {"method": "finetune", "lr_decay": 0.9},
        {"rewind_epoch": 2},
        {"seeds": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_killed_run_of_any_method_ends_as_one_never_killed(
    small_graph, quick_config, tmp_path, settings
):
    config = quick_config(**{"rounds": 3, **settings})
    dice = random.Random(str(settings))
    assert run_in_child(small_graph, config, tmp_path / "unbroken") == 0
    for _ in range(3):
        calls = dice.randint(1, 100 if config.method == "pep" else 25)
        sabotage = functools.partial(kill_in_call, Training, "step", calls, dice.random() < 0.5)
        assert run_in_child(small_graph, config, tmp_path / "killed", sabotage) == -signal.SIGKILL
    assert run_in_child(small_graph, config, tmp_path / "killed") == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


class Sign(Callback):
    """Sets an event when the run has claimed its folder."""

    def __init__(self):
        self.event = FORK.Event()

    def on_start(self, config, split):
        self.event.set()


def test_a_run_killed_at_moments_that_nobody_chose_ends_as_one_never_killed(
    small_graph, config, unbroken, tmp_path
):
    dice = random.Random(0)
    kills = 0
    for attempt in itertools.count():
        folder = tmp_path / f"killed-{attempt}"
        code = None
        while code != 0:
            sign = Sign()
            process = start_in_child(small_graph, config, folder, callback=sign)
            assert sign.event.wait(60)
            time.sleep(dice.uniform(0, 0.1))
            process.kill()
            process.join()
            code = process.exitcode
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        assert outcome(folder) == unbroken
        if kills >= 20:
            break


class CtrlC(Callback):
    """Presses Ctrl-C in a step of a round, or in the evaluation at the end of an epoch."""

    def __init__(self, round, epoch, step=None):
        self._moment = (round, epoch, step)

    def on_round_start(self, training, mask):
        take_step = training.step

        def step(batch):
            progress = training.progress
            if (progress.round, progress.epoch, progress.step) == self._moment:
                signal.raise_signal(signal.SIGINT)
            return take_step(batch)

        training.step = step

    def on_epoch(self, record):
        if (record.round, record.epoch, None) == self._moment:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "moment", [(0, 0, 0), (0, 2, 1), (1, 3, 3), (3, 0, 2), (0, 4, None), (2, 1, None)]
)
def test_ctrl_c_saves_and_the_resumed_run_ends_as_one_never_interrupted(
    small_graph, config, unbroken, tmp_path, moment
):
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        find_tickets(small_graph, config, run_dir=folder, callback=CtrlC(*moment))
    assert (folder / "state" / "training.safetensors").exists()
    steps = CountSteps()
    find_tickets(small_graph, config, run_dir=folder, resume=True, callback=steps)
    assert outcome(folder) == unbroken
    assert steps.first == saved_after(moment, steps.per_epoch)


class CountSteps(Callback):
    """Keeps where the first round began to train."""

    first = None

    def on_round_start(self, training, mask):
        self.per_epoch = training.problem.sampler.steps
        if self.first is None:
            progress = training.progress
            self.first = (progress.round, progress.epoch, progress.step)


def saved_after(moment, steps_per_epoch):
    """Where a run continues that was interrupted in a step, or in the first one thereafter."""
    round, epoch, step = moment
    if step is None:
        return (round + 1, 0, 1) if epoch == 4 else (round, epoch, 1)
    return round, epoch, step + 1


def test_ctrl_c_after_the_last_step_lets_the_run_end(small_graph, config, unbroken, tmp_path):
    folder = tmp_path / "interrupted"
    find_tickets(small_graph, config, run_dir=folder, callback=CtrlC(3, 4))
    assert outcome(folder) == unbroken


class Wait(Sign):
    """Sets the event, and goes no further."""

    def on_start(self, config, split):
        super().on_start(config, split)
        signal.pause()


def test_a_second_process_on_a_folder_is_refused_until_the_first_is_gone(
    small_graph, config, unbroken, tmp_path
):
    folder = tmp_path / "shared"
    wait = Wait()
    first = start_in_child(small_graph, config, folder, callback=wait)
    assert wait.event.wait(60)
    for resume in (True, False):
        with pytest.raises(InputError, match="in use by another process") as error:
            find_tickets(small_graph, config, run_dir=folder, resume=resume)
        assert "\n" not in str(error.value)
    first.kill()
    first.join()
    find_tickets(small_graph, config, run_dir=folder, resume=True)
    assert outcome(folder) == unbroken


def test_a_killed_write_leaves_no_temporary_file_in_the_end(
    small_graph, config, unbroken, tmp_path
):
    folder = tmp_path / "killed"
    sabotage = functools.partial(kill_in_call, Path, "replace", 5, True)
    assert run_in_child(small_graph, config, folder, sabotage) == -signal.SIGKILL
    assert len(list(folder.rglob("*.tmp*"))) == 1
    find_tickets(small_graph, config, run_dir=folder, resume=True)
    assert outcome(folder) == unbroken
    assert list(folder.rglob("*.tmp*")) == []
    assert RunFolder(folder).check() == []
