"""What no one foresaw: said in one line, kept where it was, gone on with afterwards."""

import json
import re
from pathlib import Path

import pytest

from pyg_lth.evaluation.degree_groups import Analyst
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.results import environment
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.optimizers import RowUpdate

SHORT = [*("--model", "mf", "--dim", "4", "--max-epochs", "2", "--eval-every", "1")]
ARGUMENTS = ["prune", *SHORT, "--rounds", "2", "--quiet", "--json"]


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Run the command line in an empty folder, with temporary files in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return run


def without_times(text):
    report = json.loads(text)
    for result in (report["dense"], *report["rounds"]):
        del result["seconds"], result["cost_seconds"]
    return report


def fail_at(monkeypatch, owner, name, call, error):
    """Let a method raise an error when it is called for the so-many-th time."""
    method, calls = getattr(owner, name), 0

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (RowUpdate, "apply", 7),
        (Evaluator, "per_user", 4),
        (Analyst, "__call__", 2),
        (RunFolder, "write_round", 2),
        (RunFolder, "write_report", 3),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_fault_anywhere_is_one_line_and_the_run_goes_on_as_if_there_had_been_none(
    run, monkeypatch, owner, name, call
):
    with monkeypatch.context() as patched:
        fail_at(patched, owner, name, call, ZeroDivisionError("[b]no one\x1b foresaw"))
        code, out, err = run(*ARGUMENTS, "--out", "kept")
    assert (code, out) == (1, "")
    again, sorry = err.splitlines()
    assert again == "What is done is kept. Continue with: pyg-lth prune --resume kept"
    assert sorry.startswith("Error: sorry, this is a fault of pyg-lth (ZeroDivisionError: [b]no")
    written = Path(re.search(r"traceback in (\S+)$", sorry)[1]).read_text()
    assert "Traceback" in written and f"in {name}" not in written and "ZeroDivision" in written
    code, resumed, _ = run("prune", "--resume", "kept", "--quiet", "--json")
    assert code == 0
    _, expected, _ = run(*ARGUMENTS, "--out", "unbroken")
    assert without_times(resumed) == without_times(expected)


class PanicException(BaseException):
    """What pyo3 raises where Rust panics, under this name."""


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), PanicException("x")])
def test_a_fault_of_a_command_that_begins_no_run_is_one_line_too(run, monkeypatch, error):
    fail_at(monkeypatch, environment, "check_backends", 1, error)
    code, out, err = run("doctor")
    assert (code, out) == (1, "")
    assert err.startswith("Error: sorry") and err.count("\n") == 1


def test_where_no_traceback_can_be_written_it_is_shown(run, monkeypatch):
    monkeypatch.setattr("pyg_lth.results.environment.check_backends", lambda: 1 / 0)

    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    code, _, err = run("doctor")
    assert code == 1
    assert "Traceback" in err and err.splitlines()[-1].endswith("with the traceback above")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")]
)
def test_no_memory_is_no_fault_of_ours(run, monkeypatch, error):
    fail_at(monkeypatch, RowUpdate, "apply", 3, error)
    code, _, err = run(*ARGUMENTS, "--out", "kept")
    assert code == 2
    assert "--resume kept" in err and "not enough memory" in err and "--dry-run" in err


@pytest.mark.parametrize("name", ["write_initial", "write_round", "write_report", "write_epochs"])
def test_a_full_disk_names_file_folder_and_the_command_to_go_on(run, monkeypatch, name):
    """The file system says so in the middle of a file."""
    method = getattr(RunFolder, name)

    def full(self, *args, **kwargs):
        def fsync(file):
            raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("os.fsync", fsync)
            return method(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, name, full)
        code, out, err = run(*ARGUMENTS, "--out", "kept")
    assert (code, out) == (2, "")
    again, error = err.splitlines()
    assert again == "What is done is kept. Continue with: pyg-lth prune --resume kept"
    assert re.match(
        r"Error: kept/\S+ cannot be written: No space left on device; .* in kept", error
    )
    assert run("prune", "--resume", "kept", "--quiet")[0] == 0


def test_without_compiled_kernels_a_run_says_so_once(run, monkeypatch):
    monkeypatch.setattr("pyg_lth.kernels.library", lambda: None)
    for command in (ARGUMENTS, ["train", *SHORT, "--quiet"]):
        code, _, err = run(*command)
        assert code == 0
        assert err.count("kernels are not compiled") == 1 and "install a C compiler" in err
    assert "install a C compiler" in run("doctor")[1]


def test_another_device_or_fewer_threads_are_gone_on_with_and_said(run):
    _, first, _ = run(*ARGUMENTS, "--out", "kept")
    environment = Path("kept", "environment.json")
    begun = json.loads(environment.read_text())
    Path("kept", "checksums.txt").unlink()
    environment.write_text(json.dumps({**begun, "threads": 64, "gpu": "Some GPU"}))
    code, again, err = run("prune", "--resume", "kept", "--device", "cpu", "--quiet", "--json")
    assert code == 0
    assert "threads 64" in err and "GPU Some GPU" in err
    assert "device auto, and goes on with cpu" in err
    assert json.loads(again)["rounds"] == json.loads(first)["rounds"]
    assert json.loads(Path("kept", "config.json").read_text())["device"] == "cpu"
    environment.write_text(json.dumps({**begun, "packages": {"torch": "1.0"}}))
    Path("kept", "checksums.txt").unlink()
    code, _, err = run("prune", "--resume", "kept", "--quiet")
    assert code == 2
    assert "torch 1.0, and here is" in err.splitlines()[-1]


def test_a_run_on_other_data_is_not_gone_on_with(run):
    run(*ARGUMENTS, "--out", "kept")
    Path("log.csv").write_text(
        "user_id,item_id\n" + "".join(f"{u},{u * s % 31}\n" for u in range(40) for s in range(19))
    )
    code, _, err = run("prune", "--resume", "kept", "--dataset", "log.csv", "--quiet")
    assert code == 2
    assert "the graph is not the one that kept was begun with" in err


def test_seeds_beyond_the_last_are_refused_before_anything_is_written(run, tmp_path):
    code, out, err = run("prune", "--seed", 4294967295, "--seeds", 2)
    assert (code, out) == (2, "")
    assert "lower --seed or --seeds" in err
    assert not list(tmp_path.iterdir())
