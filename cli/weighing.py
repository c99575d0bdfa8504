"""What ``--by bytes`` needs: the tables of runs, weighed once and kept."""

from collections.abc import Sequence
from pathlib import Path

from pyg_lth.cli import run_data
from pyg_lth.cli.streams import say
from pyg_lth.errors import InputError
from pyg_lth.reporting.by_bytes import Run
from pyg_lth.reporting.comparison import labels
from pyg_lth.reporting.frontier import measure, read
from pyg_lth.results.run_folder import RunFolder


def weigh(paths: Sequence[Path]) -> list[Run]:
    """Weigh the runs that are not weighed yet, which ranks by each of their tables.

    Raises:
        InputError: If their metrics differ, or the data of one are not there any more.
    """
    folders = [RunFolder(path) for path in paths]
    reports = [folder.read_report() for folder in folders]
    names = labels(reports, [path.resolve() for path in paths])
    metrics = sorted({report.metric for report in reports})
    if len(metrics) > 1:
        raise InputError(f"these runs decide on {' and '.join(metrics)}: weigh runs of one metric")
    runs = []
    for name, folder, report in zip(names, folders, reports, strict=True):
        found = read(folder)
        if found is None:
            say(f"weighing {folder.path}", err=True)
            found = measure(folder, run_data.of_run(folder.path, {})["data"])
        runs.append(Run(name, report.config.get("method", "dense"), found))
    return runs
