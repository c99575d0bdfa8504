"""``pyg-lth plot``: the figures of a search, or of several together."""

from pathlib import Path

import click

from pyg_lth.cli.streams import say


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the figures.  [default: RUN/figures; figures, of several runs]",
)
@click.option(
    "--by",
    type=click.Choice(["density", "bytes"]),
    default="density",
    show_default=True,
    help="bytes: what tickets weigh, beside ways that use no mask; ranks by each table.",
)
def plot(runs: tuple[Path, ...], out: Path | None, by: str) -> None:
    """Draw the figures of the run folders RUNS as PNG and SVG, of several runs together.

    Prints the files. Needs matplotlib: pip install "pyg-lth[plots]"
    """
    from pyg_lth.reporting.comparison import labels
    from pyg_lth.reporting.plots import figures, frontier, save
    from pyg_lth.results.run_folder import RunFolder

    if by == "bytes":
        from pyg_lth.cli.weighing import weigh

        drawn = frontier(weigh(runs))
    else:
        found = [RunFolder(run) for run in runs]
        names = labels([run.read_report() for run in found], [run.resolve() for run in runs])
        drawn = figures(list(zip(names, found, strict=True)))
    if out is None and len(runs) == 1:
        run = RunFolder(runs[0])
        paths = save(drawn, Path("figures"), run.write_file)
        paths = [run.path / path for path in paths]
    else:
        paths = save(drawn, out or Path("figures"))
    for path in paths:
        say(path)
