import builtins

import pytest

from pyg_lth import InputError
from pyg_lth.cli.sweep import sweep
from pyg_lth.sweeps.engines import ENGINES, Local, Ray, Room
from pyg_lth.sweeps.processes import Command, Watcher


def test_this_machine_runs_as_many_at_a_time_as_there_is_room_for(tmp_path):
    # Each waits for the other.
    wait = "touch {0}; until [ -e a ] && [ -e b ]; do sleep 0.01; done"
    commands = [Command(n, ["sh", "-c", f"cd {tmp_path}; " + wait.format(n)]) for n in "ab"]
    outcomes = Local(Room(2)).run(commands, Watcher())
    assert {name: outcome.code for name, outcome in outcomes.items()} == {"a": 0, "b": 0}


@pytest.mark.parametrize("room", [Room(1, cpus=2), Room(1, gpus=0.5), Room(1, address="here:1")])
def test_this_machine_refuses_what_is_for_a_cluster(room):
    with pytest.raises(InputError, match="go with `engine=ray`; on this machine `jobs` says how"):
        Local(room)


def test_an_engine_that_is_missing_says_how_to_get_it(monkeypatch):
    found = builtins.__import__

    def without_ray(name, *rest, **more):
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(InputError) as caught:
        Ray(Room(1))
    assert str(caught.value) == '`engine=ray` needs Ray: pip install "pyg-lth[ray]"'


def test_a_run_has_a_share_of_one_gpu_or_whole_ones():
    pytest.importorskip("ray")
    assert Ray(Room(1, gpus=0.25)) and Ray(Room(1, gpus=2.0))
    with pytest.raises(InputError, match=r"`gpus_per_run=1.5`: take a share of one GPU"):
        Ray(Room(1, gpus=1.5))


def test_every_engine_can_be_chosen_for_a_sweep():
    (option,) = (option for option in sweep.params if option.name == "engine")
    assert list(option.type.choices) == list(ENGINES)
