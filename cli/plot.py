"""``pyg-lth plot``: the figures of a search, or of several together."""

from pathlib import Path

import click


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the figures.  [default: RUN/figures; figures, of several runs]",
)
def plot(runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw the figures of the run folders RUNS as PNG and SVG, of several runs together.

    Prints the files. Needs matplotlib: pip install "pyg-lth[plots]"
    """
    from pyg_lth.reporting.comparison import labels
    from pyg_lth.reporting.plots import figures, save
    from pyg_lth.results.run_folder import RunFolder

    found = [RunFolder(run) for run in runs]
    names = labels([run.read_report() for run in found], [run.resolve() for run in runs])
    drawn = figures(list(zip(names, found, strict=True)))
    folder = out or (runs[0] / "figures" if len(runs) == 1 else Path("figures"))
    for path in save(drawn, folder):
        click.echo(path)
