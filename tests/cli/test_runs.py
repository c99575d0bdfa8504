import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyg_lth.sweeps.children import command_line

SHORT = ["--model", "mf", "--dim", 4, "--max-epochs", 2, "--eval-every", 2, "--rounds", 1]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made(run):
    assert run("prune", *SHORT, "--out", "runs/one", "--quiet")[0] == 0


def test_runs_are_listed_checked_and_cleaned(run, made):
    (entry,) = json.loads(run("runs", "list", "--json")[1])
    assert entry["run"] == "runs/one" and entry["state"] == "done" and entry["bytes"] > 0
    assert "runs/one: done, synthetic" in run("runs", "list")[1]
    code, out, _ = run("runs", "check", "runs/one")
    assert code == 0 and out.endswith("files: all as written\n")
    Path("runs/one/state/training.safetensors").write_bytes(b"x" * 2_000_000)
    assert "2.0 MB freed" in run("runs", "clean", "runs/one")[1]
    mask = Path("runs/one/round-001/mask.safetensors")
    content = bytearray(mask.read_bytes())
    content[-1] ^= 1
    mask.write_bytes(content)
    code, out, _ = run("runs", "check", "runs/one")
    assert code == 2
    assert "mask.safetensors is damaged" in out and "1 damaged" in out
    (found,) = json.loads(run("runs", "check", "runs/one", "--json")[1])
    assert len(found["damaged"]) == 1
    code, _, err = run("prune", "--resume", "runs/one", "--quiet")
    assert code == 0 and "does round 1 again" in err
    assert run("runs", "check", "runs/one")[0] == 0


def test_a_preset_does_not_go_with_resume(run, made):
    code, _, err = run("prune", "--resume", "runs/one", "--preset", "paper")
    assert code == 2 and "--preset does not go with --resume" in err


def test_too_high_a_last_seed_is_refused_before_anything_is_written(run):
    code, _, err = run("prune", *SHORT, "--seed", 2**32 - 1, "--seeds", 2, "--out", "kept")
    assert code == 2 and "--seeds" in err
    assert not Path("kept").exists()


def test_markup_and_html_in_a_name_are_shown_as_they_are(run):
    name = "log[v2]<b>.csv"
    rows = [f"u{user},i{(user * step) % 31}" for user in range(40) for step in range(1, 20)]
    Path(name).write_text("\n".join(["user_id,item_id", *rows]))
    code, out, _ = run("prune", "--dataset", name, *SHORT, "--out", "kept", "--quiet")
    assert code == 0 and name in out.replace("\n", "")
    assert r"log\[v2\]\<b\>.csv" in Path("kept/report.md").read_text()


def test_what_no_one_foresaw_is_an_apology_with_the_traceback_kept(run, made, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("never thought of")

    monkeypatch.setattr("pyg_lth.search.find_tickets", fail)
    code, _, err = run("prune", "--resume", "runs/one", "--quiet")
    assert code == 1
    assert "Continue with: pyg-lth prune --resume runs/one" in err
    assert "sorry" in err and "Traceback" not in err
    kept = Path(err.split("traceback in ")[1].strip())
    assert "never thought of" in kept.read_text()
    kept.unlink()


def test_a_full_disk_names_file_folder_and_the_command_to_go_on(run, made, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("prune", "--resume", "runs/one", "--quiet")
    assert code == 2
    assert "No space left on device" in err and "runs/one" in err
    assert "Continue with: pyg-lth prune --resume runs/one" in err


def test_a_child_runs_no_file_of_the_current_folder(tmp_path):
    for module in ("yaml", "json", "click", "torch", "pyg_lth"):
        Path(f"{module}.py").write_text("open('hostile', 'w')\nraise SystemExit(9)\n")
    child = subprocess.run(command_line("--version"), capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert "pyg-lth" in child.stdout
    assert not Path("hostile").exists()
    assert sys.executable == command_line()[0]


def test_nothing_is_removed_behind_a_link(run, made, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    names = ("training.safetensors", "auxiliary.safetensors", ".1-ab.tmp.report.json")
    for name in names:
        (other / name).write_text("of somebody else")
    Path("runs/one/round-007").symlink_to(other)
    Path("runs/one/linked").symlink_to(other)
    assert run("runs", "clean", "runs/one")[0] == 0
    assert run("prune", "--resume", "runs/one", "--quiet")[0] == 0
    assert {path.name for path in other.iterdir()} == set(names)
