import io
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pexpect
import psutil
import pyte
import pytest
from pydantic import ValidationError
from rich.console import Console

from pyg_lth import InputError, cli
from pyg_lth.cli.settings import PruneSettings
from pyg_lth.cli.sweep_display import LiveProgress, PlainProgress
from pyg_lth.datasets import DatasetOptions, load_dataset
from pyg_lth.errors import IN_USE
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.search import find_tickets
from pyg_lth.sweeps.engines import Local, Room
from pyg_lth.sweeps.grid import judge, read_cells, read_state, run_cells, shard
from pyg_lth.sweeps.processes import Outcome, Watcher

SMALL = """
out: runs/small
settings:
  rounds: 1
  dim: 4
grid:
  model: [mf, lightgcn]
  seed: [0, 1, 2]
"""


def complete(settings):
    try:
        return PruneSettings.model_validate(settings).model_dump(mode="json")
    except ValidationError as error:
        raise InputError(f"{error.errors()[0]['loc'][0]} is wrong") from None


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a sweep's file in an empty folder to work in."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="grid.yaml"):
        file = Path(name)
        file.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return file

    return write


@pytest.fixture
def run(write, monkeypatch, capfd):
    """Run ``pyg-lth sweep`` and return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyg-lth", "sweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capfd.readouterr()
        return stopped.value.code or 0, out, err

    return run


def test_the_cells_are_all_combinations_and_the_last_key_varies_fastest(write):
    cells = read_cells(write(SMALL), complete)
    assert [cell.name for cell in cells] == [
        "mf-seed0",
        "mf-seed1",
        "mf-seed2",
        "lightgcn-seed0",
        "lightgcn-seed1",
        "lightgcn-seed2",
    ]
    assert cells[4].folder == Path("runs/small/lightgcn-seed1")
    assert cells[4].given == ("rounds", "dim", "model", "seed")
    assert cells[4].settings == complete({"rounds": 1, "dim": 4, "model": "lightgcn", "seed": 1})


def test_the_order_of_the_keys_is_that_of_the_file(write):
    text = "out: o\ngrid: {seed: [1, 0], dataset: [x], dim: [8, 4]}\n"
    assert [cell.name for cell in read_cells(write(text), complete)] == [
        "seed1-x-dim8",
        "seed1-x-dim4",
        "seed0-x-dim8",
        "seed0-x-dim4",
    ]


@pytest.mark.parametrize(
    ("key", "value", "read", "name"),
    [
        ("lr", "1e-3", 0.001, "lr1e-3"),
        ("lr", ".01", 0.01, "lr.01"),
        ("lr", "'0.1'", 0.1, "lr0.1"),
        ("seed", "010", 10, "seed010"),
        ("start_time", "2020", 2020, "start_time2020"),
        ("user_col", "no", "no", "no"),
        ("user_col", "On", "On", "On"),
        ("user_col", "2020-01-01", "2020-01-01", "2020-01-01"),
        ("user_col", "2018", "2018", "user_col2018"),
        ("user_col", "'null'", "null", "null"),
        ("user_col", "who is it?", "who is it?", "who_is_it_"),
        ("core", "null", None, "corenone"),
        ("core", "~", None, "corenone"),
        ("dataset", "../my logs/log.csv.gz", "../my logs/log.csv.gz", "log"),
        ("dataset", "tiktok-mmssl", "tiktok-mmssl", "tiktok-mmssl"),
        ("dataset", "kept/imp-amount0.2", "kept/imp-amount0.2", "imp-amount0.2"),
        ("dataset", "..", "..", "dataset"),
        ("dataset", "größe", "größe", "größe"),
    ],
)
def test_values_are_what_the_settings_take_them_for(write, key, value, read, name):
    (in_grid,) = read_cells(write(f"out: o\ngrid:\n  {key}:\n  - {value}"), complete)
    assert in_grid.settings[key] == read
    assert in_grid.name == name
    assert in_grid.given == (() if read is None else (key,))
    text = f"out: o\nsettings:\n  {key}: {value}\ngrid:\n  layers: [0]"
    (shared,) = read_cells(write(text), complete)
    assert shared.settings[key] == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["must hold"]),
        ("[out, grid]", ["must hold"]),
        ("out: [a\ngrid: {", ["line 2"]),
        ("out: a\n\tgrid: b", ["line 2"]),
        (b"out: \xff", ["neither YAML nor JSON"]),
        ("out: !!python/object:os.system a", ["python/object"]),
        ("out: a", ["grid", "missing"]),
        ("grid: {seed: [0]}", ["out", "missing"]),
        ("out: a\ngrid: {}", ["grid", "nothing in it"]),
        ("out: a\ngrid:", ["grid"]),
        ("out: a\ngrid: [seed]", ["grid", "name: value"]),
        ("out: a\ngrid: {seed: 0}", ["grid seed", "list", "[0, 1]"]),
        ("out: a\ngrid: {seed: []}", ["grid seed", "nothing in it"]),
        ("out: a\ngrid: {seed: [[0, 1]]}", ["grid seed", "one word or number"]),
        ("out: a\ngrid: {seed: [0]}\nsettings: {dim: [4]}", ["settings dim", "one word or number"]),
        ("out: a\ngrid: {seed: [0]}\nsettings: 3", ["settings", "name: value"]),
        ("out: a\ngrid: {seed: [0]}\nsetting: {}", ["setting", "no such key"]),
        ("out: a\ngrid: {seed: [0], seed: [1]}", ["line 2", "seed", "twice"]),
        ("out: a\nout: b\ngrid: {seed: [0]}", ["line 1", "out", "twice"]),
        ("out: a\ngrid: {seed: [0]}\nsettings: {seed: 1}", ["seed", "settings and in grid"]),
        ("out: a\ngrid: {seed: [0, 0]}", ["two cells", "seed0"]),
        ("out: a\ngrid: {dataset: [a/log.csv, b/log.csv]}", ["two cells", "log"]),
        ("out: a\ngrid: {dim: [4, 0]}", ["dim 0", "greater than", "dim0"]),
        ("out: a\ngrid: {dim: [no]}", ["dim no", "integer"]),
        ("out: a\ngrid: {max-epochs: [3]}", ["max-epochs", "no such setting"]),
        ("out: a\ngrid: {seed: [0]}\nsettings: {out: b}", ["out", "no such setting"]),
        ("out: a\ngrid: {model: [lightgcn, mf], layers: [2]}", ["mf has no", "mf-layers2"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_it(run, write, text, words):
    code, out, err = run(write(text))
    assert (code, out) == (2, "")
    assert err.startswith("Error: grid.yaml")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("number", [1, 2, 5, 6, 9])
def test_shards_share_the_cells_out(number):
    cells = list("abcdef")
    parts = [shard(cells, f"{i}/{number}") for i in range(1, number + 1)]
    for i, part in enumerate(parts):
        assert part == [cell for place, cell in enumerate(cells) if place % number == i]
    assert sorted(itertools.chain(*parts)) == cells


@pytest.mark.parametrize("which", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2", ""])
def test_a_bad_shard_is_refused_in_one_line(run, write, which):
    code, out, err = run(write(SMALL), f"--shard={which}")
    assert (code, out) == (2, "")
    assert err == f"Error: shard {which}: write i/n with i from 1 to n, as in 2/5\n"


def keep(cell, rounds=None, seeds=1, **changes):
    """Make a folder as a run of a cell leaves it, with so many rounds and seeds in the report."""
    (cell.folder / "state").mkdir(parents=True, exist_ok=True)
    (cell.folder / "config.json").write_text(json.dumps({**cell.settings, **changes}))
    if rounds is not None:
        report = {"rounds": [{}] * rounds, "seeds": list(range(seeds))}
        (cell.folder / "report.json").write_text(json.dumps(report))


def test_a_cell_is_new_begun_or_done(write):
    cells = read_cells(write("out: o\nsettings: {rounds: 2}\ngrid: {seed: [0]}"), complete)
    (cell,) = cells
    assert read_state(cell, complete) == "new"
    (cell.folder / "state").mkdir(parents=True)
    assert read_state(cell, complete) == "new"
    for rounds, state in ((None, "begun"), (0, "begun"), (1, "begun"), (2, "done")):
        keep(cell, rounds)
        assert read_state(cell, complete) == state


def test_a_cell_of_several_seeds_is_done_when_all_of_them_are(write):
    (cell,) = read_cells(write("out: o\nsettings: {seeds: 3}\ngrid: {rounds: [2]}"), complete)
    for rounds, seeds, state in ((2, 1, "begun"), (2, 2, "begun"), (2, 3, "done")):
        keep(cell, rounds, seeds)
        assert read_state(cell, complete) == state


def test_a_run_that_knew_fewer_settings_is_the_same(write):
    (cell,) = read_cells(write("out: o\ngrid: {seed: [0]}"), complete)
    keep(cell)
    kept = {name: value for name, value in cell.settings.items() if name != "tolerance"}
    (cell.folder / "config.json").write_text(json.dumps(kept))
    assert read_state(cell, complete) == "begun"


def test_a_run_of_other_settings_is_not_touched(write):
    (cell,) = read_cells(write("out: o\ngrid: {seed: [0]}"), complete)
    keep(cell, rounds=20, amount=0.5)
    with pytest.raises(InputError, match=r"o/seed0.* amount 0.5, not 0.1: delete it, or choose"):
        read_state(cell, complete)


@pytest.mark.parametrize("file", ["config.json", "report.json"])
@pytest.mark.parametrize("text", ["{", "[]", '{"pace": 3}'])
def test_a_damaged_run_is_said(write, file, text):
    (cell,) = read_cells(write("out: o\ngrid: {seed: [0]}"), complete)
    keep(cell, rounds=20)
    (cell.folder / file).write_text(text)
    if file == "report.json" and "pace" in text:
        assert read_state(cell, complete) == "begun"
    else:
        with pytest.raises(InputError, match=file):
            read_state(cell, complete)


class Notes(Watcher):
    def __init__(self):
        self.ended = {}

    def on_end(self, name, outcome):
        self.ended[name] = outcome.code


def stand_in(script):
    """A command that finds its cell's folder in $1 and its state in $2."""
    return lambda cell, state: ["sh", "-c", script, "sh", str(cell.folder), state]


