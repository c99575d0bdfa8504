import errno
import json
import os
import random
import re
import shutil
import sys
from importlib import metadata

import pytest
import torch

from pyg_lth import Callback, InputError, Report, find_tickets, whole_files
from pyg_lth.errors import RunWarning
from pyg_lth.results import environment
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


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def delete(path):
    path.unlink()


DAMAGES = [truncate, garble, empty, flip, delete]

# Files of the run that is broken off in its second round.
FILES = [
    "config.json",
    "environment.json",
    "theta0.safetensors",
    "round-000/users.safetensors",
    "round-001/mask.safetensors",
    "round-001/best.safetensors",
    "round-001/result.json",
    "report.json",
    "report.md",
    "rounds.jsonl",
    "epochs.jsonl",
    "state/training.safetensors",
]


@pytest.fixture(scope="module")
def whole(small_graph, quick_config, tmp_path_factory):
    """The same run, not broken off."""
    folder = tmp_path_factory.mktemp("whole")
    find_tickets(small_graph, quick_config(), run_dir=folder)
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("round-*/*.safetensors")
    }


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_told_and_what_can_be_done_again_is_done_on_resume(
    small_graph, quick_config, folder, whole, name, damage
):
    if damage is delete and name.startswith("state"):
        pytest.skip("a process that was killed before it wrote the file leaves the same")
    damage(folder / name)
    (found,) = RunFolder(folder).check()
    assert str(found).startswith(f"{folder / name} is damaged: ")
    assert "\n" not in str(found)
    if name == "environment.json":
        assert_refused("environment.json", small_graph, quick_config(), run_dir=folder, resume=True)
        return
    with pytest.warns(RunWarning, match=name.rsplit("/")[-1]):
        find_tickets(small_graph, quick_config(), run_dir=folder, resume=True)
    assert {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("round-*/*.safetensors")
    } == whole
    assert RunFolder(folder).check() == []
    assert (folder / "epochs.jsonl.damaged").exists() == (
        name == "epochs.jsonl" and damage is not delete
    )


def test_a_flip_in_any_bit_of_any_file_is_told(folder):
    dice = random.Random(0)
    paths = [*RunFolder(folder).files(), folder / "checksums.txt"]
    assert {path.relative_to(folder).as_posix() for path in paths} > set(FILES)
    for path in paths:
        content = path.read_bytes()
        for place in [0, len(content) - 1, *(dice.randrange(len(content)) for _ in range(4))]:
            changed = bytearray(content)
            changed[place] ^= 1 << dice.randrange(8)
            path.write_bytes(changed)
            assert [error.path for error in RunFolder(folder).check()] == [path], place
        path.write_bytes(content)
    assert RunFolder(folder).check() == []


def test_what_a_command_reads_is_held_against_its_checksum(folder):
    for name, read in {
        "report.json": RunFolder.read_report,
        "environment.json": RunFolder.read_environment,
        "theta0.safetensors": RunFolder.read_initial,
        "epochs.jsonl": lambda run: run.read_epochs(2),
        "round-001/result.json": lambda run: run.read_result(1),
        "round-001/best.safetensors": lambda run: run.read_round(1),
        "round-001/mask.safetensors": lambda run: run.read_round(1),
        "round-001/users.safetensors": lambda run: run.read_users(1),
    }.items():
        content = (folder / name).read_bytes()
        flip(folder / name)
        with pytest.raises(InputError, match=rf"{name} is damaged: its checksum") as error:
            read(RunFolder(folder))
        assert "resume" in str(error.value) or "copy" in str(error.value)
        (folder / name).write_bytes(content)


def test_settings_are_read_from_the_report_where_config_json_is_damaged(folder):
    settings = RunFolder(folder).read_config()
    for damage in (flip, delete):
        damage(folder / "config.json")
        with pytest.warns(RunWarning, match=r"config.json is damaged: the settings that report"):
            assert RunFolder(folder).read_config() == settings
    flip(folder / "report.json")
    with pytest.raises(InputError, match=r"config.json is damaged: it is missing"):
        RunFolder(folder).read_config()


def test_a_run_whose_settings_are_lost_is_not_begun_again(small_graph, quick_config, folder):
    (folder / "config.json").unlink()
    assert_refused("without its config.json", small_graph, quick_config(), run_dir=folder)


def test_a_result_that_is_lost_is_not_taken_for_a_round_to_come(folder):
    delete(folder / "round-001" / "result.json")
    with pytest.raises(InputError, match=r"result.json is damaged: it is missing.*round 1 again"):
        RunFolder(folder).read_results()


