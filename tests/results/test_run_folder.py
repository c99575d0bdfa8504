import json
import os
import shutil
import sys
from importlib import metadata

import pytest
import torch
from safetensors.torch import save_file

from pyg_lth import Callback, InputError, find_tickets
from pyg_lth.results.environment import describe_environment
from pyg_lth.results.run_folder import RunFolder


class Stop(Exception):
    pass


class StopInRound(Callback):
    """Breaks a search off before the fourth step of a round, as a crash would."""

    def __init__(self, round):
        self._round = round

    def on_round_start(self, training, mask):
        step = training.step

        def step_or_stop(*batch):
            if (training.progress.round, training.progress.step) == (self._round, 3):
                raise Stop
            return step(*batch)

        training.step = step_or_stop


def break_off(graph, config, folder, round):
    with pytest.raises(Stop):
        find_tickets(
            graph, config, run_dir=folder, callback=StopInRound(round), checkpoint_seconds=0
        )


@pytest.fixture(scope="module")
def broken_off(small_graph, quick_config, tmp_path_factory):
    """A run whose second round is half done, not to be changed."""
    folder = tmp_path_factory.mktemp("broken-off")
    break_off(small_graph, quick_config(), folder, round=2)
    return folder


@pytest.fixture
def folder(broken_off, tmp_path):
    return shutil.copytree(broken_off, tmp_path / "run")


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path: path.read_bytes() for path in paths}


def assert_refused(match, *args, run_dir, **kwargs):
    """The search raises one line that says so, and changes no file."""
    before = contents(run_dir)
    with pytest.raises(InputError, match=match) as error:
        find_tickets(*args, run_dir=run_dir, **kwargs)
    assert "\n" not in str(error.value)
    assert contents(run_dir) == before


def test_a_folder_that_holds_a_run_is_not_begun_again(small_graph, quick_config, folder):
    assert_refused(
        r"already holds a run.*`resume`.*`run_dir`", small_graph, quick_config(), run_dir=folder
    )


def test_a_folder_without_a_run_cannot_be_resumed(small_graph, quick_config, tmp_path):
    assert_refused("holds no run", small_graph, quick_config(), run_dir=tmp_path, resume=True)


@pytest.mark.parametrize(
    "change", [{"rounds": 4}, {"seed": 1}, {"method": "random"}, {"lr": 0.0500001}]
)
def test_a_run_is_not_resumed_with_other_settings(small_graph, quick_config, folder, change):
    config = quick_config(**change)
    assert_refused("holds other settings", small_graph, config, run_dir=folder, resume=True)


def test_a_run_is_not_resumed_on_another_graph(taste_graph, quick_config, folder):
    assert_refused(
        "the graph is not the one", taste_graph, quick_config(), run_dir=folder, resume=True
    )


def test_a_folder_in_use_is_refused(small_graph, quick_config, folder):
    with RunFolder(folder):
        assert_refused(
            "in use by another process", small_graph, quick_config(), run_dir=folder, resume=True
        )
    assert len(find_tickets(small_graph, quick_config(), run_dir=folder, resume=True).rounds) == 3


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 - 5])


def garble(path):
    path.write_bytes(b"\xff\xfe\x00 this was never written here \x80\x81")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, garble, empty])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "environment.json",
        "theta0.safetensors",
        "round-001/mask.safetensors",
        "round-001/best.safetensors",
        "round-001/result.json",
        "state/training.safetensors",
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(small_graph, quick_config, folder, name, damage):
    damage(folder / name)
    assert_refused(
        rf"{name.rsplit('/')[-1]} is (missing or )?damaged",
        small_graph,
        quick_config(),
        run_dir=folder,
        resume=True,
    )


@pytest.mark.parametrize("damage", [truncate, garble])
def test_damaged_epochs_are_one_line_that_names_them(small_graph, quick_config, folder, damage):
    damage(folder / "epochs.jsonl")
    assert_refused(
        r"epochs.jsonl is damaged", small_graph, quick_config(), run_dir=folder, resume=True
    )


def test_a_state_without_its_header_is_damaged(small_graph, quick_config, folder):
    save_file({"weight": torch.zeros(2)}, folder / "state" / "training.safetensors")
    assert_refused(
        "training.safetensors is (missing or )?damaged",
        small_graph,
        quick_config(),
        run_dir=folder,
        resume=True,
    )


@pytest.mark.parametrize("name", ["mask.safetensors", "best.safetensors"])
def test_a_missing_table_is_one_line_that_names_it(small_graph, quick_config, folder, name):
    (folder / "round-001" / name).unlink()
    assert_refused(rf"{name} is missing", small_graph, quick_config(), run_dir=folder, resume=True)


@pytest.mark.parametrize("damage", [truncate, garble, empty])
def test_a_damaged_report_is_one_line_that_names_it(folder, damage):
    assert RunFolder(folder).read_report().dense.round == 0
    damage(folder / "report.json")
    with pytest.raises(InputError, match=r"report.json is damaged") as error:
        RunFolder(folder).read_report()
    assert "\n" not in str(error.value)


def test_a_folder_whose_dense_round_is_not_done_has_no_report(small_graph, quick_config, tmp_path):
    break_off(small_graph, quick_config(), tmp_path, round=0)
    with pytest.raises(InputError, match=r"no report yet.*`resume`"):
        RunFolder(tmp_path).read_report()


def test_the_report_of_an_unfinished_run_covers_its_finished_rounds(folder):
    report = RunFolder(folder).read_report()
    assert [ticket.round for ticket in report.rounds] == [1]
    assert len((folder / "rounds.jsonl").read_text().splitlines()) == 2


def test_a_finished_run_can_be_resumed_and_trains_nothing(small_graph, quick_config, tmp_path):
    config = quick_config(rounds=1)
    report = find_tickets(small_graph, config, run_dir=tmp_path)
    again = find_tickets(
        small_graph, config, run_dir=tmp_path, resume=True, callback=StopInRound(0)
    )
    assert again == report


def test_a_search_that_cannot_start_leaves_the_folder_free(
    small_graph, quick_config, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    scatter = quick_config(propagation="scatter", rounds=0)
    assert_refused("torch-scatter", small_graph, scatter, run_dir=tmp_path)
    csr = quick_config(rounds=0)
    assert find_tickets(small_graph, csr, run_dir=tmp_path).dense.epochs > 0


def test_a_write_that_fails_leaves_the_old_file_whole(folder, monkeypatch):
    run = RunFolder(folder)
    report = run.read_report()
    before = (folder / "report.json").read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        run.write_report(report.model_copy(update={"rounds": []}))
    assert (folder / "report.json").read_bytes() == before


def test_the_environment_names_versions_and_graph(folder):
    kept = json.loads((folder / "environment.json").read_text())
    described = describe_environment()
    assert len(kept.pop("graph")) == 64
    assert kept == described
    assert described["packages"]["torch"] == metadata.version("torch")
    assert described["threads"] == torch.get_num_threads()
