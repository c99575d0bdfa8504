"""The way from a run to answers on the command line."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from pyg_lth.tickets import Ticket
from pyg_lth.tickets.exporters import EXPORTERS


@pytest.fixture(scope="module")
def exported(tmp_path_factory, request):
    """A folder with a log of text ids, a run on it and its ticket."""
    folder = tmp_path_factory.mktemp("exported")
    rows = [
        f"user {user},item {item}"
        for user in range(30)
        for item in range(20)
        if (user * 7 + item * 3) % 5 < 2
    ]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id", *rows]))
    script = """
from pathlib import Path
from pyg_lth.cli import cli
options = ["--dataset", "log.csv", "--root", "data", "--max-epochs", "4", "--dim", "8"]
cli.main(["prune", "--model", "mf", *options, "--rounds", "2", "--amount", "0.5", "--tolerance",
          "0.9", "--topk", "5", "--out", "run", "--quiet"], standalone_mode=False)
cli.main(["export", "run", "--round", "2", "--values", "float16", "--out", "a.ticket"],
         standalone_mode=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture
def ticket(exported, monkeypatch):
    monkeypatch.chdir(exported)
    return Ticket.load("a.ticket")


def test_export_prints_the_path_alone_and_prune_names_it(exported, run, monkeypatch):
    monkeypatch.chdir(exported)
    printed = (exported / "stdout").read_text().splitlines()
    assert printed[-1] == "a.ticket"
    assert any(line.startswith("Next: pyg-lth export run") for line in printed)
    code, out, err = run("export", "run", "--round", "0")
    assert (code, out) == (0, "run/round-000.ticket\n")
    assert "pyg-lth recommend run/round-000.ticket --user" in err


@pytest.mark.parametrize("kind", EXPORTERS)
def test_export_writes_each_format(exported, run, monkeypatch, tmp_path, kind):
    monkeypatch.chdir(exported)
    code, out, _ = run("export", "run", "--round", "1", "--format", kind, "--out", tmp_path / "any")
    assert (code, out) == (0, f"{tmp_path / 'any'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["any"]


def test_export_without_what_a_format_needs_is_one_line(exported, run, monkeypatch):
    monkeypatch.chdir(exported)
    monkeypatch.setitem(sys.modules, "usearch", None)
    code, out, err = run("export", "run", "--format", "usearch")
    assert (code, out) == (2, "")
    assert err == (
        "Error: the format usearch needs usearch, which is not installed: "
        'pip install "pyg-lth[usearch]"\n'
    )


def test_inspect_weighs_against_the_three_dense_tables(ticket, run):
    about = json.loads(run("inspect", "a.ticket", "--json")[1])
    rows = ticket.num_users + ticket.num_items
    assert about["dense_bytes"] == {
        "float32": rows * 32,
        "float16": rows * 16,
        "int8": rows * (8 + 2),
    }
    assert about["bytes"]["disk"] == Path("a.ticket").stat().st_size
    assert about["bytes"]["memory"] > about["bytes"]["disk"]
    assert about["entries"]["density"] == 0.25
    code, out, _ = run("inspect", "a.ticket")
    assert code == 0
    for text in ("float16", "held out", "What the paper counts", "Ticket.load('a.ticket')"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 80


def test_inspect_names_the_bias_where_there_is_one(ticket, run):
    assert "bias" not in run("inspect", "a.ticket")[1]
    bias = np.linspace(0, 1, ticket.num_items, dtype=np.float16)
    dataclasses.replace(ticket, bias=bias).save("biased.ticket")
    out = run("inspect", "biased.ticket")[1]
    of_table = ticket.table.nbytes
    assert f"bias          {bias.nbytes}: of items, added to scores" in out
    assert f"to answer     {of_table + bias.nbytes:,}: table and bias\n" in out
    assert max(map(len, out.splitlines())) <= 80
    assert json.loads(run("inspect", "biased.ticket", "--json")[1])["bytes"]["bias"] == bias.nbytes


def test_recommend_answers_in_original_ids(ticket, run):
    code, out, _ = run("recommend", "a.ticket", "--user", "user 3", "--user", "nobody", "--json")
    known, unknown = map(json.loads, out.splitlines())
    assert code == 0
    assert known["items"] == ticket.recommend(["user 3"])[0].items
    assert (known["basis"], unknown["basis"]) == ("trained", "popularity")
    lines = run("recommend", "a.ticket", "--user", "nobody", "-k", "3")[1].splitlines()
    assert lines[0] == "user nobody: not known: what is popular"
    assert len(lines) == 4


def test_recommend_for_all_as_csv_and_parquet(ticket, run):
    wanted = [
        (answer.user, place, item)
        for answer in ticket.recommend_all(k=3)
        for place, item in enumerate(answer.items, 1)
    ]
    out = run("recommend", "a.ticket", "--all", "-k", "3", "--format", "csv")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["user"], int(row["rank"]), row["item"]) for row in rows] == wanted
    run("recommend", "a.ticket", "--all", "-k", "3", "--format", "parquet", "--out", "all.parquet")
    rows = pyarrow.parquet.read_table("all.parquet").to_pylist()
    assert [(row["user"], row["rank"], row["item"]) for row in rows] == wanted


def test_recommend_by_history(ticket, run):
    items = ticket.item_ids.at([4, 7])
    options = [word for item in items for word in ("--history", item)]
    answer = json.loads(run("recommend", "a.ticket", *options, "--json")[1])
    assert answer["items"] == ticket.recommend_for(items).items
    assert (answer["user"], answer["basis"]) == (None, "history")
    Path("histories.csv").write_text(f"user,item\nann,{items[0]}\nbob,?\nann,{items[1]}\n")
    out = run("recommend", "a.ticket", "--history-file", "histories.csv", "--json")[1]
    ann, bob = map(json.loads, out.splitlines())
    assert (ann["user"], ann["items"]) == ("ann", answer["items"])
    assert (bob["user"], bob["basis"]) == ("bob", "popularity")


def test_recommend_leaves_out_what_a_file_names(ticket, run):
    best, second = ticket.recommend(["user 3"], k=2)[0].items
    Path("all.txt").write_text(f"{best}\n")
    Path("some.csv").write_text(f"user_id,item_id\nuser 3,{best}\nuser 4,{second}\n")
    for file in ("all.txt", "some.csv"):
        out = run("recommend", "a.ticket", "--user", "user 3", "--exclude", file, "--json")[1]
        items = json.loads(out)["items"]
        assert items[0] == second and best not in items
        out = run("recommend", "a.ticket", "--all", "--exclude", file, "--json")[1]
        answers = {answer["user"]: answer["items"] for answer in map(json.loads, out.splitlines())}
        assert answers["user 3"] == items
    item, (other, _) = best, ticket.similar(best, k=1)[0]
    Path("all.txt").write_text(f"{other}\n")
    out = run("recommend", "a.ticket", "--similar-to", item, "--exclude", "all.txt", "--json")[1]
    assert json.loads(out)["items"] == [name for name, _ in ticket.similar(item)][1:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "a.ticket"], "give one of --user"),
        (["recommend", "a.ticket", "--user", "1", "--all"], "give one of --user"),
        (["recommend", "a.ticket", "--all", "--json", "--format", "csv"], "two forms"),
        (["recommend", "a.ticket", "--all", "--format", "parquet"], "give --out"),
        (["recommend", "a.ticket", "--user", "1", "-k", "0"], "-k"),
        (["recommend", "a.ticket", "--similar-to", "x"], "item x is not in the ticket"),
        (["recommend", "a.ticket", "--all", "--exclude", "bad.csv"], "bad.csv, line 2: give item"),
        (["recommend", "a.ticket", "--history-file", "bad.txt"], "a line has no user"),
        (["recommend", "log.csv", "--all"], "log.csv cannot be read as a ticket"),
        (["inspect", "log.csv"], "log.csv cannot be read as a ticket"),
        (["export", "run", "--round", "7"], "no round 7: give one from 0 to 2"),
        (["export", "run", "--round", "1", "--winner"], "give one"),
        (["export", "data"], "data holds no run"),
        (["export", "run", "--round", "1", "--bytes", "9"], "store pruned"),
    ],
)
def test_what_cannot_be_is_refused_with_one_line(ticket, run, arguments, message):
    Path("bad.csv").write_text("a,b\nc,d,e\n")
    Path("bad.txt").write_text("a\n")
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_answers_need_no_torch(exported):
    script = (
        "import sys; from pyg_lth.cli import cli\n"
        "cli.main(['recommend', 'a.ticket', '--user', 'user 1'], standalone_mode=False)\n"
        "cli.main(['inspect', 'a.ticket'], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=exported, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
