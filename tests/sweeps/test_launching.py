"""``pyg-lth prune --workers``, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from pyg_lth.errors import LOST
from pyg_lth.sweeps.children import command_line

SETTINGS = (
    *("--rounds", "1", "--dim", "5", "--layers", "2", "--max-epochs", "20", "--eval-every", "5"),
    *("--patience", "99", "--batch-size", "64", "--lr", "0.01", "--topk", "5", "--quiet", "--json"),
)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def prune(small_graph, tmp_path_factory):
    """The arguments of a search on a file of interactions."""
    store = small_graph["user", "rates", "item"]
    pairs = [*store.edge_index.t().tolist(), *store.edge_label_index.t().tolist()]
    file = tmp_path_factory.mktemp("data") / "log.csv"
    file.write_text("user_id,item_id\n" + "".join(f"u{u},i{i}\n" for u, i in sorted(pairs)))
    root = str(tmp_path_factory.mktemp("root"))
    return ["prune", "--dataset", str(file), "--root", root, *SETTINGS]


def start(arguments, **more):
    return subprocess.Popen(
        command_line(*map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ONE_THREAD,
        **more,
    )


def wait_for(path, process):
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def metrics(report):
    return [ticket["test"] for ticket in (report["dense"], *report["rounds"])]


def test_a_worker_is_killed_all_stop_and_the_run_goes_on_with_another_number(run, prune, tmp_path):
    together = start([*prune, "--workers", "2", "--out", tmp_path / "together"])
    wait_for(tmp_path / "together" / "theta0.safetensors", together)
    (other,) = psutil.Process(together.pid).children()
    other.send_signal(signal.SIGKILL)
    out, err = together.communicate(timeout=60)
    again = f"pyg-lth prune --resume {tmp_path / 'together'} --workers 2"
    assert (together.returncode, out) == (LOST, "")
    assert err == (
        "Error: worker 1 of 2 was lost (ended by SIGKILL), so all stop; what is done is kept, "
        f"continue with: {again}\n"
    )
    code, out, err = run("prune", "--resume", tmp_path / "together", "--quiet", "--json")
    assert code == 0
    assert re.fullmatch(r"Warning: \S+ was begun with workers 2, and goes on with 1: .*\n", err)
    code, alone, _ = run(*prune, "--out", tmp_path / "alone")
    assert code == 0
    for one, many in zip(metrics(json.loads(alone)), metrics(json.loads(out)), strict=True):
        assert many == pytest.approx(one, abs=1e-5)
    # Other commands read the tables of several workers as those of one.
    assert run("runs", "check", tmp_path / "together")[0] == 0
    assert (
        run("export", tmp_path / "together", "--round", 1, "--out", tmp_path / "a.ticket")[0] == 0
    )
    code, out, _ = run("compare", tmp_path / "alone", tmp_path / "together", "--overlap")
    assert code == 0


def test_when_the_first_worker_ends_so_do_the_others(prune, tmp_path):
    together = start([*prune, "--workers", "2", "--out", tmp_path / "run"], start_new_session=True)
    wait_for(tmp_path / "run" / "theta0.safetensors", together)
    (other,) = psutil.Process(together.pid).children()
    together.kill()
    together.communicate(timeout=60)
    other.wait(timeout=30)


def test_what_cannot_be_split_is_refused_in_one_line(run, prune, tmp_path):
    code, _, err = run(*prune, "--workers", "6", "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "--workers 6 cannot share a table of 5 columns" in err
    code, _, err = run(*prune, "--method", "pep", "--workers", "2", "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("Error: --method pep does not go with --workers 2")
    assert not (tmp_path / "run").exists()
