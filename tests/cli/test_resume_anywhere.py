"""Runs go on from Python, from the command line, and from any folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyg_lth import InputError, PruneConfig, TrainConfig, find_tickets, train
from pyg_lth.datasets import InteractionFile
from pyg_lth.results.run_folder import RunFolder

SHORT = ["--model", "mf", "--dim", "4", "--max-epochs", "2", "--eval-every", "1", "--quiet"]


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def log(tmp_path):
    """A log of interactions with ids of text and of numbers that are no indices."""
    lines = [f"u{user},{700 + user * step % 31}" for user in range(40) for step in range(1, 20)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id", *lines]))
    return path


def shorten(folder):
    """Make a run look as if it had been killed after its dense round."""
    for path in folder.glob("round-00[1-9]"):
        shutil.rmtree(path)
    for name in ("report.json", "checksums.txt"):
        (folder / name).unlink()


def figures(report):
    return [ticket.test for ticket in report.rounds]


@pytest.fixture
def config(quick_config):
    return quick_config(model="mf", max_epochs=2, rounds=2)


def test_a_run_of_python_goes_on_from_the_command_line(run, small_graph, config):
    whole = find_tickets(small_graph, config, run_dir="mine")
    shorten(Path("mine"))
    code, out, _ = run("prune", "--resume", "mine", "--json", "--quiet")
    assert code == 0
    report = json.loads(out)
    assert [ticket["test"] for ticket in report["rounds"]] == figures(whole)
    assert report["config"] == config.model_dump()
    assert json.loads(run("prune", "--resume", "mine", "--print-config")[1]) == config.model_dump()
    assert run("report", "mine")[0] == 0
    code, out, _ = run("prune", *SHORT, "--rounds", 1, "--out", "other")
    assert code == 0
    assert run("compare", "mine", "other")[0] == 0


def test_a_run_of_several_seeds_of_python_goes_on_from_the_command_line(run, small_graph, config):
    config = config.model_copy(update={"seeds": 2})
    whole = find_tickets(small_graph, config, run_dir="mine")
    for folder in (Path("mine"), Path("mine/seed-0"), Path("mine/seed-1")):
        shorten(folder)
    code, out, _ = run("prune", "--resume", "mine", "--json", "--quiet")
    assert code == 0
    assert [ticket["test"] for ticket in json.loads(out)["rounds"]] == figures(whole)


def test_a_run_of_the_command_line_goes_on_from_python(run, log):
    run("prune", *SHORT, "--dataset", log, "--rounds", 2, "--out", "kept")
    whole = RunFolder("kept").read_report()
    data = InteractionFile("data", str(log))[0]
    shorten(Path("kept"))
    assert figures(find_tickets(data, run_dir="kept", resume=True)) == figures(whole)
    shorten(Path("kept"))
    report = find_tickets(run_dir="kept", resume=True)
    assert figures(report) == figures(whole)
    assert report.config == whole.config and report.config["dataset"] == str(log)
    given = PruneConfig(model="mf", dim=4, max_epochs=2, eval_every=1, rounds=2)
    assert figures(find_tickets(data, given, run_dir="kept", resume=True)) == figures(whole)


def test_a_dense_run_goes_on_without_its_settings(small_graph, tmp_path):
    config = TrainConfig(model="mf", dim=4, max_epochs=2, eval_every=1)
    report = train(small_graph, config, run_dir=tmp_path)
    assert train(run_dir=tmp_path, resume=True) == report
    with pytest.raises(InputError, match="holds other settings"):
        find_tickets(small_graph, PruneConfig(**config.model_dump()), run_dir=tmp_path, resume=True)


def test_a_run_goes_on_from_any_folder_and_without_its_data(run, log, monkeypatch, tmp_path):
    run("prune", *SHORT, "--dataset", "log.csv", "--rounds", 1, "--out", "first")
    run(*["prune", *SHORT, "--dataset", "log.csv", "--rounds", 1, "--mask-from", "first"],
        *["--method", "random", "--out", "kept"])  # fmt: skip
    whole = RunFolder("kept").read_report()
    shorten(Path("kept"))
    log.unlink()
    shutil.rmtree("data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, _ = run("prune", "--resume", "../kept", "--json", "--quiet")
    assert code == 0
    assert [ticket["test"] for ticket in json.loads(out)["rounds"]] == figures(whole)


def test_the_folder_keeps_the_original_ids_and_where_it_was_begun(run, log, tmp_path):
    run("train", *SHORT, "--dataset", "log.csv", "--out", "kept")
    dataset = InteractionFile("data", str(log))
    kept = json.loads(Path("kept/data.json").read_text())
    assert kept["user_ids"] == dataset.user_ids.tolist()
    assert kept["item_ids"] == dataset.item_ids.tolist()
    assert Path(kept["directory"], "log.csv") == log
    split = RunFolder("kept").read_data().split
    assert torch.equal(split.test, dataset[0]["user", "rates", "item"].edge_label_index)


def test_moved_data_are_named_anew(run, log, monkeypatch, tmp_path):
    run("prune", *SHORT, "--dataset", "log.csv", "--rounds", 1, "--out", "kept")
    whole = RunFolder("kept").read_report()
    shorten(Path("kept"))
    Path("kept/graph.safetensors").unlink()  # as in the folders of older code
    log.rename("moved.csv")
    assert "log.csv" in run("prune", "--resume", "kept")[2]
    code, out, _ = run("prune", "--resume", "kept", "--dataset", "moved.csv", "--json", "--quiet")
    assert code == 0
    assert [ticket["test"] for ticket in json.loads(out)["rounds"]] == figures(whole)
    # Now the folder has the graph.
    Path("moved.csv").unlink()
    assert run("prune", "--resume", "kept", "--quiet")[0] == 0


def test_other_data_are_refused(run, log):
    run("train", *SHORT, "--dataset", "log.csv", "--out", "kept")
    log.write_text(log.read_text() + "\nu1,999\nu2,999\nu3,999")
    code, out, err = run("prune", "--resume", "kept", "--dataset", "log.csv")
    assert (code, out) == (2, "")
    assert "the graph is not the one" in err
    code, _, err = run("prune", "--resume", "kept", "--dataset", "log.csv", "--lr", 1)
    assert code == 2 and "--lr does not go with --resume" in err


def test_a_graph_that_is_not_the_runs_is_damaged(run, small_graph, config):
    find_tickets(small_graph, config, run_dir="mine")
    path = Path("mine/graph.safetensors")
    graph = load_file(path)
    save_file({**graph, "test": graph["valid"], "valid": graph["test"]}, path)
    code, _, err = run("prune", "--resume", "mine")
    assert code == 2 and "graph.safetensors is damaged" in err and err.count("\n") == 1
    path.write_bytes(b"nothing")
    assert "graph.safetensors is damaged" in run("prune", "--resume", "mine")[2]
    # The same graph, given again, is kept again.
    find_tickets(small_graph, run_dir="mine", resume=True)
    assert run("prune", "--resume", "mine", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "`data` is missing"),
        ({"resume": True}, "`resume` needs the `run_dir`"),
        ({"user_ids": ["a"] * 40}, "`user_ids` must be 40 different ids"),
        ({"item_ids": range(9)}, "`item_ids` must be 30 different ids"),
    ],
)
def test_what_is_missing_is_said_in_one_line(small_graph, config, given, words, tmp_path):
    data = small_graph if any("ids" in name for name in given) else None
    folder = None if "resume" in given else tmp_path / "run"
    with pytest.raises(InputError, match=words) as error:
        find_tickets(data, config, run_dir=folder, **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()
