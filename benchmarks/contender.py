"""A contender lives in a process of its own and is asked over a pipe, one JSON line at a time."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measuring import NotMeasured, Task, measure

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENTS = REPOSITORY / ".bench"

# What the command line of pyg-lth sets, for all: a waiting contender must not spin on the cores
# that the others compute on. And implicit, which has threads of its own, asks for one in OpenBLAS.
QUIET = {"GOMP_SPINCOUNT": "1000", "THP_MEM_ALLOC_ENABLE": "1"}
MODULES: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "pyg_lth": ("benchmarks.ours", None, {}),
    # The same again, for what it is compared with itself in.
    "pyg_lth_bpr": ("benchmarks.ours", None, {}),
    "plain": ("benchmarks.peers.plain", None, {}),
    "pyg": ("benchmarks.peers.pyg", None, {}),
    "recbole": ("benchmarks.peers.recbole", "recbole", {}),
    "implicit": ("benchmarks.peers.implicit", "implicit", {"OPENBLAS_NUM_THREADS": "1"}),
}


class Contender:
    """A module that serves tasks, started under the interpreter of its environment.

    Args:
        module: What to start with ``python -m``; it calls :func:`serve`.
        arguments: Its arguments.
        environment: Folder under ``.bench`` of its virtual environment, :obj:`None` for this one.
        variables: Environment variables it needs.

    Raises:
        NotMeasured: If it cannot be started.
    """

    def __init__(
        self,
        module: str,
        arguments: Iterable[str | Path] = (),
        environment: str | None = None,
        variables: dict[str, str] | None = None,
    ):
        python = Path(sys.executable)
        if environment:
            python = ENVIRONMENTS / environment / "bin" / "python"
            if not (ENVIRONMENTS / environment / "installed").exists():
                raise NotMeasured(f"not installed: see .bench/{environment}.log after `make bench`")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **QUIET, **(variables or {})},
        )
        try:
            self.versions: dict[str, str] = self._read()
        except NotMeasured:
            self.close()
            raise

    def measure(self, count: int = 1, **case: Any) -> dict[str, Any]:
        """Have a task done ``count`` times; see :func:`benchmarks.measuring.measure`.

        The answer has ``ready`` too: the bytes that were held before the task was built.

        Args:
            count: How many times.
            case: What the module builds the task from, at the first time or after another case.

        Raises:
            NotMeasured: If the process fails; the message is its last line.
        """
        assert self._process.stdin is not None
        # A process that ended is noticed when its answer is missing.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"count": count, **case}) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().split("\n")
            said = next((text.strip() for text in reversed(lines) if text.strip()), "no message")
            raise NotMeasured(f"{said} (exit code {code})")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            # What was still to be written to a process that ended is lost, which is no matter.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Contenders(contextlib.ExitStack):
    """Some of ``MODULES``, all on the same interactions; those that fail are noted, with a reason.

    Args:
        folder: Where the interactions were saved.
        names: Keys of ``MODULES``.
    """

    def __init__(self, folder: Path, *names: str):
        super().__init__()
        self.versions: dict[str, dict[str, str]] = {}
        self.not_measured: dict[str, str] = {}
        self.figures: dict[str, Any] = {}
        self._running: dict[str, Contender] = {}
        for name in names:
            module, environment, variables = MODULES[name]
            try:
                contender = Contender(module, [folder], environment, variables)
            except NotMeasured as error:
                self.not_measured[name] = str(error)
            else:
                self._running[name] = self.enter_context(contender)
                self.versions[name] = contender.versions

    def measure(self, name: str, count: int = 1, **case: Any) -> dict[str, Any]:
        """Ask one contender, see :meth:`Contender.measure`; one that failed is not asked again."""
        try:
            if name in self.not_measured:
                raise NotMeasured(self.not_measured[name])
            answer = self._running[name].measure(count, **case)
        except NotMeasured as error:
            self.not_measured[name] = str(error)
            raise
        self.figures[name] = answer["figures"]
        return answer

    def seconds(self, name: str, **case: Any) -> Callable[[int], float]:
        """What :func:`benchmarks.measuring.interleave` asks for."""
        return lambda count: float(self.measure(name, count, **case)["seconds"])


def serve(build: Callable[..., Task], *packages: str) -> None:
    """Answer on stdout what :meth:`Contender.measure` asks on stdin.

    Args:
        build: Builds the task of a case.
        packages: The packages whose versions are worth telling.
    """
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    current, task, ready = None, None, 0
    answer: dict[str, Any] = {name: metadata.version(name) for name in packages}
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        count = case.pop("count")
        if case != current:
            task = None  # Let go of the last case before the next one is built.
            nothing = measure(Task(lambda count: None), 1)
            current, task, ready = case, build(**case), nothing["before"]
        assert task is not None
        print(json.dumps({**measure(task, count), "ready": ready}), file=answers, flush=True)