def test_cells_that_are_done_are_left_alone_and_begun_ones_continued(write):
    cells = read_cells(write(SMALL), complete)
    keep(cells[0], rounds=1)
    keep(cells[1], rounds=0)
    keep(cells[2], rounds=1, amount=0.5)
    script = 'echo "$2" >&2; test "$1" != runs/small/lightgcn-seed1'
    notes = Notes()
    results = run_cells(cells, complete, stand_in(script), Local(Room(2)), notes)
    assert [(result.state, result.before) for result in results] == [
        ("done", True),
        ("done", False),
        ("failed", False),
        ("done", False),
        ("failed", False),
        ("done", False),
    ]
    assert [result.name for result in results] == [cell.name for cell in cells]
    assert "amount 0.5, not 0.1" in results[2].reason
    assert results[4].reason == "new"
    assert [result.seconds > 0 for result in results] == [False, True, False, True, True, True]
    assert notes.ended == {
        "mf-seed0": 0,
        "mf-seed1": 0,
        "mf-seed2": 2,
        "lightgcn-seed0": 0,
        "lightgcn-seed1": 1,
        "lightgcn-seed2": 0,
    }


def test_a_cell_that_another_sweep_has_done_meanwhile_is_not_run_again(write):
    cells = read_cells(write("out: o\ngrid: {seed: [0, 1]}\nsettings: {rounds: 1}"), complete)

    class OtherSweep(Notes):
        def on_start(self, name):
            assert name == "seed0"
            keep(cells[1], rounds=1)

    results = run_cells(cells, complete, stand_in("exit 0"), Local(Room(1)), OtherSweep())
    assert [result.before for result in results] == [False, True]


