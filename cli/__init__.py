"""The command line: parses, calls one library function, shows."""

import sys
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
from pyg_lth.cli.serve import serve
from pyg_lth.cli.settings import InOrder, in_flags
from pyg_lth.cli.sweep import sweep
from pyg_lth.datasets import DatasetError
from pyg_lth.errors import InputError


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
        click.echo(context.get_help())


for command in (
    prune,
    train,
    sweep,
    report,
    compare,
    plot,
    export,
    inspect,
    recommend,
    serve,
    datasets,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line.

    The exit code is 0 (done), 1 (a run of a sweep failed), 2 (bad usage or input) or 130 (Ctrl-C).
    """
    runtime.tune()
    # A plugin that cannot be used is one line, without the place in this package that noticed.
    warnings.showwarning = _show_warning
    try:
        code = cli.main(prog_name="pyg-lth", standalone_mode=False)
    except click.ClickException as error:
        code = _fail(error.format_message())
    except click.Abort:
        code = 130
    except (InputError, DatasetError, OSError) as error:
        code = _fail(str(error))
    sys.exit(code)


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    click.echo(f"Warning: {' '.join(str(message).split())}", err=True)


def _fail(message: str) -> int:
    click.echo(f"Error: {in_flags(' '.join(message.split()))}", err=True)
    return 2
