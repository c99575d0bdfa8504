"""The round loop: train, mask, rewind, retrain."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_lth import criteria, rewinding, seeding
from pyg_lth.config import MethodName, PruneConfig, TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.evaluation import Evaluator, popularity_embedding
from pyg_lth.interruption import deferred_interrupt
from pyg_lth.masks import Mask, budgets
from pyg_lth.report import Popularity, Report, RoundResult
from pyg_lth.runs import RunFolder
from pyg_lth.splits import InteractionSplit
from pyg_lth.training import EpochRecord, Training, Workbench


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to find masks.

    Args:
        criterion: Scores the entries of a trained table.
        schedule: Which round's table and mask are pruned to the next density: the ``previous``
            round's, or always the ``dense`` one's.
        rewind: Where the survivors restart.
    """

    criterion: criteria.Criterion
    schedule: Literal["previous", "dense"]
    rewind: rewinding.Rewind


METHODS: dict[MethodName, Method] = {
    "imp": Method(criteria.magnitude, "previous", rewinding.to_initialization),
    "oneshot": Method(criteria.magnitude, "dense", rewinding.to_initialization),
    "random": Method(criteria.random, "dense", rewinding.to_initialization),
}


class Callback:
    """What a caller may want to hear of a search; every method does nothing unless overridden."""

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """The graph is ready and the run claimed."""

    def on_popularity(self, popularity: Popularity) -> None:
        """The popularity ranking was evaluated."""

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """A round begins, or continues where it was left; ``training.progress`` moves with it."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""

    def on_round_end(self, result: RoundResult) -> None:
        """A round ended, or had ended before the run was resumed."""


def find_tickets(
    data: HeteroData,
    config: TrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callback: Callback | None = None,
    checkpoint_seconds: float = 30.0,
) -> Report:
    """Find winning tickets: rounds of mask, rewind, retrain (paper, Section 3.2).

    Args:
        data: A bipartite graph in the form of :mod:`pyg_lth.datasets`.
        config: The settings, those of :class:`~pyg_lth.config.PruneConfig` unless given. A plain
            :class:`~pyg_lth.config.TrainConfig` asks for the dense round alone.
        run_dir: Folder that keeps masks, weights and reports. Without one nothing is kept but the
            report that is returned.
        resume: Whether to continue the run in ``run_dir``.
        callback: Hears of the progress.
        checkpoint_seconds: Time between two savings of the training in progress, in seconds.

    Returns:
        The report, as in ``report.json``.

    Raises:
        InputError: If the graph, the settings or the folder cannot be used.
        KeyboardInterrupt: On Ctrl-C, after the training in progress has been saved.
    """
    config = config or PruneConfig()
    device = _choose_device(config)
    split = InteractionSplit.from_data(data)
    fingerprint = split.fingerprint()
    if config.select_on == "valid" and split.valid is None:
        split = split.hold_out_validation(config.seed)
    kept = tempfile.TemporaryDirectory() if run_dir is None else contextlib.nullcontext(run_dir)
    with kept as path, RunFolder(path) as folder, deferred_interrupt() as interrupted:
        bench = Workbench.prepare(split, config, device)
        folder.begin(config.model_dump(), fingerprint, resume)
        search = _Search(bench, folder, callback or Callback(), checkpoint_seconds, interrupted)
        return search.run()


def train(
    data: HeteroData,
    config: TrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callback: Callback | None = None,
    checkpoint_seconds: float = 30.0,
) -> Report:
    """Train the dense model only: round 0 of :func:`find_tickets`, which has the same arguments.

    What ``config`` says of pruning is left out.

    Returns:
        A report without pruned rounds.

    Raises:
        InputError: If the graph, the settings or the folder cannot be used.
        KeyboardInterrupt: On Ctrl-C, after the training in progress has been saved.
    """
    config = config or TrainConfig()
    return find_tickets(
        data,
        TrainConfig(**config.model_dump(include=set(TrainConfig.model_fields))),
        run_dir=run_dir,
        resume=resume,
        callback=callback,
        checkpoint_seconds=checkpoint_seconds,
    )


class _Search:
    """One search on its way through the rounds."""

    def __init__(
        self,
        bench: Workbench,
        folder: RunFolder,
        callback: Callback,
        checkpoint_seconds: float,
        interrupted: Callable[[], bool],
    ):
        self._bench = bench
        self._config = bench.config
        self._folder = folder
        self._callback = callback
        self._checkpoint_seconds = checkpoint_seconds
        self._interrupted = interrupted
        self._evaluate_test = (
            bench.evaluator
            if self._config.select_on == "test"
            else Evaluator(bench.split, "test", self._config.topk)
        )

    def run(self) -> Report:
        """Run the rounds that are not done yet."""
        self._callback.on_start(self._config, self._bench.split)
        initial = self._folder.read_initial()
        if initial is None:
            initial = self._bench.initialize()
            self._folder.write_initial(initial)
        popularity = self._rank_by_popularity()
        self._callback.on_popularity(popularity)
        results = self._folder.read_results()
        self._epochs = self._folder.read_epochs(len(results))
        for result in results:
            self._callback.on_round_end(result)
        rounds = self._config.rounds if isinstance(self._config, PruneConfig) else 0
        for round in range(len(results), rounds + 1):
            results.append(self._run_round(round, initial))
            self._callback.on_round_end(results[-1])
            self._publish(popularity, results)
        self._folder.tidy()
        # Once more, for a run that ended between its last round and the report.
        return self._publish(popularity, results)

    def _rank_by_popularity(self) -> Popularity:
        embedding = popularity_embedding(self._bench.split)
        valid = self._bench.evaluator(embedding) if self._config.select_on == "valid" else None
        return Popularity(valid=valid, test=self._evaluate_test(embedding))

    def _run_round(self, round: int, initial: Tensor) -> RoundResult:
        mask, start = self._mask_and_rewind(round, initial)
        training = Training(self._bench, start, mask, round)
        self._folder.restore_state(training)
        self._callback.on_round_start(training, mask)
        self._last_checkpoint = time.monotonic()
        training.run(self._callback.on_epoch, lambda: self._after_step(training))
        known = {self._config.select_on: training.best_metrics}
        result = RoundResult(
            round=round,
            density=mask.density,
            remaining=mask.remaining,
            epochs=training.progress.epoch,
            best_epoch=training.progress.best_epoch,
            seconds=sum(record.seconds for record in training.progress.history),
            valid=known.get("valid"),
            test=known.get("test") or self._evaluate_test(training.best_embedding()),
        )
        self._epochs += training.progress.history
        self._folder.write_epochs(self._epochs)
        self._folder.write_round(result, mask, training.best_weight)
        return result

    def _mask_and_rewind(self, round: int, initial: Tensor) -> tuple[Mask, Tensor]:
        config = self._config
        if round == 0 or not isinstance(config, PruneConfig):
            return Mask.ones(*initial.shape), initial
        method = METHODS[config.method]
        mask, trained = self._folder.read_round(round - 1 if method.schedule == "previous" else 0)
        scores = method.criterion(trained, seeding.generator(config.seed, "criterion", round))
        keep = budgets(
            config.scope,
            self._bench.split.num_users,
            trained.shape,
            config.amount,
            round,
        )
        return criteria.prune(scores, mask, keep), method.rewind(initial, trained)

    def _after_step(self, training: Training) -> None:
        interrupted = self._interrupted()
        if interrupted or time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds:
            self._folder.write_epochs([*self._epochs, *training.progress.history])
            self._folder.write_state(training)
            self._last_checkpoint = time.monotonic()
        if interrupted:
            raise KeyboardInterrupt

    def _publish(self, popularity: Popularity, results: list[RoundResult]) -> Report:
        config = self._config
        tolerance = config.tolerance if isinstance(config, PruneConfig) else 0.0
        report = Report.from_results(
            config.model_dump(), popularity, results, config.selection_metric, tolerance
        )
        self._folder.write_report(report)
        return report


def _choose_device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; take auto or cpu")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)