def test_what_a_killed_process_was_about_to_write_is_not_missing(folder, monkeypatch):
    run = RunFolder(folder)
    with monkeypatch.context() as patch, pytest.raises(InputError):
        patch.setattr(whole_files, "write", break_write)
        run.write_file("round-002/result.json", b"{}")
    with RunFolder(folder) as again:
        again.begin(again.read_config(), again.read_environment()["graph"], resume=True)
        again.write_file("frontier.json", b"{}")
    assert len(RunFolder(folder).read_results()) == 2
    assert RunFolder(folder).check() == []


def break_write(path, content):
    raise InputError("killed")


def test_what_was_asked_for_is_checked_too_and_may_be_deleted(folder):
    run = RunFolder(folder)
    paths = [run.write_page("<p>"), run.write_file("frontier.json", b"{}")]
    paths.append(run.write_file("figures/metric.png", b"drawn"))
    for path in paths:
        content = path.read_bytes()
        flip(path)
        assert [error.path for error in RunFolder(folder).check()] == [path]
        path.write_bytes(content)
        assert RunFolder(folder).check() == []
        path.unlink()
        assert RunFolder(folder).check() == []


def test_a_run_without_checksums_is_read_and_that_is_said(folder):
    (folder / "checksums.txt").unlink()
    run = RunFolder(folder)
    with pytest.warns(RunWarning, match="older than checksums"):
        run.read_report()
    assert run.check() == []
    assert len(run.unchecked()) == len(run.files())
    empty(folder / "round-001" / "mask.safetensors")
    assert [error.path.name for error in run.check()] == ["mask.safetensors"]
    delete(folder / "round-001" / "mask.safetensors")
    assert [error.path.name for error in run.check()] == ["mask.safetensors"]


def test_a_run_is_not_resumed_with_another_version(small_graph, quick_config, folder, monkeypatch):
    here = {**describe_environment(), "packages": {"torch": "1.0"}}
    monkeypatch.setattr(environment, "describe_environment", lambda: here)
    assert_refused(
        re.escape(f"begun with torch {metadata.version('torch')}, and here is 1.0"),
        *(small_graph, quick_config()),
        run_dir=folder,
        resume=True,
    )


def test_a_run_is_resumed_with_other_threads_and_that_is_said(
    small_graph, quick_config, folder, monkeypatch
):
    here = {**describe_environment(), "threads": 7}
    monkeypatch.setattr(environment, "describe_environment", lambda: here)
    with pytest.warns(RunWarning, match="begun with threads 1, and goes on with 7"):
        find_tickets(small_graph, quick_config(), run_dir=folder, resume=True)


def test_a_half_written_line_of_epochs_is_dropped(folder):
    run = RunFolder(folder)
    records = run.read_epochs(3)
    with run:
        run.add_epochs(records[:1])
    content = (folder / "epochs.jsonl").read_bytes()
    (folder / "epochs.jsonl").write_bytes(content[:-20])
    assert RunFolder(folder).read_epochs(3) == records
    with run:
        run.add_epochs(records[:2])
    assert RunFolder(folder).read_epochs(3) == [*records, *records[:2]]


def test_the_report_has_the_rounds_that_came_after_it_was_written(folder):
    run = RunFolder(folder)
    report = run.read_report()
    with run:
        run.write_report(
            Report.of_seed(report.config, report.groups, report.popularity, [report.dense])
        )
    assert RunFolder(folder).read_report() == report


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
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=rf"No space left on device; make room.* in {folder}$"):
        run.write_report(report.model_copy(update={"rounds": []}))
    assert (folder / "report.json").read_bytes() == before
    assert list(folder.rglob("*.tmp*")) == []
    assert RunFolder(folder).check() == []


def test_the_environment_names_versions_and_graph(folder):
    kept = json.loads((folder / "environment.json").read_text())
    described = describe_environment()
    assert len(kept.pop("graph")) == 64
    assert kept.pop("workers") == 1
    assert kept == described
    assert described["packages"]["torch"] == metadata.version("torch")
    assert described["threads"] == torch.get_num_threads()


def test_a_report_takes_in_the_rounds_since_it_was_written(folder):
    """One that was killed between a round and its report has judged the rounds before."""
    run = RunFolder(folder)
    whole = run.read_report()
    run.write_report(Report.of_seed(whole.config, whole.groups, whole.popularity, [whole.dense]))
    assert run.read_report() == whole
    first = [whole.dense, whole.rounds[0]]
    run.write_report(Report.of_seed(whole.config, whole.groups, whole.popularity, first))
    assert run.read_report() == whole
