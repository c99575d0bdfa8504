"""``pyg-lth prune`` and ``pyg-lth train``: run a search and show its report."""

import contextlib
import functools
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pyg_lth.cli.settings import PruneSettings, TrainSettings, build, flag, options_of
from pyg_lth.cli.streams import hand_out, say, shell
from pyg_lth.config import PRESETS, PresetName, PruneConfig, TrainConfig, of_preset
from pyg_lth.datasets import DatasetOptions
from pyg_lth.errors import InputError, WorkerLost

if TYPE_CHECKING:
    from pyg_lth.workers import Workers

Function = TypeVar("Function", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)


def run_options(function: Function) -> Function:
    """Decorate a command with the options that shape no result."""
    for option in (
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Processes here that share the table by its columns.  [default: 1, or as torchrun "
            "started]",
        ),
        click.option("--quiet", is_flag=True, help="Show no progress."),
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout."),
        click.option("--print-config", is_flag=True, help="Print the settings and stop."),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Print what the run would take of memory, disk and time, and stop.",
        ),
        click.option(
            "--config",
            "file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="YAML or JSON file of settings; flags take precedence over it.",
        ),
        click.option(
            "--preset",
            type=click.Choice(list(PRESETS)),
            default="honest",
            show_default=True,
            help="paper: the authors' protocol (selects on test); strong: a recipe that ranks "
            "well; file and flags take precedence.",
        ),
        click.option(
            "--resume",
            type=FOLDER,
            help="Continue the run in this folder; --dataset and the like name moved data anew.",
        ),
        click.option("--out", type=FOLDER, help="Folder of the new run.  [default: runs/<name>]"),
    ):
        function = option(function)
    return function


@click.command()
@options_of(PruneSettings)
@run_options
def prune(**given: Any) -> None:
    """Find tickets: train densely, then rounds of mask, rewind, retrain."""
    _run("prune", PruneSettings, **given)


@click.command()
@options_of(TrainSettings)
@run_options
def train(**given: Any) -> None:
    """Train the dense model only: round 0 of prune."""
    _run("train", TrainSettings, **given)


def _run(
    command: str,
    form: type[TrainSettings] | type[PruneSettings],
    *,
    out: Path | None,
    resume: Path | None,
    file: Path | None,
    preset: PresetName,
    print_config: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    workers: int | None,
    **flags: Any,
) -> None:
    if resume is None:
        new: TrainSettings | PruneSettings = build(
            form, file, flags, functools.partial(of_preset, preset)
        )
        if print_config:
            say(json.dumps(new.model_dump(mode="json"), indent=2))
            return
    else:
        _check_resume(out, file, flags)

    # Imported only now: torch takes seconds, and --help and bad usage should not wait for it.
    from pyg_lth.results.run_folder import RunFolder
    from pyg_lth.search import check_strategies

    if resume is None:
        settings: TrainConfig = new
        folder = out or Path("runs", _run_name(command, new))
    else:
        folder = resume
        settings = RunFolder(resume).read_settings()
        if (device := flags.pop("device")) is not None:
            settings = settings.model_copy(update={"device": device})
        if print_config:
            say(json.dumps(RunFolder(resume).read_config(), indent=2))
            return
    number = _number_of(workers)
    check_strategies(settings, number)
    if dry_run:
        _show_needs(_read(settings, resume, flags), settings, folder, number, as_json)
        return
    try:
        with _together(number) as group, _speaking(group.is_first):
            _search(command, settings, folder, resume, flags, as_json, quiet, group)
    except WorkerLost as error:
        if not (folder / "config.json").exists():
            raise
        again = shell("pyg-lth", command, "--resume", folder, "--workers", number)
        raise WorkerLost(f"{error}; what is done is kept, continue with: {again}") from None


def _search(
    command: str,
    settings: TrainConfig,
    folder: Path,
    resume: Path | None,
    flags: dict[str, Any],
    as_json: bool,
    quiet: bool,
    group: "Workers",
) -> None:
    """Run a search, or one worker's part in it, and show its report."""
    from pyg_lth.cli.report import show
    from pyg_lth.results.text import subject
    from pyg_lth.search import find_tickets

    # What has to be downloaded or processed is so once.
    data = group.first_first(lambda: _read(settings, resume, flags))
    jobs = _jobs(settings) if group.size == 1 else 1
    try:
        report = find_tickets(
            **data,
            config=settings,
            run_dir=folder,
            resume=resume is not None,
            jobs=jobs,
            # Seeds that run side by side have a display of their own.
            progress=not quiet and jobs == 1 and group.is_first,
            run_ahead=functools.partial(_run_side_by_side, jobs, quiet) if jobs > 1 else None,
            workers=group,
        )
    except KeyboardInterrupt:
        again = shell("pyg-lth", command, "--resume", folder)
        say(f"Interrupted. Continue with: {again}", err=True)
        click.get_current_context().exit(130)
    except BaseException as error:
        # What was refused before it began needs no such advice.
        unforeseen = not isinstance(error, InputError) or isinstance(error.__cause__, OSError)
        if unforeseen and (folder / "config.json").exists():
            again = shell("pyg-lth", command, "--resume", folder)
            say(f"What is done is kept. Continue with: {again}", err=True)
        raise
    if not group.is_first:
        return
    if as_json:
        hand_out(report.to_json())
    else:
        show(report, folder)
        export = shell("pyg-lth", "export", folder, "--round", subject(report).round)
        say(f"Next: {export}")


