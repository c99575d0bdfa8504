"""The options that say what runs the runs of a command, and how many at a time."""

from collections.abc import Callable
from typing import Any

import click

from pyg_lth.sweeps.engines import ENGINES


def engine_options(jobs: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options ``engine``, ``jobs`` and those of a cluster.

    Args:
        jobs: What ``--jobs`` is to this command.
    """
    options = (
        click.option(
            "--engine",
            type=click.Choice(list(ENGINES)),
            default="local",
            show_default=True,
            help="What runs them: processes of this machine, or tasks of a Ray cluster.",
        ),
        click.option("--jobs", type=click.IntRange(min=1), help=jobs),
        click.option(
            "--cpus-per-run",
            type=click.IntRange(min=1),
            help="Cores of each run on a Ray cluster.  [default: 1]",
        ),
        click.option(
            "--gpus-per-run",
            type=click.FloatRange(min=0),
            help="GPUs of each run on a Ray cluster: 0.25 puts four runs on one.  [default: 1 if a "
            "run has device cuda, else none]",
        ),
        click.option(
            "--ray-address",
            metavar="HOST:PORT",
            help="The Ray cluster.  [default: RAY_ADDRESS, else that of this machine]",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