def test_a_cell_in_use_counts_as_done_when_the_other_process_has_done_it(write):
    cells = read_cells(write("out: o\ngrid: {seed: [0, 1]}\nsettings: {rounds: 1}"), complete)

    class OtherSweep(Notes):
        def on_end(self, name, outcome):
            if name == "seed0":
                keep(cells[0], rounds=1)
            else:
                keep(cells[1], rounds=1, dim=8)

    script = 'echo "Error: $1 is in use by another process: wait for it" >&2; exit 3'
    results = run_cells(cells, complete, stand_in(script), Local(Room(1)), OtherSweep())
    assert [(result.state, result.before) for result in results] == [
        ("done", True),
        ("in use", False),
    ]


def test_a_cell_that_fails_because_its_folder_is_in_use_is_told_apart(tmp_path):
    with RunFolder(tmp_path), pytest.raises(InputError) as error, RunFolder(tmp_path):
        pass
    assert judge(Outcome(IN_USE, 1.0, f"Error: {error.value}")) == "in use"
    assert judge(Outcome(2, 1.0, "Error: something else")) == "failed"
    assert judge(Outcome(0, 1.0, "")) == "done"


def test_runs_that_use_all_cores_themselves_come_one_by_one(run, write, monkeypatch):
    monkeypatch.setattr("pyg_lth.sweeps.processes.default_jobs", lambda devices: 2)
    monkeypatch.setattr(sys.modules["pyg_lth.cli.sweep"], "_command", stand_in("exit 0"))
    assert "6 runs, 2 at a time" in run(write(SMALL))[2]
    assert "6 runs, 1 at a time" in run(write(SMALL.replace("dim: 4", "seeds: 2")))[2]
    assert "6 runs, 6 at a time" in run(write(SMALL), "--jobs", "9")[2]