def _read(settings: TrainConfig, resume: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """The data of a run, new or to be resumed."""
    from pyg_lth.cli import run_data

    if resume is not None:
        return run_data.of_run(resume, flags)
    chosen = settings.model_dump(include=set(DatasetOptions.model_fields))
    return run_data.of_options(DatasetOptions(**chosen))


def _show_needs(
    data: dict[str, Any], settings: TrainConfig, folder: Path, workers: int, as_json: bool
) -> None:
    """Print what a run would take; where that is not there, say so as the run would."""
    from pyg_lth.cli.sweep_display import clock
    from pyg_lth.estimate import estimate, measure, size
    from pyg_lth.interactions import InteractionSplit
    from pyg_lth.training.problem import choose_device
    from pyg_lth.workers import Workers

    split, device = InteractionSplit.from_data(data["data"]), choose_device(settings)
    jobs = _jobs(settings) if workers == 1 else 1
    needs = estimate(split, settings, device, folder, jobs, Workers(size=workers))
    # How long several take is known when they have begun.
    if needs.shortage is None and workers == 1:
        needs = measure(needs, split, settings, device, jobs)
    if as_json:
        say(json.dumps(needs.to_dict(), indent=2))
    else:
        say(f"memory  about {size(needs.memory)} of {size(needs.memory_free)} free")
        say(f"disk    about {size(needs.disk)} of {size(needs.disk_free)} free")
        say(f"steps   {needs.steps:,} an epoch")
        if needs.seconds_an_epoch is not None and needs.seconds_at_most is not None:
            say(f"time    {needs.seconds_an_epoch:.3g} s an epoch, by a few steps of one")
            whole = clock(needs.seconds_at_most)
            say(f"        {whole} at most, with {settings.max_epochs:,} epochs in every round")
    if needs.shortage is not None:
        raise InputError(needs.shortage)


def _number_of(workers: int | None) -> int:
    """How many workers there are to be, which a launcher may have said."""
    from pyg_lth.workers import started

    found = started()
    if found > 1 and workers not in (None, found):
        raise InputError(f"--workers {workers}: a launcher has started {found}: leave it out")
    return workers or found


def _together(number: int) -> "contextlib.AbstractContextManager[Workers]":
    """Join the workers of a launcher, or start the others here."""
    from pyg_lth.workers import joined, started

    if number == started():
        return joined()
    from pyg_lth.sweeps.launching import launched

    return launched(number, sys.argv[1:])


@contextlib.contextmanager
def _speaking(aloud: bool) -> Iterator[None]:
    """Say nothing unless told to: what several workers would say is the same."""
    with contextlib.nullcontext() if aloud else contextlib.redirect_stderr(io.StringIO()):
        yield


def _jobs(settings: TrainConfig) -> int:
    """How many seeds to run at a time."""
    if not isinstance(settings, PruneConfig) or settings.seeds == 1:
        return 1
    from pyg_lth.sweeps.processes import default_jobs

    return min(default_jobs([settings.device]), settings.seeds)


def _run_side_by_side(jobs: int, quiet: bool, folders: Sequence[Path]) -> None:
    """Run the seeds of a run in processes of their own, and show how far they are."""
    from pyg_lth.cli.sweep_display import choose_progress
    from pyg_lth.sweeps.seeds import run_seeds

    title = f"{len(folders)} seeds, {jobs} at a time, run folder {folders[0].parent}"
    with choose_progress(title, {folder.name: folder for folder in folders}, quiet) as progress:
        run_seeds(folders, jobs, progress)


def _check_resume(out: Path | None, file: Path | None, flags: dict[str, Any]) -> None:
    """Refuse to change the settings of a run, but for where its data are and where to compute."""
    source = click.get_current_context().get_parameter_source("preset")
    preset = "preset" if source is ParameterSource.COMMANDLINE else None
    given = {"out": out, "config": file, "preset": preset, **flags}
    for name, value in given.items():
        if value is not None and name not in {"device", *DatasetOptions.model_fields}:
            raise InputError(
                f"{flag(name)} does not go with --resume: a run keeps its own settings"
            )


def _run_name(command: str, settings: TrainSettings | PruneSettings) -> str:
    method = settings.method if isinstance(settings, PruneConfig) else command
    data = Path(settings.dataset).name.partition(".")[0]
    return f"{data}-{settings.model}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"
