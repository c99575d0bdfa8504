import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = (
    [],
    ["prune"],
    ["train"],
    ["sweep"],
    ["report"],
    ["compare"],
    ["plot"],
    ["datasets"],
    ["datasets", "list"],
    ["datasets", "info"],
    ["datasets", "prepare"],
    ["doctor"],
)
SHORT = ["--model", "mf", "--dim", "4", "--max-epochs", "2", "--eval-every", "1"]


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run


def assert_refused(result, *words):
    """One line on stderr that holds the words, and exit code 2."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_command(run, command):
    code, out, err = run(*command, "--help")
    assert code == 0
    assert out.startswith("Usage: pyg-lth")
    assert err == ""


def test_no_command_shows_the_help(run):
    code, out, _ = run()
    assert code == 0
    assert "prune" in out


def test_help_does_not_wait_for_torch():
    script = "import sys, pyg_lth.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_prune_prints_a_report_and_keeps_it(run):
    code, out, err = run("prune", *SHORT, "--rounds", 2, "--out", "kept")
    assert code == 0
    assert "popular" in out and "dense" in out and "Files: kept" in out
    assert "round 2 epoch 2: loss" in err
    assert "\x1b" not in out + err
    names = {path.name for path in Path("kept").iterdir()}
    assert names == {
        "checksums.txt",
        "config.json",
        "data.json",
        "environment.json",
        "epochs.jsonl",
        "graph.safetensors",
        "report.json",
        "report.md",
        "rounds.jsonl",
        "round-000",
        "round-001",
        "round-002",
        "state",
        "theta0.safetensors",
    }


def test_json_goes_to_stdout_and_everything_else_to_stderr(run):
    code, out, err = run("prune", *SHORT, "--rounds", 1, "--json", "--out", "kept")
    assert code == 0
    assert json.loads(out) == json.loads(Path("kept/report.json").read_text())
    assert "round 1 done" in err


def test_quiet_shows_the_report_alone(run):
    code, out, err = run("prune", *SHORT, "--rounds", 1, "--quiet")
    assert (code, err) == (0, "")
    assert "Files: runs/synthetic-mf-imp-" in out


def test_train_is_the_dense_round(run):
    code, out, _ = run("train", *SHORT, "--json", "--quiet")
    report = json.loads(out)
    assert code == 0
    assert report["rounds"] == [] and report["sparsest_winner"] is None
    assert "amount" not in report["config"]


def test_selection_on_test_is_said(run):
    _, out, _ = run("prune", *SHORT, "--rounds", 1, "--select-on", "test", "--quiet")
    assert "SELECTED ON TEST" in out


def test_flags_take_precedence_over_the_file_and_the_file_over_defaults(run, tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"rounds": 7, "model": "mf", "amount": 0.3}')
    code, out, _ = run("prune", "--config", file, "--amount", 0.2, "--print-config")
    shown = json.loads(out)
    assert code == 0
    assert (shown["rounds"], shown["amount"], shown["model"]) == (7, 0.2, "mf")
    assert (shown["layers"], shown["dim"]) == (0, 32)


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--no-refit"], False)])
def test_what_a_preset_or_a_file_turns_on_a_flag_turns_off(run, tmp_path, flags, expected):
    file = tmp_path / "settings.json"
    file.write_text('{"refit": true}')
    for given in (["--preset", "strong"], ["--config", file]):
        _, out, _ = run("prune", *given, *flags, "--print-config")
        assert json.loads(out)["refit"] is expected


@pytest.mark.parametrize(
    "text", ['{"rounds": 7, "lr": 1e-2, "user_col": null}', "rounds: 7\nlr: 1e-2\nuser_col:\n"]
)
def test_a_settings_file_is_yaml_or_json(run, tmp_path, text):
    file = tmp_path / "settings"
    file.write_text(text)
    code, out, _ = run("prune", "--config", file, "--print-config")
    shown = json.loads(out)
    assert code == 0
    assert (shown["rounds"], shown["lr"], shown["user_col"]) == (7, 0.01, None)


def test_commands_come_in_the_order_of_their_importance(run):
    names = ["prune", "train", "tune", "sweep", "report", "compare", "plot"]
    listed = run("--help")[1].partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if line[2:3].isalpha()][:7] == names
    listed = run("datasets", "--help")[1].partition("Commands:")[2].split()
    assert listed.index("list") < listed.index("info") < listed.index("prepare")


def test_the_printed_settings_are_a_settings_file(run, tmp_path):
    _, out, _ = run("prune", "--rounds", 3, "--print-config")
    file = tmp_path / "settings.json"
    file.write_text(out)
    assert run("prune", "--config", file, "--print-config")[1] == out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prune", "--amount", "1.5"], ["--amount 1.5", "less than 1"]),
        (["prune", "--rounds", "some"], ["--rounds", "some"]),
        (["prune", "--model", "gcn"], ["--model", "lightgcn"]),
        (["prune", "--patience", "0"], ["--patience 0"]),
        (["prune", "--lr", "nan"], ["--lr nan"]),
        (["prune", "--model", "mf", "--layers", "2"], ["mf has no propagation layers"]),
        (["prune", "--speed", "9"], ["--speed"]),
        (
            ["prune", "--method", "reinit", "--rewind-epoch", "2"],
            ["--rewind-epoch does not go with --method reinit"],
        ),
        (["sparsify"], ["sparsify"]),
        (["prune", "--dataset", "gowala"], ["gowala", "gowalla"]),
        (["prune", "--dataset", "log.csv"], ["log.csv"]),
        (["prune", "--core", "5"], ["--core", "synthetic"]),
        (["prune", "--config", "absent.json"], ["absent.json"]),
        (["prune", "--resume", "absent"], ["absent", "config.json"]),
        (["prune", "--resume", "absent", "--rounds", "3"], ["--rounds", "--resume"]),
        (["report", "absent"], ["absent"]),
        (["report"], ["RUNS"]),
        (["datasets", "info", "netflix"], ["netflix"]),
        (["datasets", "prepare", "kwai"], ["kwai"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_refused_in_one_line(run, arguments, words):
    assert_refused(run(*arguments), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"rounds"', ["settings.json", "line 1"]),
        ("[3]", ["settings.json", "object"]),
        ('{"round": 3}', ["settings.json: round", "no such setting"]),
        ('{"rounds": -3}', ["settings.json: rounds -3"]),
    ],
)
def test_a_bad_settings_file_is_refused_in_one_line(run, tmp_path, text, words):
    file = tmp_path / "settings.json"
    file.write_text(text)
    assert_refused(run("prune", "--config", file), *words)


def test_no_cuda_is_said_in_one_line(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert_refused(run("prune", "--device", "cuda"), "--device cuda", "auto")


def test_a_folder_that_cannot_be_made_is_said_in_one_line(run):
    Path("file").write_text("")
    assert_refused(run("prune", *SHORT, "--out", "file/run"), "file/run")


def test_a_folder_with_a_run_is_not_overwritten(run):
    run("train", *SHORT, "--out", "kept")
    assert_refused(run("train", *SHORT, "--out", "kept"), "--resume", "--out")


def test_a_finished_run_resumes_to_the_same_report(run):
    _, first, _ = run("prune", *SHORT, "--rounds", 1, "--out", "kept", "--json")
    code, again, err = run("prune", "--resume", "kept", "--json")
    assert code == 0
    assert again == first
    assert "round 1 done" in err


def test_a_dense_run_resumes_too(run):
    _, first, _ = run("train", *SHORT, "--out", "kept", "--json")
    assert run("prune", "--resume", "kept", "--json")[1] == first


@pytest.mark.parametrize("text", ['{"rou', "[]", "\xff"])
def test_a_damaged_run_is_refused_in_one_line(run, text):
    Path("kept").mkdir()
    Path("kept/config.json").write_bytes(text.encode("latin-1"))
    assert_refused(run("prune", "--resume", "kept"), "kept/config.json")


def test_report_shows_runs_again(run):
    _, first, _ = run("train", *SHORT, "--out", "one", "--quiet")
    _, second, _ = run("prune", *SHORT, "--rounds", 1, "--out", "two", "--quiet")
    code, out, _ = run("report", "one", "two")
    assert code == 0
    shown = [line for line in (first + second).splitlines() if not line.startswith("Next: ")]
    assert out.splitlines() == shown
    reports = json.loads(run("report", "one", "two", "--json")[1])
    assert [len(report["rounds"]) for report in reports] == [0, 1]


def test_report_of_a_folder_without_a_run_says_so(run):
    Path("empty").mkdir()
    assert_refused(run("report", "empty"), "empty", "config.json")


def test_a_log_of_ones_own_can_be_pruned(run):
    lines = [f"u{user},i{(user * step) % 31}" for user in range(40) for step in range(1, 20)]
    Path("log.csv").write_text("\n".join(["who,what", *lines]))
    code, out, _ = run(
        *["prune", "--dataset", "log.csv", "--user-col", "who", "--item-col", "what"],
        *[*SHORT, "--rounds", 1, "--quiet"],
    )
    assert code == 0
    assert "Files: runs/log-mf-imp-" in out


def test_datasets_are_listed_described_and_prepared(run):
    code, out, _ = run("datasets", "list")
    assert code == 0
    assert "tiktok-mmssl" in out
    entries = json.loads(run("datasets", "list", "--json")[1])
    assert {"gowalla", "synthetic"} <= {entry["name"] for entry in entries}
    code, out, _ = run("datasets", "prepare", "synthetic")
    assert code == 0
    assert "30,000" in out and "sha256" in out
    about = json.loads(run("datasets", "info", "synthetic", "--json")[1])
    assert about["users"] == 1000
    code, out, _ = run("datasets", "info", "kwai")
    assert code == 0
    assert "gated" in out


def test_doctor_checks_this_machine(run):
    code, out, _ = run("doctor")
    assert code == 0
    assert "propagation csr" in out
    findings = json.loads(run("doctor", "--json")[1])
    assert findings["propagation"]["csr"] == "ok"
    assert findings["propagation"]["edge-index"] == "ok"


def test_ctrl_c_saves_and_prints_the_command_that_continues(tmp_path):
    arguments = ["prune", "--rounds", "2", "--dim", "4", "--eval-every", "2", "--max-epochs", "40"]
    program = [sys.executable, "-c", "from pyg_lth.cli import main; main()"]

    def start(*more):
        return subprocess.Popen(
            [*program, *more],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    unbroken = start(*arguments, "--out", "unbroken", "--json")
    stopped = start(*arguments, "--out", "stopped", "--json")
    for line in stopped.stderr:
        if line.startswith("round 0 epoch 4"):
            break
    time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert out == ""
    assert err.endswith("Continue with: pyg-lth prune --resume stopped\n")
    out, err = start("prune", "--resume", "stopped", "--json").communicate(timeout=120)
    assert "continued at epoch" in err
    resumed, expected = json.loads(out), json.loads(unbroken.communicate(timeout=120)[0])
    for report in (resumed, expected):
        for result in (report["dense"], *report["rounds"]):
            del result["seconds"], result["cost_seconds"]
    assert resumed == expected
