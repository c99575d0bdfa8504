import json
import sys

import nbclient
import nbformat
import pytest
from rich.console import Console

from pyg_lth import Callback, PruneConfig, find_tickets
from pyg_lth.reporting.live import LiveProgress, show_progress

CELL = """
import torch
torch.set_num_threads(1)
import pyg_lth
from pyg_lth.datasets import Synthetic
data = Synthetic("data/synthetic", 100, 80, 2000)[0]
config = pyg_lth.PruneConfig(model="mf", dim=4, max_epochs=3, eval_every=1, rounds=2)
report = pyg_lth.find_tickets(data, config, run_dir="runs/notebook", progress=True)
"""
SHOWN = (
    "report",
    "report.dense",
    "pyg_lth.Mask.ones(3, 2)",
    "pyg_lth.compare_runs(['runs/notebook'])",
    "report.to_frame()[['round', 'density']]",
)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook that was executed, in an empty folder, with the interpreter of the tests."""
    cells = [nbformat.v4.new_code_cell(source) for source in (CELL, *SHOWN)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    folder = tmp_path_factory.mktemp("notebook")
    specification = folder / "kernels" / "here"
    specification.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "here", "language": "python"}
    (specification / "kernel.json").write_text(json.dumps(about))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="here")
        client.execute(cwd=str(folder))
    return notebook


def html_of(cell):
    return [o.data["text/html"] for o in cell.outputs if "text/html" in o.get("data", {})]


def test_a_notebook_shows_the_rounds_in_one_output(notebook):
    (shown,) = html_of(notebook.cells[0])
    (text,) = [o.data["text/plain"] for o in notebook.cells[0].outputs if "data" in o]
    for words in ("popular", "dense", "1/2", "2/2", "81.11%", "run folder runs/notebook"):
        assert words in shown and words in text
    assert "steps" not in text, "the round that runs is gone when the search is done"
    assert "\x1b" not in text


def test_a_notebook_shows_results_as_html_and_in_one_line_of_text(notebook):
    found = [html_of(cell) for cell in notebook.cells[1:]]
    assert [len(html) for html in found] == [1] * len(SHOWN)
    report, dense, mask, comparison, frame = (html for (html,) in found)
    assert "<table" in report and "81.11%" in report and "95% interval" in report
    assert "<table" in dense and "test recall@20" in dense
    assert "6 of 6 entries live" in mask
    assert "<table" in comparison and "81.11%" in comparison
    assert "0.81" in frame
    for cell in notebook.cells[1:-1]:
        assert "\n" not in cell.outputs[0].data["text/plain"]
        assert len(cell.outputs[0].data["text/plain"]) < 200


def test_without_a_terminal_lines_are_shown_and_the_callback_hears_too(
    small_graph, quick_config, capsys
):
    heard = []

    class Watch(Callback):
        def on_round_end(self, result):
            heard.append(result.round)

    find_tickets(small_graph, quick_config(rounds=1), callback=Watch(), progress=True)
    out, err = capsys.readouterr()
    assert heard == [0, 1]
    assert out == ""
    assert "round 1 done" in err and "run folder" not in err
    find_tickets(small_graph, quick_config(rounds=0))
    assert capsys.readouterr() == ("", "")


def test_the_table_does_not_name_a_folder_that_nobody_keeps(make_split):
    split = make_split(2, 2, [(0, 0)], [(1, 1)])
    progress = LiveProgress(Console(), None)
    progress.on_start(PruneConfig(), split)
    assert "folder" not in str(progress.render())


def test_a_terminal_gets_the_live_table(monkeypatch):
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    with show_progress("runs/mine") as shown:
        assert isinstance(shown, LiveProgress)
