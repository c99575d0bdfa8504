import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from pyg_lth.lottery.interruption import deferred_interrupt
from pyg_lth.sweeps import processes
from pyg_lth.sweeps.processes import Command, Outcome, default_jobs, run_all
from tests.notes import Notes

PYTHON = [sys.executable, "-IS", "-c"]


def shell(name, script):
    return Command(name, ["sh", "-c", script])


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_every_command_is_run_and_its_lines_and_its_end_are_told():
    notes = Notes()
    commands = [
        shell("good", "echo discarded; echo one >&2; echo two >&2"),
        shell("bad", "echo what is wrong >&2; exit 3"),
        shell("silent", "exit 0"),
    ]
    outcomes = run_all(commands, 1, notes)
    assert {name: (o.code, o.last_line) for name, o in outcomes.items()} == {
        "good": (0, "two"),
        "bad": (3, "what is wrong"),
        "silent": (0, ""),
    }
    assert all(outcome.seconds > 0 for outcome in outcomes.values())
    assert notes.heard == [
        ("good", "start"),
        ("good", "one"),
        ("good", "two"),
        ("good", outcomes["good"]),
        ("bad", "start"),
        ("bad", "what is wrong"),
        ("bad", outcomes["bad"]),
        ("silent", "start"),
        ("silent", outcomes["silent"]),
    ]


def test_nobody_has_to_watch():
    assert run_all([shell("one", "exit 7")], 2)["one"].code == 7
    assert run_all([], 2) == {}


def test_commands_run_side_by_side(tmp_path):
    # Each waits for the other two.
    wait = "touch {0}; until [ -e a ] && [ -e b ] && [ -e c ]; do sleep 0.01; done"
    commands = [shell(name, f"cd {tmp_path}; {wait.format(name)}") for name in "abc"]
    assert [outcome.code for outcome in run_all(commands, 3).values()] == [0, 0, 0]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_never_more_than_jobs_run_at_a_time(jobs):
    notes = Notes()
    run_all([shell(str(i), f"sleep 0.0{i}") for i in range(8)], jobs, notes)
    running, most = 0, 0
    for _, what in notes.heard:
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most <= jobs


def test_a_command_is_taken_when_there_is_room_for_it():
    notes = Notes()

    def commands():
        for name in "abc":
            notes.heard.append((name, "taken"))
            yield shell(name, "exit 0")

    run_all(commands(), 1, notes)
    what = [(name, "end" if isinstance(what, Outcome) else what) for name, what in notes.heard]
    assert what == [(name, what) for name in "abc" for what in ("taken", "start", "end")]


def test_when_one_fails_the_rest_go_on():
    commands = [
        shell("killed", "echo so far >&2; kill -9 $$"),
        Command("absent", ["no-such-program"]),
        shell("good", "exit 0"),
    ]
    outcomes = run_all(commands, 2)
    assert outcomes["killed"].code == -signal.SIGKILL
    assert outcomes["killed"].reason == "ended by SIGKILL after: so far"
    assert outcomes["absent"].code == 1
    assert "No such file" in outcomes["absent"].reason
    assert outcomes["good"].code == 0


def test_a_failure_without_a_word_has_a_reason_too():
    assert Outcome(4, 1.0, "").reason == "ended with exit code 4"
    assert Outcome(-15, 1.0, "").reason == "ended by SIGTERM"
    assert Outcome(2, 1.0, "Error: so it is").reason == "Error: so it is"


