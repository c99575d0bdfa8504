import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pyg_lth import InputError, compare_runs, find_tickets, user_metrics
from pyg_lth.reporting.formats import to_csv
from pyg_lth.results.run_folder import RunFolder


@pytest.fixture(scope="module")
def runs(small_graph, quick_config, tmp_path_factory):
    """Reports of a run of one seed and of two, and their folders."""
    folder = tmp_path_factory.mktemp("runs")
    names = [f"user {index}" for index in range(40)]
    one = find_tickets(small_graph, quick_config(rounds=2), run_dir=folder / "one", user_ids=names)
    two = find_tickets(small_graph, quick_config(rounds=1, seeds=2, seed=3), run_dir=folder / "two")
    return {"one": (one, folder / "one"), "two": (two, folder / "two")}


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_report_as_a_frame_has_each_figure_of_each_round(runs, name):
    report = runs[name][0]
    frame = report.to_frame()
    results = [report.dense, *report.rounds]
    assert list(frame["round"]) == [result.round for result in results]
    for row, result in zip(frame.to_dict("records"), results, strict=True):
        for field in ("density", "remaining", "best_epoch", "seconds"):
            assert row[field] == getattr(result, field)
        for metric, value in result.test.items():
            assert row[f"test_{metric.partition('@')[0]}"] == value
        if result.difference is not None:
            assert row["p_value"] == result.difference.p_value
            assert (row["wins"], row["strict"]) == (result.wins, result.strict)
    assert pd.isna(frame["wins"][0]) and pd.isna(frame["p_value"][0])


def test_a_comparison_as_a_frame_is_its_csv(runs, tmp_path):
    comparison = compare_runs([folder for _, folder in runs.values()])
    frame = comparison.to_frame()
    path = tmp_path / "figures.csv"
    path.write_text(to_csv(comparison))
    read = pd.read_csv(path)
    assert list(frame.columns) == list(read.columns)
    assert len(frame) == len(read) == 5
    for name in ("round", "density", "test_recall", "seconds"):
        assert frame[name].tolist() == read[name].tolist()
    assert set(frame["run"]) == {run.label for run in comparison.runs}


def test_users_as_a_frame_are_those_of_the_folder_with_their_own_ids(runs):
    report, folder = runs["one"]
    frame = user_metrics(folder)
    assert list(frame.columns[:5]) == ["seed", "round", "density", "user", "user_id"]
    kept = RunFolder(folder)
    for result in (report.dense, *report.rounds):
        users = kept.read_users(result.round)
        rows = frame[frame["round"] == result.round]
        assert rows["user"].tolist() == users["user"].tolist()
        assert rows["user_id"].tolist() == [f"user {index}" for index in users["user"].tolist()]
        for metric, value in result.test.items():
            assert np.array_equal(rows[metric], users[metric].numpy())
            assert rows[metric].mean() == pytest.approx(value)
    assert user_metrics(folder, round=1)["round"].unique().tolist() == [1]
    with pytest.raises(InputError, match="no such finished round"):
        user_metrics(folder, round=7)


def test_users_of_several_seeds_are_in_one_frame(runs):
    report, folder = runs["two"]
    frame = user_metrics(folder)
    assert sorted(frame["seed"].unique()) == [3, 4]
    assert (frame["user"] == frame["user_id"]).all()
    means = frame.groupby("round")[report.metric].mean()
    assert means[1] == pytest.approx(report.rounds[0].test[report.metric])


def test_a_short_text_stands_for_each_result(runs):
    report = runs["two"][0]
    for value in (report, report.dense, report.rounds[0]):
        assert "\n" not in repr(value) and len(repr(value)) < 200
        assert str(value) == repr(value)
    assert "seeds [3, 4]" in repr(report) and "1 of 1 rounds" in repr(report)
    assert repr(report.rounds[0]).startswith("Ticket(round 1, density ")


def test_html_escapes_what_a_user_wrote(runs):
    report = runs["one"][0].model_copy(update={"config": {
        **runs["one"][0].config, "dataset": "<script>"}})  # fmt: skip
    assert "<script>" not in report._repr_html_() and "&lt;script&gt;" in report._repr_html_()


def test_pandas_is_imported_only_when_a_frame_is_asked_for():
    script = """
import sys
import torch_geometric  # which may import pandas itself
for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
    del sys.modules[name]
import pyg_lth.search, pyg_lth.reporting.comparison, pyg_lth.results.frames
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
