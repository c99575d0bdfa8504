"""Find tickets: a run of one seed, or of several in one folder."""

import contextlib
import functools
import itertools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import HeteroData

from pyg_lth import kernels
from pyg_lth.config import PruneConfig, TrainConfig, completed
from pyg_lth.errors import InputError, RunWarning
from pyg_lth.estimate import estimate
from pyg_lth.evaluation.significance import Difference, paired_difference
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.callbacks import Callback, Together
from pyg_lth.lottery.interruption import deferred_interrupt
from pyg_lth.lottery.methods import METHODS
from pyg_lth.lottery.other_runs import masks_to_train_under, taught, teachers_of
from pyg_lth.lottery.rounds import Rounds
from pyg_lth.reporting.live import show_progress
from pyg_lth.results.report import Refit, Report
from pyg_lth.results.run_folder import Data, Ids, RunFolder
from pyg_lth.strategies import BACKBONES, LOSSES, Registry
from pyg_lth.sweeps.seeds import run_seeds
from pyg_lth.training.problem import Problem, choose_device
from pyg_lth.workers import ALONE, Workers

RunAhead = Callable[[Sequence[Path]], None]


def find_tickets(
    data: HeteroData | None = None,
    config: TrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    user_ids: Ids | None = None,
    item_ids: Ids | None = None,
    notes: Sequence[str] = (),
    callback: Callback | None = None,
    progress: bool = False,
    checkpoint_seconds: float = 30.0,
    jobs: int = 1,
    run_ahead: RunAhead | None = None,
    workers: Workers = ALONE,
) -> Report:
    """Find winning tickets: rounds of mask, rewind, retrain (paper, Section 3.2).

    Args:
        data: A bipartite graph in the form of :mod:`pyg_lth.datasets`. To resume a run it may be
            left out: the folder keeps it.
        config: The settings, by default those of the run to resume, or else those of
            :class:`~pyg_lth.config.PruneConfig`. A plain
            :class:`~pyg_lth.config.TrainConfig` asks for the dense round alone.
        run_dir: Folder that keeps masks, weights and reports. Without one nothing is kept but the
            report that is returned.
        resume: Whether to continue the run in ``run_dir``, begun here or on the command line.
        user_ids: The original id of each user, text or integers, which ``run_dir`` keeps for
            tickets and tables.
        item_ids: The original id of each item.
        notes: What reading the data merged, dropped or left out, a line for each kind, as data sets
            have it; the reports in ``run_dir`` show it.
        callback: Hears of the progress.
        progress: Whether to show rounds as they come: in a notebook below the cell, in a terminal
            as the command line does.
        checkpoint_seconds: Time between two savings of the training in progress, in seconds.
        jobs: With several seeds, how many of them to run at a time, each in a process of its own
            with one thread; 1 runs them here in turn.
        run_ahead: With several seeds, called instead with the run folder of each, begun and ready
            to resume, before they are run here in turn; what it has other processes do in these
            folders is not done again.
        workers: Who has which columns of the table (see :func:`~pyg_lth.workers.joined`); all of
            them call this, with the same arguments.

    Returns:
        The report, as in ``report.json``.

    Raises:
        InputError: If the graph, the settings or the folder cannot be used, or the run needs more
            memory or disk than there is.
        KeyboardInterrupt: On Ctrl-C, after the training in progress has been saved.
        WorkerLost: If another worker has ended.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.PruneConfig(model="mf", dim=8, max_epochs=5, rounds=3, amount=0.2)
        >>> report = pyg_lth.find_tickets(data, config, run_dir="runs/mine")
        >>> [f"{ticket.density:.1%}" for ticket in report.rounds]
        ['80.0%', '64.0%', '51.2%']
    """
    source = _to_resume(run_dir) if resume else None
    if config is None:
        config = PruneConfig() if source is None else source.read_settings()
    check_strategies(config, workers.size)
    device = choose_device(config)
    if device.type == "cpu" and not kernels.usable(device):
        warnings.warn(kernels.MISSING, RunWarning, stacklevel=2)
    if data is not None:
        kept_data = Data(InteractionSplit.from_data(data), user_ids, item_ids, notes)
    elif source is not None:
        kept_data = source.read_data()
    else:
        raise InputError("`data` is missing: give a graph, or `resume` a run that keeps its own")
    split = kept_data.split
    fingerprint = split.fingerprint()
    seeds = config.seeds if isinstance(config, PruneConfig) else 1
    if shortage := estimate(split, config, device, run_dir, jobs, workers).shortage:
        raise InputError(shortage)
    masks = masks_to_train_under(config, seeds, fingerprint, source, workers)
    teachers = teachers_of(config, seeds, fingerprint, source, workers)

    # Which ticket to refit is known when all seeds are done.
    of_each = {"seeds": 1, "refit": False} if seeds > 1 else {}

    def prepare(seed: int, teacher: RunFolder | None) -> Problem:
        own = config.model_copy(update={"seed": seed, **of_each})
        held_out = own.select_on == "valid" and split.valid is None
        own_split = split.hold_out_validation(seed) if held_out else split
        return taught(Problem.prepare(own_split, own, device, workers), teacher)

    shown = show_progress(run_dir) if progress else contextlib.nullcontext(Callback())
    kept = tempfile.TemporaryDirectory() if run_dir is None else contextlib.nullcontext(run_dir)
    if run_ahead is None and jobs > 1 and workers.size == 1:
        run_ahead = functools.partial(run_seeds, jobs=jobs)
    with (
        kept as path,
        RunFolder(workers.texts(str(path))[0], workers) as folder,
        shown as display,
        deferred_interrupt() as interrupted,
    ):
        heard = Together(display, callback) if callback else display

        def begin(
            problem: Problem,
            folder: RunFolder,
            masks: RunFolder | None,
            teacher: RunFolder | None,
        ) -> Rounds:
            return Rounds(problem, folder, masks, teacher, heard, checkpoint_seconds, interrupted)

        # What cannot be used is found out before the folder is claimed.
        first = prepare(config.seed, teachers[0])
        folder.begin(config.model_dump(), fingerprint, resume, kept_data)
        if seeds == 1:
            rounds = begin(first, folder, masks[0], teachers[0])
            report = rounds.run()
            return _refit(config, report, folder, [folder], [rounds])
        assert isinstance(config, PruneConfig)
        rest = map(prepare, range(config.seed + 1, config.seed + seeds), teachers[1:])
        folders = [folder.of_seed(config.seed + index) for index in range(seeds)]
        for index, own in enumerate(folders):
            settings = {**completed(folder.read_config()), "seed": config.seed + index, **of_each}
            with own:
                own.begin(settings, fingerprint, own.begun)
        if run_ahead is not None:
            run_ahead([own.path for own in folders])
        reports: list[Report] = []
        runs: list[Rounds] = []
        problems = itertools.chain([first], rest)
        for problem, own, *others in zip(problems, folders, masks, teachers, strict=True):
            rounds = begin(problem, own, *others)
            with own:
                reports.append(rounds.run())
            report = _report_together(config, completed(folder.read_config()), folders, reports)
            folder.write_report(report)
            if config.refit:
                runs.append(rounds)
        return _refit(config, report, folder, folders, runs)