def test_list_shows_the_states_and_does_nothing(run, write):
    file = write(SMALL)
    cells = read_cells(file, complete)
    keep(cells[0], rounds=1)
    keep(cells[1])
    keep(cells[5], dim=8)
    code, out, _ = run(file, "--list")
    assert code == 0
    states = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [state for _, state in states[:5]] == ["done", "begun", "new", "new", "new"]
    assert states[5][1].startswith("unusable: runs/small/lightgcn-seed2 holds a run with dim 8")
    code, out, _ = run(file, "--list", "--json", "--shard", "2/5")
    assert json.loads(out) == [{"name": "mf-seed1", "state": "begun"}]
    assert len(list(Path("runs/small").iterdir())) == 3


def test_an_empty_shard_is_done(run, write):
    code, out, _ = run(write(SMALL), "--shard", "7/9")
    assert code == 0
    assert out.startswith("0 runs: 0 done; ")


def test_the_summary_says_what_is_done_and_what_to_try(run, write, monkeypatch):
    file = write(SMALL)
    cells = read_cells(file, complete)
    keep(cells[0], rounds=1)
    keep(cells[1], rounds=0)
    keep(cells[2], dim=8)
    script = 'echo "Error: so it is" >&2; exit 2'
    monkeypatch.setattr(sys.modules["pyg_lth.cli.sweep"], "_command", stand_in(script))
    code, out, err = run(file, "--shard", "1/1", "--quiet")
    assert (code, err) == (1, "")
    head, *lines = out.splitlines()
    assert re.fullmatch(r"6 runs: 1 done \(1 of them before\), 5 failed; 0:00:\d\d", head)
    flags = "--rounds=1 --dim=4 --model=lightgcn --seed=0 --out runs/small/lightgcn-seed0"
    assert lines[:5] == [
        "failed mf-seed1: Error: so it is",
        "  try: pyg-lth prune --resume runs/small/mf-seed1",
        "failed mf-seed2: runs/small/mf-seed2 holds a run with dim 8, not 4: delete it, or choose "
        "another out",
        "failed lightgcn-seed0: Error: so it is",
        f"  try: pyg-lth prune {flags}",
    ]
    code, out, _ = run(file, "--json", "--quiet")
    summary = json.loads(out)
    assert code == 1
    assert (summary["done"], summary["before"], summary["failed"]) == (1, 1, 5)
    assert summary["runs"][3]["reason"] == "Error: so it is"


def test_without_a_terminal_rounds_and_ends_are_told_line_by_line(tmp_path):
    def finish(round):
        path = tmp_path / "b" / f"round-{round:03d}" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"density": 0.9**round, "test": {"recall@20": 0.1234}}))

    text = io.StringIO()
    finish(0)  # before this sweep
    folders = {name: tmp_path / name for name in "abc"}
    progress = PlainProgress(Console(file=text, width=40), "grid.yaml: 3 runs", folders)
    progress.on_end("a", Outcome(0, 0.0, ""))
    progress.on_start("b")
    progress.on_line("b", "round 9 done: whatever it says")
    finish(1)
    progress.on_line("b", "another line")
    finish(2)
    progress.on_end("b", Outcome(0, 65.0, "round 1 done"))
    progress.on_start("c")
    progress.on_end("c", Outcome(3, 1.0, "Error: c is in use by another process: wait for it"))
    progress.on_interrupt()
    assert text.getvalue().splitlines() == [
        "grid.yaml: 3 runs",
        "a: done before (1 of 3)",
        "b: started",
        "b: round 1 done, density 90.00%, recall@20 0.1234",
        "b: round 2 done, density 81.00%, recall@20 0.1234",
        "b: done in 0:01:05 (2 of 3)",
        "c: started",
        "c: in use: Error: c is in use by another process: wait for it (3 of 3)",
        "interrupted: the running ones save their state; Ctrl-C again ends them",
    ]


