"""On a cluster of two nodes that are processes of this machine."""

import json
import os
import shutil
import signal
import sys
import time

import pytest

from pyg_lth import InputError, tuning
from pyg_lth.cli.sweep import _command, _complete
from pyg_lth.errors import IN_USE
from pyg_lth.sweeps.engines import Local, Room
from pyg_lth.sweeps.engines import Ray as OnRay
from pyg_lth.sweeps.grid import read_cells, run_cells
from pyg_lth.sweeps.processes import Command, Watcher
from tests.notes import Notes

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """The head, and a node that can be lost; each has a core for one command."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.lost = cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def engine(cluster):
    return OnRay(Room(4, address=cluster.address))


class Codes(Notes):
    """Notes of an end its exit code."""

    def on_end(self, name, outcome):
        super().on_end(name, outcome.code)


def python(name, script, again=None):
    return Command(name, [sys.executable, "-IS", "-c", script], again)


def test_every_command_is_run_here_and_its_lines_and_its_end_are_told(
    engine, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    say = "import os, sys; print('lost'); print({}, file=sys.stderr); sys.exit({})"
    notes = Codes()
    outcomes = engine.run(
        [
            python("good", say.format("os.getcwd(), os.environ['OMP_NUM_THREADS'], sep='\\n'", 0)),
            python("bad", say.format("'what is wrong'", 3)),
            Command("none", ["/no/such/program"]),
        ],
        notes,
    )
    assert {name: (o.code, o.last_line) for name, o in outcomes.items()} == {
        "good": (0, "1"),
        "bad": (3, "what is wrong"),
        "none": (
            2,
            f"node {os.uname().nodename} has no /no/such/program: its folders and installation "
            "must be those here",
        ),
    }
    good = [heard for name, heard in notes.heard if name == "good"]
    assert good == ["start", str(tmp_path), "1", 0]
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_is_not_to_be_had_is_one_line(monkeypatch):
    def init(**options):
        raise Exception("The current node\ntimed out during startup")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError) as caught:
        OnRay(Room(1, address="head:6379")).run([], Watcher())
    assert str(caught.value) == (
        "no Ray cluster is to be had at head:6379: The current node timed out during startup"
    )


def test_what_no_node_has_is_refused(cluster):
    for room in (Room(1, 99, None, cluster.address), Room(1, None, 0.25, cluster.address)):
        with pytest.raises(InputError, match=r"no node of the Ray cluster has \d+ CPUs and [\d.]+"):
            OnRay(room).run([], Watcher())


def test_a_watcher_ends_a_command(engine):
    asked = []  # when: Ray may take a minute to begin what it then ends at once

    class Ends(Codes):
        def on_line(self, name, line):
            asked.append(time.monotonic())
            return line == "second"

    said = "import sys, time; print('first\\nsecond', file=sys.stderr, flush=True); time.sleep(60)"
    assert engine.run([python("one", said)], Ends())["one"].code == -signal.SIGINT
    assert time.monotonic() - asked[-1] < 40


def test_ctrl_c_lets_the_commands_save(engine, tmp_path):
    saving = f"""
import sys, time
try:
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("saving", file=sys.stderr, flush=True)
    time.sleep(1)
    open({str(tmp_path / "saved")!r}, "w").close()
"""
    heard, times = [], []

    class CtrlC(Watcher):
        def on_line(self, name, line):
            heard.append(line)
            times.append(time.monotonic())
            if line == "begun":
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        engine.run([python("one", saving)], CtrlC())
    assert heard == ["begun", "saving"] and (tmp_path / "saved").exists()
    assert time.monotonic() - times[0] < 40


def test_settings_tuned_on_a_cluster_are_those_tuned_here(cluster, run, tmp_path, monkeypatch):
    """One at a time, so that the same settings are drawn: of those two, one is given up."""
    optuna = pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "TRIALS_TO_COMPARE", 2)
    small = "--dataset synthetic --root data --model mf --dim 4 --batch-size 512 --eval-every 1"
    asked = f"tune {small} --max-epochs 6 --patience 2 --over lr --seed 1 --study".split()
    assert run(*asked, "here.db", "--trials", 2)[0] == 0
    shutil.copy("here.db", "ray.db")
    found = []
    for name, engine in (
        ("here", []),
        ("ray", ["--engine", "ray", "--ray-address", cluster.address]),
    ):
        code, out, _ = run(*asked, f"{name}.db", "--trials", 4, *engine)
        study = optuna.load_study(study_name="pyg-lth", storage=f"sqlite:///{name}.db")
        trials = [(t.params, t.state.name, t.intermediate_values) for t in study.get_trials()]
        found.append((code, out, (tmp_path / "tuned.json").read_bytes(), trials))
    assert found[0] == found[1] and found[0][0] == 0
    assert {state for _, state, _ in trials[2:]} == {"COMPLETE", "PRUNED"}


def test_a_sweep_that_loses_a_node_ends_as_one_on_this_machine(
    cluster, engine, tmp_path, monkeypatch, written, capfd
):
    monkeypatch.chdir(tmp_path)
    shared = dict(model="mf", dim=4, max_epochs=8, eval_every=2, rounds=1, root=str(tmp_path))
    expected = {}

    def cells(out):
        grid = {"out": out, "settings": shared, "grid": {"method": ["imp", "oneshot"]}}
        (tmp_path / f"{out}.json").write_text(json.dumps(grid))
        return read_cells(tmp_path / f"{out}.json", _complete)

    assert {
        r.state for r in run_cells(cells("here"), _complete, _command, Local(Room(2)), Watcher())
    } == {"done"}
    expected = written(tmp_path / "here")

    class Loss(Codes):
        """Ends the node when both run and have done their first round."""

        there = True

        def on_line(self, name, line):
            done = list((tmp_path / "there").glob("*/round-000/result.json"))
            if self.there and len(done) == 2:
                self.there = False
                cluster.remove_node(cluster.lost, allow_graceful=False)

    notes = Loss()
    results = run_cells(cells("there"), _complete, _command, engine, notes)
    assert [(result.state, result.reason) for result in results] == [("done", None)] * 2
    assert [name for name, heard in notes.heard if heard == "loss"] in (["imp"], ["oneshot"])
    assert written(tmp_path / "there") == expected
    # Ray's own word on the node would stand in the summary.
    assert capfd.readouterr().out == ""


def test_a_folder_that_a_lost_node_still_holds_is_waited_for(engine, tmp_path, monkeypatch):
    """As :func:`test_a_sweep_that_loses_a_node_ends_as_one_on_this_machine`, held for longer."""
    from pyg_lth.sweeps import ray_pool

    monkeypatch.setattr(ray_pool, "PAUSE", 0.1)
    tries = tmp_path / "tries"
    held = f"""
import os, sys
with open({str(tries)!r}, "a") as file:
    file.write("x")
sys.exit({IN_USE} if os.path.getsize({str(tries)!r}) < 3 else 0)
"""
    # The worker ends with the parent of the command, as when a node is lost.
    kill = (
        "import os, signal, sys; os.kill(os.getppid(), signal.SIGKILL); import time; time.sleep(9)"
    )
    command = python("one", kill, lambda: python("", held).arguments)
    notes = Codes()
    assert engine.run([command], notes)["one"].code == 0
    assert tries.read_text() == "xxx"
    assert notes.heard == [("one", "start"), ("one", "loss"), ("one", 0)]
    # Held by somebody else from the beginning it is not waited for.
    tries.unlink()
    assert engine.run([python("one", held)], Watcher())["one"].code == IN_USE