def test_lines_of_every_kind_are_read():
    script = textwrap.dedent(
        """
        import sys
        for text in (b"10%\\r20%\\r\\n", b"\\n  \\n", b"x" * 300000 + b"\\n", b"\\xff!\\n", b"end"):
            sys.stderr.buffer.write(text)
        """
    )
    notes = Notes()
    outcome = run_all([Command("lines", [*PYTHON, script])], 1, notes)["lines"]
    lines = [what for _, what in notes.heard[1:-1]]
    assert lines == ["10%", "20%", "x" * 300000, "\N{REPLACEMENT CHARACTER}!", "end"]
    assert outcome.last_line == "end"


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("3", "3")])
def test_a_command_has_one_thread_unless_the_user_says_otherwise(monkeypatch, given, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    outcome = run_all([shell("threads", "echo $OMP_NUM_THREADS >&2")], 1)["threads"]
    assert outcome.last_line == expected


def test_a_command_is_a_session_of_its_own():
    script = "import os, sys; print(os.getsid(0) == os.getpid(), file=sys.stderr)"
    assert run_all([Command("session", [*PYTHON, script])], 1)["session"].last_line == "True"


PATIENT = """
import os, signal, sys, time
def caught(*_):
    os.write(2, b"caught\\n")
    time.sleep(0.1)
    sys.exit(130)
signal.signal(signal.SIGINT, caught)
os.write(2, b"ready\\n")
time.sleep(60)
"""


def test_ctrl_c_is_passed_on_once_and_waited_for():
    class CtrlC(Notes):
        def on_line(self, name, line):
            super().on_line(name, line)
            if [what for _, what in self.heard].count("ready") == 2 and line == "ready":
                press_ctrl_c()

    notes = CtrlC()
    commands = [Command(name, [*PYTHON, PATIENT]) for name in "abc"]
    with deferred_interrupt() as interrupted, pytest.raises(KeyboardInterrupt):
        handler = signal.getsignal(signal.SIGINT)
        try:
            run_all(commands, 2, notes)
        finally:
            assert signal.getsignal(signal.SIGINT) is handler
    assert not interrupted()
    for name in "ab":
        *lines, outcome = [what for of, what in notes.heard if of == name]
        assert lines == ["start", "ready", "caught"]
        assert outcome.code == 130
    assert [what for of, what in notes.heard if of not in ("a", "b")] == ["interrupt"]


def test_a_second_ctrl_c_ends_what_does_not_stop():
    class CtrlC(Notes):
        def on_line(self, name, line):
            super().on_line(name, line)
            press_ctrl_c()

    stubborn = "trap 'echo no >&2' INT; echo ready >&2; while :; do sleep 0.01; done"
    notes = CtrlC()
    with pytest.raises(KeyboardInterrupt):
        run_all([shell("stubborn", stubborn)], 1, notes)
    outcome = notes.heard[-1][1]
    assert outcome.code == -signal.SIGTERM
    assert outcome.last_line == "no"


def test_ctrl_c_while_a_command_is_started_reaches_it_too(monkeypatch):
    start = processes.asyncio.create_subprocess_exec

    async def start_and_press(*args, **kwargs):
        process = await start(*args, **kwargs)
        press_ctrl_c()
        await processes.asyncio.sleep(0.05)
        return process

    monkeypatch.setattr(processes.asyncio, "create_subprocess_exec", start_and_press)
    with pytest.raises(KeyboardInterrupt):
        run_all([shell("sleeper", "exec sleep 60")], 1)


def test_an_error_of_the_watcher_ends_the_commands():
    class Broken(Notes):
        def on_line(self, name, line):
            super().on_line(name, line)
            raise RuntimeError

    before = psutil.Process().children()
    notes = Broken()
    commands = [shell("one", "exec sleep 60"), shell("two", "echo $$ >&2; exec sleep 60")]
    with pytest.raises(RuntimeError):
        run_all(commands, 2, notes)
    pid = next(int(what) for _, what in notes.heard if what != "start")
    assert not psutil.pid_exists(pid)
    assert psutil.Process().children() == before


PARENT = """
import signal
import sys
# Under nohup, as a suite may be run, it would be ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pyg_lth.sweeps.processes import Command, Watcher, run_all
class Tell(Watcher):
    def on_line(self, name, line):
        print(line, flush=True)
command = ["sh", "-c", "echo $$ >&2; exec sleep 60"]
run_all([Command(name, command) for name in "abc"], 2, Tell())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_commands_die_with_their_parent(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(psutil.pid_exists, pids))
    parent.send_signal(number)
    assert parent.wait(30) == -number
    parent.stdout.close()
    wait_until_gone(pids)


def wait_until_gone(pids):
    deadline = time.monotonic() + 30
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a child outlived its parent"
        time.sleep(0.01)


def alive(pid):
    """Nobody may be there to collect an orphan that has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_command_whose_parent_is_gone_already_does_not_begin(tmp_path):
    file = tmp_path / "begun"
    launch = [*PYTHON, processes.LAUNCHER]
    assert subprocess.run([*launch, str(os.getppid()), "touch", file]).returncode == 1
    assert not file.exists()
    assert subprocess.run([*launch, str(os.getpid()), "touch", file]).returncode == 0
    assert file.exists()


def test_outside_the_main_thread_it_is_refused():
    errors = []

    def run():
        try:
            run_all([shell("one", "exit 0")], 1)
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("devices", "gpu", "expected"),
    [
        (["cpu"], False, 3),
        (["cpu"], True, 3),
        (["auto", "cpu"], False, 3),
        (["auto", "cpu"], True, 1),
        (["cpu", "cuda"], False, 1),
    ],
)
def test_as_many_jobs_as_cores_but_one_on_a_gpu(monkeypatch, devices, gpu, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5})
    assert default_jobs(devices) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert default_jobs(devices) == (8 if expected == 3 else 1)


def test_a_command_hears_ctrl_c_though_what_starts_it_does_not():
    """As a shell's background does, which ignores it, and Ray, which blocks it."""
    heard = (
        "import signal; print(signal.getsignal(2), signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    script = f"""
import signal, subprocess, sys
from pyg_lth.sweeps.processes import tied_to_this_process
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
command = [sys.executable, "-IS", "-c", {heard!r}]
for arguments in (command, tied_to_this_process(command)):
    subprocess.run(arguments)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    deaf, hearing = told.stdout.splitlines()
    assert "SIG_IGN" in deaf or "SIGINT" in deaf
    assert "default_int_handler" in hearing and "SIGINT" not in hearing


def test_a_watcher_ends_a_command():
    class Ends(Notes):
        def on_line(self, name, line):
            return line == "second"

    script = "echo first >&2; echo second >&2; exec sleep 60"
    assert run_all([shell("one", script)], 1, Ends())["one"].code == -signal.SIGTERM