TERMINAL = {"force_terminal": True, "color_system": None}


def drawn(progress, console):
    with console.capture() as capture:
        console.print(progress.render())
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
@pytest.mark.parametrize("number", [8, 400])
def test_the_live_table_fits_the_screen(width, height, number):
    console = Console(file=io.StringIO(), width=width, height=height, **TERMINAL)
    names = [f"amazon-book-lightgcn-imp-user_item-amount0.2-seed{i}" for i in range(number)]
    progress = LiveProgress(console, "a-long-folder/" * 20 + "grid.yaml: runs", names)
    for name in names[: number // 2]:
        progress.on_start(name)
        progress.on_line(name, "round 1 epoch 5: loss 0.1234, valid " + "recall@20 0.1234, " * 20)
    for name in names[: number // 2 - 2]:
        progress.on_end(name, Outcome(0, 4000.0, "round 1 done"))
    progress.on_end(names[1], Outcome(2, 1.0, "Error: [bold]log.csv[/]: no such file"))
    lines = drawn(progress, console)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    rows = [line for line in lines if re.search(r"seed\d+ ", line)]
    done, running = number // 2 - 3, 2
    assert len(rows) == (8 if number == 8 else 3)
    assert sum("running" in row for row in rows) == running
    assert sum("failed" in row and "[bold]" in row for row in rows) == 1
    assert f"{running} running, {done} done, 1 failed, {number // 2} waiting; 0:00:0" in text
    if number == 8:
        assert sum("1:06:40" in row for row in rows) == 1
    if width == 200:
        assert "amazon-book-lightgcn-imp-user_item-amount0.2-seed1 " in text


def test_of_too_many_failures_the_screen_shows_the_last():
    console = Console(file=io.StringIO(), width=80, height=24, **TERMINAL)
    names = [f"seed{i}" for i in range(100)]
    progress = LiveProgress(console, "grid.yaml", names)
    for name in names[:60]:
        progress.on_start(name)
        progress.on_end(name, Outcome(2, 1.0, "Error"))
    progress.on_start("seed60")
    lines = drawn(progress, console)
    assert len(lines) <= 24
    assert any(re.match(r" *seed60 +running", line) for line in lines)
    progress.on_interrupt()
    assert drawn(progress, console)[0].startswith("Interrupted")


# From here on the runs are real ones: processes that import torch and search.

ROUNDS = 5
REAL = f"""
out: runs/real
settings:
  model: mf
  dim: 4
  rounds: {ROUNDS}
  max_epochs: 100
  user_col: user
  item_col: item
  eval_every: 50
  device: cpu
grid:
  dataset: [one.csv, two.csv]
"""


def make_logs(folder):
    for name, step in (("one", 3), ("two", 5)):
        pairs = [(u, (u * step + i * i) % 37) for u in range(60) for i in range(10)]
        lines = [f"{user},{item}" for user, item in dict.fromkeys(pairs)]
        (folder / f"{name}.csv").write_text("\n".join(["user,item", *lines]))


def reports(folder):
    """Each run's report without its times."""

    def without_times(pairs):
        return {name: value for name, value in pairs if not name.endswith("seconds")}

    return {
        path.parent.name: json.loads(path.read_text(), object_pairs_hook=without_times)
        for path in sorted(folder.glob("runs/real/*/report.json"))
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The reports of the same searches, run one by one in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_logs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("grid.yaml").write_text(REAL)
        for cell in read_cells(Path("grid.yaml"), complete):
            options = {name: cell.settings[name] for name in DatasetOptions.model_fields}
            data = load_dataset(DatasetOptions(**options))[0]
            find_tickets(data, PruneSettings(**cell.settings), run_dir=cell.folder)
    return reports(folder)


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "pyg_lth.cli", "sweep", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_and_an_interrupted_sweep_go_on_to_the_same_reports(tmp_path, undisturbed):
    make_logs(tmp_path)
    file = tmp_path / "grid.yaml"
    file.write_text(REAL)

    killed = start(tmp_path, "grid.yaml", "--jobs", "2")
    for line in killed.stderr:
        if "round 0 done" in line:
            break
    children = psutil.Process(killed.pid).children(recursive=True)
    assert len(children) == 2
    killed.kill()
    killed.communicate()
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left
    assert all(len(report["rounds"]) < ROUNDS for report in reports(tmp_path).values())

    # The same on a terminal, whose Ctrl-C reaches the whole foreground group.
    screen, seen = pyte.Screen(80, 24), []
    stream = pyte.ByteStream(screen)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "pyg_lth.cli", "sweep", "grid.yaml", "--jobs", "2"],
        cwd=tmp_path,
        dimensions=(24, 80),
        timeout=120,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": ""},
    )
    pressed = False
    while True:
        try:
            stream.feed(child.read_nonblocking(1 << 16, timeout=120))
        except pexpect.EOF:
            break
        seen.append([line.rstrip() for line in screen.display])
        if not pressed and any(re.search(r"running +\w", line) for line in seen[-1]):
            child.sendintr()
            pressed = True
    child.close()
    assert child.exitstatus == 130
    shown = [line for lines in seen for line in lines]
    assert "grid.yaml: 2 runs, 2 at a time" in shown
    assert any(re.fullmatch(r" *run +state +last line +time", line) for line in shown)
    assert not any("Traceback" in line for line in shown)
    final = " ".join(screen.display)
    assert "Interrupted. Continue with: pyg-lth sweep grid.yaml --jobs 2" in final
    assert sum(len(report["rounds"]) == ROUNDS for report in reports(tmp_path).values()) < 2

    # And to the end, beside a cell that fails.
    file.write_text(REAL.replace("[one.csv,", "[nowhere.csv, one.csv,"))
    rest = start(tmp_path, "grid.yaml", "--jobs", "2")
    out, err = rest.communicate()
    assert rest.returncode == 1
    head, failed, remedy = out.splitlines()
    assert re.match(r"3 runs: 2 done( \(1 of them before\))?, 1 failed; ", head)
    assert failed.startswith("failed nowhere: Error: nowhere.csv: no such file")
    assert remedy.startswith("  try: pyg-lth prune --model=mf --dim=4 ")
    assert f": round {ROUNDS} done, density" in err
    assert reports(tmp_path) == undisturbed
    file.write_text(REAL)
    rest = start(tmp_path, "grid.yaml", "--quiet")
    out, err = rest.communicate()
    assert (rest.returncode, err) == (0, "")
    assert out.startswith("2 runs: 2 done (2 of them before); ")


def test_the_slurm_script_does_all_cells(run, write, tmp_path):
    text = "out: runs/s\nsettings: {rounds: 0, max_epochs: 1}\ngrid: {model: [mf, lightgcn]}"
    file = write(text, name="my grid's.yaml")
    code, script, _ = run(file, "--slurm")
    assert code == 0
    Path("job.sh").write_text(script)
    subprocess.run(["bash", "-n", "job.sh"], check=True)
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --array=1-2" in lines
    assert "#SBATCH --cpus-per-task=1" in lines
    Path("bin").mkdir()
    Path("bin/pyg-lth").write_text(f'#!/bin/sh\nexec {sys.executable} -m pyg_lth.cli "$@"\n')
    Path("bin/pyg-lth").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    tasks = [
        subprocess.Popen(
            ["bash", "job.sh"],
            env={**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": str(task)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in (1, 2)
    ]
    for (out, err), task in zip([task.communicate() for task in tasks], tasks, strict=True):
        assert out.startswith("1 run: 1 done; "), err
        assert task.returncode == 0
    assert run(file, "--list")[1].split() == ["mf", "done", "lightgcn", "done"]


def test_a_slurm_task_has_a_core_for_each_job(run, write):
    _, script, _ = run(write(SMALL), "--slurm", "--jobs", "4")
    assert "#SBATCH --array=1-2\n" in script
    assert "#SBATCH --cpus-per-task=4\n" in script
    assert '--shard "$SLURM_ARRAY_TASK_ID/2"' in script
    many = "out: o\ngrid: {seed: [" + ", ".join(map(str, range(1500))) + "]}"
    assert "#SBATCH --array=1-1000\n" in run(write(many), "--slurm")[1]
    code, _, err = run(write(SMALL), "--slurm", "--shard", "1/2")
    assert code == 2
    assert "--shard" in err
