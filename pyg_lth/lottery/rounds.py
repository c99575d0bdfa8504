"""The round loop of one seed: train, mask, rewind, retrain."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyg_lth import seeding
from pyg_lth.config import PruneConfig, completed
from pyg_lth.evaluation.beyond_accuracy import BeyondAccuracy
from pyg_lth.evaluation.degree_groups import Analyst
from pyg_lth.evaluation.evaluator import Evaluator, popularity_embedding
from pyg_lth.evaluation.significance import paired_difference
from pyg_lth.lottery.callbacks import Callback
from pyg_lth.lottery.dynamic import Regrowth
from pyg_lth.lottery.evidence import AfterEpoch, Found, OutOfReach, Search
from pyg_lth.lottery.gradients import loss_gradient
from pyg_lth.lottery.methods import METHODS, Method
from pyg_lth.lottery.other_runs import taught
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning import criteria, selection
from pyg_lth.pruning.masks import ColumnsOfMask, Mask
from pyg_lth.results.report import Popularity, Report, RoundResult
from pyg_lth.results.run_folder import RunFolder, Stage
from pyg_lth.training.problem import Problem
from pyg_lth.training.progress import EpochRecord
from pyg_lth.training.trainer import Training

# What may be wanted after a step, the more the higher.
SAVE, STOP = 1, 2


class Rounds:
    """A search of one seed on its way through the rounds.

    Args:
        problem: What its trainings share.
        folder: Keeps the run.
        masks: Folder of another run whose masks to train under, :obj:`None` to find them.
        teacher: Folder of another run that ``problem`` is taught by, if one is.
        callback: Hears of the progress.
        checkpoint_seconds: Time between two savings of the training in progress, in seconds.
        interrupted: Says whether to save and stop.
    """

    def __init__(
        self,
        problem: Problem,
        folder: RunFolder,
        masks: RunFolder | None,
        teacher: RunFolder | None,
        callback: Callback,
        checkpoint_seconds: float,
        interrupted: Callable[[], bool],
    ):
        self._problem = problem
        self._config = problem.config
        self._folder = folder
        self._masks = masks
        self._teacher = teacher
        self._callback = callback
        self._published = 0
        self._checkpoint_seconds = checkpoint_seconds
        self._interrupted = interrupted
        self._evaluate_test = (
            problem.evaluator
            if self._config.select_on == "test"
            else Evaluator(problem.split, "test", self._config.topk, problem.workers)
        )
        self._analyse = Analyst(problem.split, self._evaluate_test, problem.workers)
        self._look_beyond = BeyondAccuracy(
            problem.split, self._evaluate_test, self._config.topk, problem.workers
        )

    def run(self) -> Report:
        """Run the rounds that are not done yet."""
        self._callback.on_start(self._config, self._problem.split)
        initial = self._folder.read_initial()
        if initial is None:
            initial = self._problem.initialize()
            self._folder.write_initial(initial)
        self._initial = initial
        self._popularity = self._rank_by_popularity()
        self._callback.on_popularity(self._popularity)
        self._results: list[RoundResult] = []
        rounds = self._config.rounds if isinstance(self._config, PruneConfig) else 0
        self._search = self._begin_search()
        self._ended = self._folder.read_ended()
        done = [self._folder.read_result(round) for round in range(rounds + 1)]
        # What is known of the epochs before, until the first training here begins.
        self._epochs: list[EpochRecord] | None = [
            record
            for record in self._folder.read_epochs(rounds + 1)
            if done[record.round] is not None
        ]
        for round, kept in enumerate(done):
            if kept is None and self._ended is not None:
                break
            try:
                self._results.append(kept or self._run_round(round))
            except OutOfReach as reason:
                self._ended = str(reason)
            else:
                self._callback.on_round_end(self._results[-1])
            if kept is not None:
                continue
            if _is_worth_a_report(len(self._results), self._published):
                self._publish()
        if None in done[: len(self._results)]:
            # A round that was done again comes before those that were kept.
            records = self._folder.read_epochs(rounds + 1)
            self._folder.write_epochs(sorted(records, key=lambda r: (r.round, r.epoch)))
        self._folder.tidy()
        return self._publish()

    def refit(self, rounds: Sequence[int]) -> list[RoundResult]:
        """Train finished rounds once more, on train and validation, and report them on test.

        They train for as many epochs as validation chose, from where they started then. What is
        done already is not done again.
        """
        folder = self._folder.of_refit()
        done = {round: folder.read_result(round) for round in rounds}
        if None in done.values():
            problem = taught(self._problem.with_validation(), self._teacher, refit=True)
        found = [result or self._refit(round, problem, folder) for round, result in done.items()]
        folder.tidy()
        return found

    def _refit(self, round: int, problem: Problem, folder: RunFolder) -> RoundResult:
        epochs = int(self._results[round].best_epoch)
        training, _ = self._prepare(round, problem, folder, epochs)
        begin = self._callback.on_refit_start
        self._train(training, begin, lambda training: None, "training", folder)
        evaluator = problem.evaluator
        test = evaluator.per_user(evaluator.rank(training.best_embedding()))
        seconds = training.progress.total_seconds
        result = RoundResult(
            round=round,
            density=training.best_mask.density,
            remaining=training.best_mask.remaining,
            epochs=epochs,
            best_epoch=epochs,
            seconds=seconds,
            cost_seconds=seconds,
            valid=None,
            test={name: float(value.mean()) for name, value in test.items()},
        )
        users = {"user": evaluator.users, **test}
        folder.write_round(result, training.best_mask, training.best_weights, users)
        self._callback.on_refit_end(result)
        return result

    def _begin_search(self) -> Search | None:
        """The search that methods read their evidence from; a dense training has none."""
        if not isinstance(self._config, PruneConfig):
            return None
        return Search(
            self._config,
            self._problem,
            self._folder,
            self._initial,
            self._results,
            self._train_for_mask,
        )

    def _rank_by_popularity(self) -> Popularity:
        embedding = popularity_embedding(self._problem.split)
        embedding = embedding[:, self._problem.workers.share(embedding.size(1))]
        valid = self._problem.evaluator(embedding) if self._config.select_on == "valid" else None
        return Popularity(valid=valid, test=self._evaluate_test(embedding))

    def _run_round(self, round: int) -> RoundResult:
        training, before = self._prepare(round, self._problem, self._folder)
        self._train(
            training,
            self._callback.on_round_start,
            self._keep_what_survivors_restart_from,
            "training",
            self._folder,
        )
        ranked = self._evaluate_test.rank(training.best_embedding())
        test = self._evaluate_test.per_user(ranked)
        seconds = training.progress.total_seconds
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
            beyond=self._look_beyond(ranked),
            analysis=self._analyse(training.best_mask, ranked),
        )
        self._note_epochs(training)
        users = {"user": self._evaluate_test.users, **test}
        self._folder.write_round(result, training.best_mask, training.best_weights, users)
        return result

    def _prepare(
        self, round: int, problem: Problem, folder: RunFolder, epochs: int | None = None
    ) -> tuple[Training, float]:
        """Return the training of a round, and the seconds that it took to find its mask.

        Where tickets learn from their dense model too, it is that which ``folder`` has.
        """
        search, initial = self._search, self._initial
        if round == 0 or search is None:
            ones = ColumnsOfMask.of(Mask.ones(*initial[TABLE].shape), problem.workers)
            return Training(problem, initial, ones, round, epochs=epochs), 0.0
        method = METHODS[search.config.method]
        found = self._find_mask(search, method, round)
        source = seeding.generator(search.config.seed, "rewinding", round)
        # What a backbone has beside its table goes where the table goes.
        trained = {**self._folder.read_weights(round - 1), TABLE: found.trained}
        restart = search.restart()
        if found.initial is not None:
            restart = {**restart, TABLE: found.initial}
        start = {
            name: method.rewind(value, trained[name], source)
            for name, value in sorted(restart.items())
        }
        if search.config.distill and self._teacher is None:
            problem = problem.taught_by(folder.read_weights(0))
        training = Training(
            problem,
            start,
            ColumnsOfMask.of(found.mask, problem.workers),
            round,
            epochs_before=sum(int(r.best_epoch) for r in self._results[:round])
            if method.rate_goes_on
            else 0,
            remask=Regrowth(problem, round, search.budgets(round)) if method.regrows else None,
            epochs=epochs,
        )
        return training, found.seconds

    def _find_mask(self, search: Search, method: Method, round: int) -> Found:
        if self._masks is not None:
            cost = self._masks.read_results()[round].cost_seconds
            return Found(
                self._masks.read_round(round)[0], self._folder.read_round(round - 1)[1], cost
            )
        found = method.evidence(search, round)
        table = found.trained
        seed = search.config.seed

        def gradient(weight: Tensor) -> Tensor:
            source = seeding.generator(seed, "gradient", round, device=self._problem.device)
            weights = {**self._initial, TABLE: weight}
            return loss_gradient(self._problem, weights, source).cpu()

        source = seeding.generator(seed, "criterion", round)
        if method.criterion is not criteria.given:
            table = self._problem.as_weighed(table)
        scores = method.criterion(table, source, gradient)
        workers = self._problem.workers
        mask = selection.prune(scores, found.mask, search.budgets(round), workers)
        return found._replace(mask=mask)

    def _train_for_mask(self, training: Training, after_epoch: AfterEpoch) -> None:
        begin = self._callback.on_auxiliary_start
        self._train(training, begin, after_epoch, "auxiliary", self._folder)

    def _train(
        self,
        training: Training,
        begin: Callable[[Training, Mask], None],
        after_epoch: AfterEpoch,
        stage: Stage,
        folder: RunFolder,
    ) -> None:
        folder.restore_state(training, stage)
        if stage == "training" and folder is self._folder:
            self._noted = len(training.progress.history)
            if self._epochs is not None:
                # A process that was killed may have noted more than it kept of the training.
                folder.write_epochs([*self._epochs, *training.progress.history])
                self._epochs = None
        begin(training, training.mask)
        self._last_checkpoint = time.monotonic()

        def on_epoch(record: EpochRecord) -> None:
            after_epoch(training)
            self._callback.on_epoch(record)

        training.run(on_epoch, lambda: self._after_step(training, stage, folder))

    def _note_epochs(self, training: Training) -> None:
        self._folder.add_epochs(training.progress.history[self._noted :])
        self._noted = len(training.progress.history)

    def _keep_what_survivors_restart_from(self, training: Training) -> None:
        config, progress = self._config, training.progress
        late = isinstance(config, PruneConfig) and progress.epoch == config.rewind_epoch
        if late and progress.round == 0:
            self._folder.write_late(training.weights())

    def _after_step(self, training: Training, stage: Stage, folder: RunFolder) -> None:
        due = time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds
        # Several workers save and stop after the same step.
        wanted = self._problem.workers.most(STOP if self._interrupted() else SAVE if due else 0)
        if wanted:
            if stage == "training" and folder is self._folder:
                self._note_epochs(training)
            folder.write_state(training, stage)
            self._last_checkpoint = time.monotonic()
        if wanted == STOP:
            raise KeyboardInterrupt

    def _against_dense(self, training: Training, test: dict[str, Tensor]) -> dict[str, Any]:
        """How a ticket compares with the dense model: over the users, and how soon."""
        config, dense = self._config, self._results[0]
        assert isinstance(config, PruneConfig)
        metric = config.select_by
        best = (dense.valid or dense.test)[metric]
        evaluated = ((r.epoch, getattr(r, config.select_on)) for r in training.progress.history)
        reached = (epoch for epoch, found in evaluated if found and found[metric] >= best)
        users = self._folder.read_users(0)[metric], test[metric].cpu()
        of_dense, of_ticket = (value.unsqueeze(0).numpy() for value in users)
        return {
            "epochs_to_dense": next(reached, None),
            "difference": paired_difference(of_ticket, of_dense, config.tolerance, config.seed),
        }

    def _publish(self) -> Report:
        config, groups = completed(self._folder.read_config()), self._analyse.groups
        report = Report.of_seed(config, groups, self._popularity, self._results, self._ended)
        self._folder.write_report(report)
        self._published = len(self._results)
        return report


def _is_worth_a_report(rounds: int, published: int) -> bool:
    """Whether to write a report: of ever more rounds ever less often, for it holds them all."""
    return rounds <= 32 or rounds >= 1.25 * published
