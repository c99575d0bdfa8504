"""The seeds of a run side by side, each in a process of its own."""

from collections.abc import Sequence
from pathlib import Path

from pyg_lth.errors import InputError
from pyg_lth.sweeps.children import command_line
from pyg_lth.sweeps.processes import Command, Watcher, run_all


def run_seeds(folders: Sequence[Path], jobs: int, watcher: Watcher | None = None) -> None:
    """Run the seeds of a run, which :func:`~pyg_lth.search.find_tickets` has begun, to their ends.

    Args:
        folders: The run folder of each seed.
        jobs: How many run at a time.
        watcher: Hears of the progress; a seed is called as its folder is.

    Raises:
        InputError: If one did not end well; what is done is kept.
        KeyboardInterrupt: On Ctrl-C, after the running ones have saved their state.
    """
    commands = [
        Command(folder.name, command_line("prune", "--resume", str(folder.resolve())))
        for folder in folders
    ]
    for name, outcome in run_all(commands, jobs, watcher).items():
        if outcome.code != 0:
            raise InputError(
                f"{name} did not end well: {outcome.reason}; what is done is kept: continue with "
                f"`resume` {folders[0].parent}"
            )
