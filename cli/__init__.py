"""The command line: parses, calls one library function, shows."""

import sys
import tempfile
import traceback
import warnings
from typing import Any

import click

from pyg_lth import runtime
from pyg_lth.cli.compare import compare
from pyg_lth.cli.datasets import datasets
from pyg_lth.cli.doctor import doctor
from pyg_lth.cli.export import export
from pyg_lth.cli.inspect import inspect
from pyg_lth.cli.plot import plot
from pyg_lth.cli.prune import prune, train
from pyg_lth.cli.recommend import recommend
from pyg_lth.cli.report import report
from pyg_lth.cli.runs import runs
from pyg_lth.cli.serve import serve
from pyg_lth.cli.settings import InOrder, in_flags
from pyg_lth.cli.streams import say, unbreakable_output
from pyg_lth.cli.sweep import sweep
from pyg_lth.cli.tune import tune
from pyg_lth.datasets import DatasetError
from pyg_lth.errors import IN_USE, LOST, FolderInUse, InputError, WorkerLost, printable


@click.group(
    cls=InOrder,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pyg-lth")
@click.pass_context
def cli(context: click.Context) -> None:
    """Find winning lottery tickets in recommender embedding tables.

    Start with: pyg-lth prune --model mf --dataset synthetic --rounds 5
    """
    if context.invoked_subcommand is None:
        say(context.get_help())


for command in (
    prune,
    train,
    tune,
    sweep,
    report,
    compare,
    plot,
    export,
    inspect,
    recommend,
    serve,
    runs,
    datasets,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line.

    The exit code is 0 (done), 1 (a run of a sweep failed, or something that nobody foresaw), 2 (bad
    usage or input), 3 (another process has the run folder), 4 (another worker of the run ended) or
    130 (Ctrl-C).
    """
    with unbreakable_output():
        code = _run()
    sys.exit(code)


def _run() -> int:
    runtime.tune()
    # A plugin that cannot be used is one line, without the place in this package that noticed.
    warnings.showwarning = _show_warning
    try:
        code: int | None = cli.main(prog_name="pyg-lth", standalone_mode=False)
        return code or 0
    except click.ClickException as error:
        return _fail(error.format_message())
    except click.Abort:
        return 130
    except FolderInUse as error:
        _fail(str(error))
        return IN_USE
    except WorkerLost as error:
        _fail(str(error))
        return LOST
    except (InputError, DatasetError, OSError) as error:
        return _fail(str(error))
    except BaseException as error:
        # What a library in Rust panics with is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if _is_out_of_memory(error):
            return _fail("there is not enough memory for this: see what a run takes by --dry-run")
        return _apologise(error)


def _apologise(error: BaseException) -> int:
    """Say where the traceback is of what no one foresaw."""
    try:
        file, name = tempfile.mkstemp(prefix="pyg-lth-", suffix=".txt")
        with open(file, "w", errors="backslashreplace") as traceback_file:  # noqa: PTH123
            traceback.print_exception(error, file=traceback_file)
        where = f"in {name}"
    except OSError:
        say("".join(traceback.format_exception(error)), err=True)
        where = "above"
    _fail(
        f"sorry, this is a fault of pyg-lth ({type(error).__name__}: {error}); please report it "
        f"with the traceback {where}"
    )
    return 1


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory; torch has no type of its own for that on a CPU."""
    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return allocator or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    say(f"Warning: {in_flags(printable(' '.join(str(message).split())))}", err=True)


def _fail(message: str) -> int:
    say(f"Error: {in_flags(printable(' '.join(message.split())))}", err=True)
    return 2