def train(
    data: HeteroData | None = None,
    config: TrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    user_ids: Ids | None = None,
    item_ids: Ids | None = None,
    notes: Sequence[str] = (),
    callback: Callback | None = None,
    progress: bool = False,
    checkpoint_seconds: float = 30.0,
    workers: Workers = ALONE,
) -> Report:
    """Train the dense model only: round 0 of :func:`find_tickets`, which has the same arguments.

    What ``config`` says of pruning is left out.

    Returns:
        A report without pruned rounds.

    Raises:
        InputError: If the graph, the settings or the folder cannot be used.
        KeyboardInterrupt: On Ctrl-C, after the training in progress has been saved.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> report = pyg_lth.train(data, pyg_lth.TrainConfig(model="mf", dim=8, max_epochs=5))
        >>> sorted(report.dense.test)
        ['ndcg@20', 'precision@20', 'recall@20']
    """
    if config is not None or not resume:
        given = (config or TrainConfig()).model_dump(include=set(TrainConfig.model_fields))
        config = TrainConfig(**given)
    return find_tickets(
        data,
        config,
        run_dir=run_dir,
        resume=resume,
        user_ids=user_ids,
        item_ids=item_ids,
        notes=notes,
        callback=callback,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        workers=workers,
    )


def check_strategies(config: TrainConfig, workers: int) -> None:
    """Check that model, loss and method can do what a run asks of them.

    Raises:
        InputError: If there cannot be a teacher, or the table cannot be split by columns over so
            many workers.
    """
    if config.is_taught and not LOSSES[config.loss].distills:
        able = ", ".join(name for name in LOSSES.names() if LOSSES[name].distills)
        raise InputError(
            f"`distill={config.distill:g}` does not go with `loss={config.loss}`: leave it out, or "
            f"take {able}"
        )
    if workers == 1:
        return
    if workers > config.dim:
        raise InputError(
            f"`workers={workers}` cannot share a table of {config.dim} columns: take no more "
            "workers than `dim`"
        )
    kinds: list[tuple[str, Registry[Any]]] = [("model", BACKBONES), ("loss", LOSSES)]
    if isinstance(config, PruneConfig):
        kinds.append(("method", METHODS))
    for setting, registry in kinds:
        name = getattr(config, setting)
        if not registry[name].by_columns:
            able = ", ".join(other for other in registry.names() if registry[other].by_columns)
            raise InputError(
                f"`{setting}={name}` does not go with `workers={workers}`, which have some columns "
                f"each: take one worker, or a {setting} that treats columns alone ({able})"
            )


def _to_resume(run_dir: str | Path | None) -> RunFolder:
    if run_dir is None:
        raise InputError("`resume` needs the `run_dir` of the run to continue")
    return RunFolder(run_dir)


def _report_together(
    config: PruneConfig,
    settings: dict[str, Any],
    folders: Sequence[RunFolder],
    reports: Sequence[Report],
) -> Report:
    """The report on the seeds done so far, over which users are averaged before the comparison."""
    rounds = [0, *(ticket.round for ticket in reports[0].rounds)]
    differences = _differences(config, folders[: len(reports)], rounds)
    return Report.of_seeds(settings, reports, differences)


def _refit(
    config: TrainConfig,
    report: Report,
    folder: RunFolder,
    folders: Sequence[RunFolder],
    runs: Sequence[Rounds],
) -> Report:
    """The report with dense and winner trained once more, where the settings ask for it."""
    if not config.refit:
        return report
    rounds = [0] if report.winner is None else [0, report.winner.round]
    results = [run.refit(rounds) for run in runs]
    differences = _differences(config, [own.of_refit() for own in folders], rounds)
    report = report.model_copy(update={"refit": Refit.of_seeds(results, differences)})
    folder.write_report(report)
    return report


def _differences(
    config: TrainConfig, folders: Sequence[RunFolder], rounds: Sequence[int]
) -> list[Difference | None]:
    """How the rounds of some seeds differ from the first of them, over their users."""
    dense, *tickets = (
        np.stack([folder.read_users(round)[config.select_by].numpy() for folder in folders])
        for round in rounds
    )
    tolerance = config.tolerance if isinstance(config, PruneConfig) else 0.0
    return [None, *(paired_difference(t, dense, tolerance, config.seed) for t in tickets)]
