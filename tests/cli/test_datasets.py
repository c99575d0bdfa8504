import html
import json
import random
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tiktok-sample"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def log():
    rng = random.Random(0)
    pairs = [(f"u{rng.randrange(9)}", rng.randrange(12)) for _ in range(300)]
    Path("log.csv").write_text("".join(f"{u};{i}\n" for u, i in [*pairs, ("u1", "")]))
    return ["--separator", ";", "--no-header"]


def test_what_is_dropped_and_merged_is_told_on_stderr(run, log):
    code, _, err = run("datasets", "info", "log.csv", *log)
    assert code == 2 and err == (
        "Error: log.csv, line 301: empty id in column '2'; give every row one, or set "
        "--drop-missing\n"
    )
    code, out, err = run("datasets", "info", "log.csv", *log, "--drop-missing")
    assert code == 0 and "users         9" in out
    dropped, merged = err.splitlines()
    assert dropped == "log.csv: 1 rows without a value in 1 or 2 dropped (first: line 301)"
    assert merged.startswith("log.csv: ") and merged.endswith(" repeated interactions merged")


def test_what_is_dropped_and_merged_is_kept_with_the_run_and_shown(run, log):
    short = ["--model", "mf", "--dim", 4, "--max-epochs", 1, "--eval-every", 1, "--rounds", 1]
    options = [*log, "--drop-missing", *short, "--out", "kept", "--quiet"]
    code, out, err = run("prune", "--dataset", "log.csv", *options)
    notes = err.splitlines()
    assert code == 0 and len(notes) >= 2
    assert json.loads(Path("kept/data.json").read_text())["notes"] == notes
    shown = " ".join(run("report", "kept")[1].split())
    run("report", "kept", "--html")
    for note in notes:
        assert f"Data: {note}" in shown and f"Data: {note}" in " ".join(out.split())
        assert f"<li>{note}</li>" in html.unescape(Path("kept/report.html").read_text())
        assert f"- {note}" in Path("kept/report.md").read_text().replace("\\", "")


def test_convert(run, log):
    code, out, err = run("datasets", "convert", "log.csv", "out.parquet", *log, "--drop-missing")
    assert code == 0 and out.startswith("out.parquet  ") and "dropped" in err
    code, _, err = run("datasets", "convert", "log.csv", "out.parquet", *log)
    assert code == 2 and "out.parquet: is there already" in err
    assert run("datasets", "info", "out.parquet")[0] == 0


def test_users_that_training_lacks_are_ranked(run):
    Path("given").mkdir()
    users = [f"{u} {' '.join(str(i) for i in range(20) if (u + i) % 3)}" for u in range(12)]
    Path("given/train.txt").write_text("\n".join(users))
    Path("given/valid.txt").write_text("0 0\n1 2\n")
    Path("given/test.txt").write_text("2 1\n3 0\n13 4 20\n")
    quick = ["--rounds", "1", "--max-epochs", "2", "--dim", "4", "--eval-every", "1", "--quiet"]
    for model in ("mf", "lightgcn"):
        arguments = ["--dataset", "given", "--model", model, *quick, "--out", model]
        code, _, err = run("prune", *arguments)
        assert code == 0, err
        assert "1 users and 1 items without a training interaction kept" in err
        assert "--drop-cold leaves them out" in err


def test_the_sample_of_the_tiktok_log(run):
    if not SAMPLE.is_dir():
        pytest.skip("the sample is not there")
    code, _, err = run("datasets", "info", SAMPLE / "sample.txt", "--no-header", "--item-col", "3")
    assert code == 2 and "196 of 198 users occur once" in err
    assert "give a larger log, or set --test-file" in err
    raw = Path("data/tiktok/raw")
    raw.mkdir(parents=True)
    (raw / "final_track2_train.txt").symlink_to(SAMPLE / "sample.txt")
    code, _, err = run("datasets", "info", "tiktok")
    assert code == 2 and "users occur once" in err and "give the whole log" in err
