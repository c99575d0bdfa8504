"""The script of docs/distributed.md, with two "nodes" that are processes of this machine."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "distributed.md"
SCRIPT = re.search(r"```bash\n(#!/bin/bash\n.*?)```", PAGE.read_text(), re.DOTALL)[1]

# What of Slurm the script asks for: the nodes of a job, and a task on each.
SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames node[1-2]" ] && printf '127.0.0.1\\nnode2\\n'
"""
SRUN = """#!/bin/bash
[[ $1 == --kill-on-bad-exit=1 ]] || exit 9
shift
SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 "$@" &
SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_NODEID=1 "$@" &
wait -n || exit 1
wait -n
"""


@pytest.fixture
def programs(tmp_path):
    """A folder with Slurm's programs, and pyg-lth as it is here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    here = f'#!/bin/sh\nexec {sys.executable} -m pyg_lth.cli "$@"\n'
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN), ("pyg-lth", here)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.torture
def test_the_script_for_slurm_runs_on_two_nodes(programs, tmp_path):
    script = tmp_path / "prune.sh"
    script.write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_CPUS_PER_TASK": "1",
        "MASTER_PORT": str(port),
    }
    data = ["--dataset", "synthetic"]
    arguments = [*data, "--dim", "3", "--rounds", "1", "--max-epochs", "2", "--eval-every", "2"]
    done = subprocess.run(
        ["bash", script, *arguments, "--out", "runs/two nodes", "--json"],
        cwd=tmp_path,
        env={**os.environ, **job},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    # One of them speaks.
    assert json.loads(done.stdout)["rounds"][0]["round"] == 1
    assert done.stderr.count("round 1 done") == 1
    kept = json.loads((tmp_path / "runs" / "two nodes" / "environment.json").read_text())
    assert (kept["workers"], kept["threads"]) == (2, 1)
