"""The round loop of one seed: train, mask, rewind, retrain."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from pyg_lth import criteria, seeding
from pyg_lth.analysis import Analyst
from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.evaluation import Evaluator, popularity_embedding
from pyg_lth.gradients import loss_gradient
from pyg_lth.masks import Budget, Mask, budgets
from pyg_lth.methods import METHODS, Method
from pyg_lth.regrowth import Regrowth
from pyg_lth.report import Popularity, Report, RoundResult
from pyg_lth.runs import RunFolder, Stage
from pyg_lth.splits import InteractionSplit
from pyg_lth.statistics import compare
from pyg_lth.thresholds import ThresholdSearch
from pyg_lth.training import EpochRecord, Training, Workbench


class Callback:
    """What a caller may want to hear of a search; every method does nothing unless overridden.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> class Printer(pyg_lth.Callback):
        ...     def on_round_end(self, result):
        ...         print(f"round {result.round} keeps {result.density:.1%}")
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.PruneConfig(model="mf", dim=8, max_epochs=5, rounds=2)
        >>> report = pyg_lth.find_tickets(data, config, callback=Printer())
        round 0 keeps 100.0%
        round 1 keeps 90.0%
        round 2 keeps 81.0%
    """

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """The graph is ready and the run claimed; of several seeds, comes once for each."""

    def on_popularity(self, popularity: Popularity) -> None:
        """The popularity ranking was evaluated."""

    def on_scout_start(self, training: Training, mask: Mask) -> None:
        """A training begins, or continues, that only finds the mask of the round to come."""

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """A round begins, or continues where it was left; ``training.progress`` moves with it."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""

    def on_round_end(self, result: RoundResult) -> None:
        """A round ended, or had ended before the run was resumed."""


class OutOfReach(Exception):
    """A method has no mask of the density that the next round asks for."""


class Found(NamedTuple):
    """The mask of a round and where it comes from.

    Args:
        mask: The mask.
        trained: The table that it was read from, shape ``[num_nodes, dim]``.
        seconds: Time of the trainings that it took to find, in seconds.
    """

    mask: Mask
    trained: Tensor
    seconds: float


