"""The service as a process: one real start, with two workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from pyg_lth.tickets import Ticket


@pytest.fixture
def ticket(make_ticket, tmp_path):
    path = tmp_path / "a.ticket"
    make_ticket(layers=2, score="cosine", bias=True).save(path)
    return path


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def test_workers_answer_until_they_are_told_to_end(ticket, tmp_path):
    command = [sys.executable, "-m", "pyg_lth.cli", "serve", ticket, "--port", "0"]
    with subprocess.Popen(
        [*command, "--workers", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
    ) as server:
        try:
            line = server.stderr.readline()
            assert line.startswith(f"Answering from {ticket} on http://127.0.0.1:"), line
            url = line.split(" on ")[1].split()[0]
            found = json.loads(ask(f"{url}/recommend", {"users": [3, 99], "k": 4}))["answers"]
            wanted = Ticket.load(ticket).recommend([3, 99], 4)
            assert [one["items"] for one in found] == [one.items for one in wanted]
            assert [one["basis"] for one in found] == ["trained", "popularity"]
            for _ in range(20):
                ask(f"{url}/health")
            # Whichever worker is asked, it counts for all.
            counted = 'pyg_lth_requests_total{method="GET",path="/health",status="200"} 20.0'
            until = time.monotonic() + 20
            while counted not in ask(f"{url}/metrics") and time.monotonic() < until:
                time.sleep(0.1)
            assert counted in ask(f"{url}/metrics")
        finally:
            os.killpg(server.pid, signal.SIGINT)  # As a terminal does.
            out, err = server.communicate(timeout=60)
    assert (server.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == [ticket]


def test_a_port_in_use_is_one_line(ticket, run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("serve", ticket, "--port", port)
    assert (code, out) == (2, "")
    assert err == f"Error: port {port} of 127.0.0.1 is in use: choose another\n"


def test_an_address_that_is_not_of_this_machine_is_one_line(ticket, run):
    code, _, err = run("serve", ticket, "--host", "192.0.2.1")
    assert code == 2
    assert err.startswith("Error: port 8000 of 192.0.2.1 cannot be opened: ")
    assert err.count("\n") == 1


def test_what_is_no_ticket_is_refused_before_anything_listens(run, tmp_path):
    (tmp_path / "a.ticket").write_bytes(b"nothing of the kind")
    code, _, err = run("serve", tmp_path / "a.ticket")
    assert code == 2
    assert "a.ticket cannot be read as a ticket" in err


def test_without_the_extra_it_names_the_command(ticket, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, _, err = run("serve", ticket)
    assert code == 2
    assert err == (
        'Error: pyg-lth serve needs fastapi, which is not installed: pip install "pyg-lth[serve]"\n'
    )


def test_one_worker_ends_cleanly_and_warns_of_open_doors(ticket, monkeypatch, capfd):
    from click.testing import CliRunner

    from pyg_lth.cli import cli

    def ends_at_once(self, sockets=None):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("uvicorn.Server.run", ends_at_once)
    found = CliRunner().invoke(cli, ["serve", str(ticket), "--host", "0.0.0.0", "--port", "0"])
    assert found.exit_code == 0, found.output
    assert "Whoever reaches 0.0.0.0 can ask for any user" in found.output
