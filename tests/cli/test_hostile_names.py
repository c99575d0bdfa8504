"""Names from anywhere: markup, HTML, escape sequences, bytes that are no text."""

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from pyg_lth.cli.streams import hand_out, say, shell
from pyg_lth.reporting.terminal import Terminal

CLI = Path(__file__).parents[2] / "cli"
SHORT = [*("--model", "mf", "--dim", 4, "--max-epochs", 1, "--eval-every", 1, "--rounds", 1)]
NAMES = [
    "log[v2].csv",
    "a[/x].csv",
    "[bold]:smile:<script>alert(1)</script>.csv",
    "\x1b[31mred\x07\x9b.csv",
    "no\udcfftext.csv",
    "--help it's $(a) `b` \\.csv",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_run_on_a_file_of_any_name_is_pruned_reported_compared_and_shipped(
    run, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    ids = [
        (f"[/u]{user}\x1b[1m", f"<b>{user * step % 31}\x1b[2J")
        for user in range(40)
        for step in range(1, 20)
    ]
    path, folder = f"./{name.replace('/', os.sep)}", f"runs/{name}"
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in ids))
    ticket = f"{folder}/a.ticket"
    for arguments in (
        ["prune", *SHORT, "--dataset", path, "--out", folder],
        ["prune", "--resume", folder, "--json"],
        ["report", folder],
        ["report", folder, "--html"],
        ["compare", folder, folder],
        ["compare", folder, folder, "--format", "json"],
        ["runs", "list", "runs"],
        ["runs", "check", folder],
        ["datasets", "info", path],
        ["datasets", "info", path, "--json"],
        ["export", folder, "--round", 1, "--out", ticket],
        ["inspect", ticket],
        ["recommend", ticket, "--user", "[/u]3\x1b[1m", "--json"],
        ["report", f"{folder}-absent"],
        ["prune", "--dataset", f"{path}-absent"],
    ):
        code, out, err = run(*arguments)
        refused = str(arguments[-1]).endswith("-absent")
        assert code == (2 if refused else 0), (arguments, err)
        assert "Traceback" not in err
        # Data are handed out as they are; only on a terminal they are escaped too.
        as_data = "--json" in arguments or "json" in arguments
        assert not set(err if as_data else out + err) & {"\x1b", "\x07", "\x9b"}
        if as_data:
            json.loads(out)
    assert "<script>alert" not in Path(folder, "report.html").read_text()
    assert "<script>" not in Path(folder, "report.md").read_text().replace("\\<", "")


@pytest.mark.parametrize(
    "word", ["plain", "", "two words", "it's", "\x1b[31m", "a\nb", "\\'\x07", "b\udcff", "é\u202e"]
)
def test_a_command_that_is_shown_can_be_pasted_whatever_it_names(word):
    line = shell("printf", "%s", word)
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True).stdout == os.fsencode(word)


def test_words_and_data_steer_no_terminal(capsys, monkeypatch):
    say("[b]a\x1b[31m\x9b\r\u202e[/b]\n日本\u3000", bold=False)
    assert capsys.readouterr().out == "[b]a\\x1b[31m\\x9b\\r\\u202e[/b]\n日本\u3000\n"
    hand_out("a\tb\x1b\n")
    assert capsys.readouterr().out == "a\tb\x1b\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    hand_out("a\x1b\n")
    assert capsys.readouterr().out == "a\\x1b\n"


def test_a_table_shows_names_as_they_are(capsys):
    from rich.table import Table

    table = Table("[/x]", title="log[v2]")
    table.add_row("[bold]\x1b[31m:smile:")
    Terminal(width=60).print(table, "[/]")
    out = capsys.readouterr().out
    assert all(name in out for name in ("[/x]", "log[v2]", "[bold]\\x1b[31m:smile:", "[/]"))


@pytest.mark.parametrize("path", [*CLI.glob("*.py")], ids=lambda path: path.stem)
def test_no_command_prints_in_another_way(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    own = {"click.echo", "sys.stdout.write"} if path.name == "streams.py" else set()
    assert called & {"click.echo", "click.secho", "print", "Console", "sys.stdout.write"} == own