class Rounds:
    """A search of one seed on its way through the rounds.

    Args:
        bench: What its trainings share.
        folder: Keeps the run.
        masks: Folder of another run whose masks to train under, :obj:`None` to find them.
        callback: Hears of the progress.
        checkpoint_seconds: Time between two savings of the training in progress, in seconds.
        interrupted: Says whether to save and stop.
    """

    def __init__(
        self,
        bench: Workbench,
        folder: RunFolder,
        masks: RunFolder | None,
        callback: Callback,
        checkpoint_seconds: float,
        interrupted: Callable[[], bool],
    ):
        self._bench = bench
        self._config = bench.config
        self._folder = folder
        self._masks = masks
        self._callback = callback
        self._checkpoint_seconds = checkpoint_seconds
        self._interrupted = interrupted
        self._evaluate_test = (
            bench.evaluator
            if self._config.select_on == "test"
            else Evaluator(bench.split, "test", self._config.topk)
        )
        self._analyse = Analyst(bench.split, self._evaluate_test)

    def run(self) -> Report:
        """Run the rounds that are not done yet."""
        self._callback.on_start(self._config, self._bench.split)
        initial = self._folder.read_initial()
        if initial is None:
            initial = self._bench.initialize()
            self._folder.write_initial(initial)
        self._initial = initial
        self._popularity = self._rank_by_popularity()
        self._callback.on_popularity(self._popularity)
        self._results = self._folder.read_results()
        self._epochs = self._folder.read_epochs(len(self._results))
        for result in self._results:
            self._callback.on_round_end(result)
        rounds = self._config.rounds if isinstance(self._config, PruneConfig) else 0
        self._ended = self._folder.read_ended()
        for round in range(len(self._results), rounds + 1):
            if self._ended is not None:
                break
            try:
                self._results.append(self._run_round(round))
            except OutOfReach as reason:
                self._ended = str(reason)
            else:
                self._callback.on_round_end(self._results[-1])
            self._publish()
        self._folder.tidy()
        # Once more, for a run that ended between its last round and the report.
        return self._publish()

    def _rank_by_popularity(self) -> Popularity:
        embedding = popularity_embedding(self._bench.split)
        valid = self._bench.evaluator(embedding) if self._config.select_on == "valid" else None
        return Popularity(valid=valid, test=self._evaluate_test(embedding))

    def _run_round(self, round: int) -> RoundResult:
        training, before = self._prepare(round)
        self._train(training, "training", self._keep_what_survivors_restart_from)
        ranked = self._evaluate_test.rank(training.best_embedding())
        test = self._evaluate_test.per_user(ranked)
        seconds = sum(record.seconds for record in training.progress.history)
        result = RoundResult(
            round=round,
            density=training.best_mask.density,
            remaining=training.best_mask.remaining,
            epochs=training.progress.epoch,
            best_epoch=training.progress.best_epoch,
            seconds=seconds,
            cost_seconds=before + seconds,
            valid=training.best_metrics if self._config.select_on == "valid" else None,
            test={name: float(value.mean()) for name, value in test.items()},
            **({} if round == 0 else self._against_dense(training, test)),
            analysis=self._analyse(training.best_mask, ranked),
        )
        self._epochs += training.progress.history
        self._folder.write_epochs(self._epochs)
        users = {"user": self._evaluate_test.users, **test}
        self._folder.write_round(result, training.best_mask, training.best_weight, users)
        return result

    def _prepare(self, round: int) -> tuple[Training, float]:
        """Return the training of a round, and the seconds that it took to find its mask."""
        config, initial = self._config, self._initial
        if round == 0 or not isinstance(config, PruneConfig):
            return Training(self._bench, initial, Mask.ones(*initial.shape), round), 0.0
        method = METHODS[config.method]
        found = self._find_mask(config, method, round)
        source = seeding.generator(config.seed, "rewinding", round)
        training = Training(
            self._bench,
            method.rewind(self._restart(config), found.trained, source),
            found.mask,
            round,
            epochs_before=sum(int(r.best_epoch) for r in self._results)
            if method.rate_goes_on
            else 0,
            remask=Regrowth(self._bench, round, self._budgets(config, round))
            if method.regrows
            else None,
        )
        return training, found.seconds

    def _restart(self, config: PruneConfig) -> Tensor:
        """θ₀, or what became of it in the epochs of the dense round before late rewinding's."""
        return self._folder.read_late() if config.rewind_epoch else self._initial

    def _budgets(self, config: PruneConfig, round: int) -> list[Budget]:
        users, shape = self._bench.split.num_users, self._initial.shape
        return budgets(config.scope, users, shape, config.amount, round)

    def _find_mask(self, config: PruneConfig, method: Method, round: int) -> Found:
        if self._masks is not None:
            cost = self._masks.read_results()[round].cost_seconds
            return Found(
                self._masks.read_round(round)[0], self._folder.read_round(round - 1)[1], cost
            )
        mask, table, seconds = self._evidence(config, method, round)

        def gradient(weight: Tensor) -> Tensor:
            source = seeding.generator(config.seed, "gradient", round, device=self._bench.device)
            return loss_gradient(self._bench, weight, source).cpu()

        source = seeding.generator(config.seed, "criterion", round)
        scores = method.criterion(table, source, gradient)
        return Found(criteria.prune(scores, mask, self._budgets(config, round)), table, seconds)

    def _evidence(self, config: PruneConfig, method: Method, round: int) -> Found:
        """The mask and table that are pruned to the density of a round."""
        ones = Mask.ones(*self._initial.shape)
        if method.evidence == "initial":
            return Found(ones, self._initial, 0.0)
        if method.evidence == "thresholds":
            return Found(ones, *self._learn_thresholds(config, round))
        source = 0 if method.evidence == "dense" else round - 1
        mask, trained = self._folder.read_round(source)
        if method.evidence == "rewound" and source > 0:
            return Found(mask, *self._retrain_rewound(config, mask, source))
        return Found(mask, trained, self._results[source].cost_seconds)

    def _retrain_rewound(self, config: PruneConfig, mask: Mask, round: int) -> tuple[Tensor, float]:
        """Train a finished round as ``imp`` does, and return its table and what it cost."""
        folder = self._folder
        if not folder.has_scout(round):
            earlier = (
                folder.read_scout(round - 1)[1] if round > 1 else self._results[0].cost_seconds
            )
            training = Training(self._bench, self._restart(config), mask, round)
            self._train(training, "scout")
            seconds = sum(record.seconds for record in training.progress.history)
            folder.write_scout(round, training.best_weight, earlier + seconds)
        return folder.read_scout(round)

    def _learn_thresholds(self, config: PruneConfig, round: int) -> tuple[Tensor, float]:
        """Return how far entries lay above learned thresholds when few enough did for a round."""
        if not self._folder.has_scout(round):
            search = ThresholdSearch(self._bench, self._initial)
            self._train(search, "scout", self._keep_margins)
        if not self._folder.has_scout(round):
            raise OutOfReach(f"the learned thresholds reached no density below round {round - 1}'s")
        return self._folder.read_scout(round)

    def _keep_margins(self, search: Training) -> None:
        """Keep the margins for every round whose density the thresholds have reached."""
        config = self._config
        assert isinstance(search, ThresholdSearch) and isinstance(config, PruneConfig)
        margin = search.margin()
        seconds = sum(record.seconds for record in search.progress.history)
        for round in range(1, config.rounds + 1):
            if self._folder.has_scout(round):
                continue
            for budget in self._budgets(config, round):
                if (margin[budget.rows] > 0).sum() > budget.keep:
                    return
            self._folder.write_scout(round, margin, seconds)
        search.progress.finished = True

    def _train(
        self,
        training: Training,
        stage: Stage,
        after_epoch: Callable[[Training], None] = lambda training: None,
    ) -> None:
        self._folder.restore_state(training, stage)
        callback = self._callback
        begin = callback.on_scout_start if stage == "scout" else callback.on_round_start
        begin(training, training.mask)
        self._last_checkpoint = time.monotonic()

        def on_epoch(record: EpochRecord) -> None:
            after_epoch(training)
            callback.on_epoch(record)

        training.run(on_epoch, lambda: self._after_step(training, stage))

    def _keep_what_survivors_restart_from(self, training: Training) -> None:
        config, progress = self._config, training.progress
        late = isinstance(config, PruneConfig) and progress.epoch == config.rewind_epoch
        if late and progress.round == 0:
            self._folder.write_late(training.model.embedding.weight.detach())

    def _after_step(self, training: Training, stage: Stage) -> None:
        interrupted = self._interrupted()
        if interrupted or time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds:
            if stage == "training":
                self._folder.write_epochs([*self._epochs, *training.progress.history])
            self._folder.write_state(training, stage)
            self._last_checkpoint = time.monotonic()
        if interrupted:
            raise KeyboardInterrupt

    def _against_dense(self, training: Training, test: dict[str, Tensor]) -> dict[str, Any]:
        """How a ticket compares with the dense model: over the users, and how soon."""
        config, dense = self._config, self._results[0]
        assert isinstance(config, PruneConfig)
        metric = config.selection_metric
        best = (dense.valid or dense.test)[metric]
        evaluated = ((r.epoch, getattr(r, config.select_on)) for r in training.progress.history)
        reached = (epoch for epoch, found in evaluated if found and found[metric] >= best)
        users = self._folder.read_users(0)[metric], test[metric].cpu()
        of_dense, of_ticket = (value.unsqueeze(0).numpy() for value in users)
        return {
            "epochs_to_dense": next(reached, None),
            "difference": compare(of_ticket, of_dense, config.tolerance, config.seed),
        }

    def _publish(self) -> Report:
        config, groups = self._config.model_dump(), self._analyse.groups
        report = Report.of_seed(config, groups, self._popularity, self._results, self._ended)
        self._folder.write_report(report)
        return report
