"""``--by bytes`` of compare and plot: what tickets weigh beside ways that use no mask."""

import csv
import io
import json

import pytest

SHORT = (
    *("--model", "mf", "--dim", 8, "--rounds", 2, "--amount", 0.5, "--max-epochs", 2),
    *("--eval-every", 1, "--quiet"),
)


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    return tmp_path_factory.mktemp("bytes")


@pytest.fixture(autouse=True)
def weighed(at, run, monkeypatch):
    """Two runs, begun once for all tests here."""
    monkeypatch.chdir(at)
    for method in ("imp", "narrow"):
        if not (at / method).exists():
            assert run("prune", *SHORT, "--method", method, "--out", method)[0] == 0


def test_compare_by_bytes_shows_tickets_beside_ways_without_a_mask(run):
    code, out, _ = run("compare", "imp", "narrow", "--by", "bytes", "--format", "csv")
    assert code == 0
    points = list(csv.DictReader(io.StringIO(out)))
    ways = {(point["way"], point["values"]) for point in points if point["run"] == "imp"}
    for values in ("float32", "float16", "int8", "int4"):
        assert ("dense", values) in ways
    dense = {p["values"]: int(p["bytes"]) for p in points if p["way"] == "dense"}
    assert dense["float32"] == 2 * dense["float16"]
    assert dense["int8"] < dense["float16"]
    assert run("compare", "imp", "narrow", "--by", "bytes", "--format", "csv")[1] == out
    assert "beaten by" in run("compare", "imp", "--by", "bytes", "--format", "markdown")[1]
    assert json.loads(run("compare", "imp", "--by", "bytes", "--format", "json")[1])["notes"]


def test_runs_are_weighed_once(run):
    run("compare", "imp", "--by", "bytes")
    assert "weighing" not in run("compare", "imp", "--by", "bytes")[2]


def test_plot_by_bytes_draws_one_figure(run, at):
    code, out, _ = run("plot", "imp", "narrow", "--by", "bytes", "--out", "drawn")
    assert (code, out.split()) == (0, ["drawn/bytes.png", "drawn/bytes.svg"])
    assert (at / "drawn" / "bytes.svg").stat().st_size > 1000


def test_masks_are_not_compared_by_bytes(run):
    code, _, err = run("compare", "imp", "narrow", "--by", "bytes", "--overlap")
    assert code == 2 and "does not go with" in err
