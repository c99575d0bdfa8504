"""What a search found, as data."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from pyg_lth.config import SplitName
from pyg_lth.errors import encodable
from pyg_lth.evaluation.degree_groups import Analysis, Groups
from pyg_lth.evaluation.evaluator import Metrics
from pyg_lth.evaluation.significance import Difference, holds, holm, judge
from pyg_lth.strategies import guests_in

if TYPE_CHECKING:
    import pandas as pd


def _encodable(config: Any) -> Any:
    """Settings that any file can hold: a path may be of bytes that are no text."""
    if not isinstance(config, dict):
        return config
    return {key: encodable(v) if isinstance(v, str) else v for key, v in config.items()}


class RoundResult(BaseModel):
    """What one round came to; over several seeds, the means.

    Args:
        round: Round of the search; 0 is the dense model.
        density: Share of living entries, in [0, 1].
        remaining: Number of living entries.
        epochs: Epochs trained.
        best_epoch: Epoch of the evaluation whose state was kept, the paper's j (dense) or j'.
        seconds: Time of the training, evaluation included, in seconds.
        cost_seconds: Time of all trainings that it takes to get here from nothing, in seconds.
        valid: Metrics on validation at ``best_epoch``; :obj:`None` where test chose the epoch.
        test: Metrics on test at ``best_epoch``.
        test_sd: Their standard deviations over seeds; :obj:`None` for one seed.
        epochs_to_dense: Epoch of the first evaluation at least as good as the dense model's best,
            on the split that chooses epochs; :obj:`None` where there was none (in some seed).
        difference: Against the dense model over the users of test; :obj:`None` for round 0.
        beyond: What the lists of test users show, beyond accuracy (see
            :class:`~pyg_lth.evaluation.beyond_accuracy.BeyondAccuracy`); :obj:`None` in a report of
            an older release.
        analysis: Where the living entries are and whom they serve; :obj:`None` over several seeds,
            whose own reports have it.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.TrainConfig(model="mf", dim=8, max_epochs=5, eval_every=1)
        >>> pyg_lth.train(data, config).dense
        RoundResult(round 0, density 100.00%, best epoch ...
    """

    model_config = ConfigDict(frozen=True)

    round: int
    density: float
    remaining: int
    epochs: int | float
    best_epoch: int | float
    seconds: float
    cost_seconds: float
    valid: Metrics | None
    test: Metrics
    test_sd: Metrics | None = None
    epochs_to_dense: int | float | None = None
    difference: Difference | None = None
    beyond: Metrics | None = None
    analysis: Analysis | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(' '.join(pair) for pair in self._in_short())})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from pyg_lth.results import notebook

        names, values = zip(*self._in_short(), strict=True)
        return notebook.table(names, [values])

    def _in_short(self) -> list[tuple[str, str]]:
        """What a reader wants first, as names and values."""
        metrics = [(f"test {name}", f"{value:.4f}") for name, value in self.test.items()]
        return [
            ("round", str(self.round)),
            ("density", f"{self.density:.2%}"),
            ("best epoch", f"{self.best_epoch:g}/{self.epochs:g}"),
            *metrics,
            ("seconds", f"{self.seconds:.1f}"),
        ]


class Ticket(RoundResult):
    """A pruned round, with its verdict against the dense one.

    Args:
        difference: Against the dense model over the users of test.
        p_adjusted: The p-value of ``difference``, adjusted by Holm for the number of rounds.
        wins: See :class:`~pyg_lth.evaluation.significance.Verdict`.
        strict: See :class:`~pyg_lth.evaluation.significance.Verdict`.
    """

    difference: Difference
    p_adjusted: float
    wins: bool
    strict: bool | None

    def _in_short(self) -> list[tuple[str, str]]:
        return [*super()._in_short(), ("wins", "yes" if self.wins else "no")]


class Winner(BaseModel):
    """Which ticket wins at the lowest density."""

    model_config = ConfigDict(frozen=True)

    round: int
    density: float


class Choice(Winner):
    """The ticket that validation chose, and what a single look at test says of it.

    Args:
        p_value: That of its ``difference``. It needs no adjustment, since test chose nothing.
        wins: Whether it wins on test by that p-value.
    """

    p_value: float
    wins: bool


class Popularity(BaseModel):
    """Metrics of ranking every user's items by train popularity."""

    model_config = ConfigDict(frozen=True)

    valid: Metrics | None
    test: Metrics


class Refit(BaseModel):
    """Rounds trained once more on train and validation, for the epochs that validation chose.

    Args:
        dense: The dense model.
        ticket: The winner, with its difference to that; :obj:`None` where there was none.
    """

    model_config = ConfigDict(frozen=True)

    dense: RoundResult
    ticket: RoundResult | None = None

    @classmethod
    def of_seeds(
        cls,
        seeds: Sequence[Sequence[RoundResult]],
        differences: Sequence[Difference | None],
    ) -> "Refit":
        """Average over seeds.

        Args:
            seeds: Of each seed the dense model and the winner, where there is one.
            differences: Of each of these to the dense model.
        """
        rounds = zip(zip(*seeds, strict=True), differences, strict=True)
        return cls(**dict(zip(("dense", "ticket"), (_mean(r, d) for r, d in rounds), strict=False)))


class Report(BaseModel):
    """The result of a search, as it stands in ``report.json`` (design, Section 5).

    Args:
        config: The settings of the run.
        seeds: The seeds that it has results of.
        groups: The degree groups that the analysis refers to; :obj:`None` over several seeds.
        dense: Round 0, the dense model.
        popularity: The ranking that a ticket has to beat.
        rounds: The pruned rounds so far.
        sparsest_winner: The sparsest ticket that wins on test, and so chosen on test; :obj:`None`
            where none does. The one to name is :attr:`winner`.
        sparsest_strict_winner: The same in the strict reading: at no later a best epoch.
        ended: Why the search ended before its last round; :obj:`None` where it did not.
        guests: What the settings name that this package does not bring: method, backbone or loss,
            with its version and where it comes from.
        unconverged_seeds: Those whose dense training was stopped at ``max_epochs`` before its
            patience had run out; :obj:`None` in a report of an older release, which did not say.
        refit: Dense and winner after a training that held nothing out; :obj:`None` where the
            settings did not ask for it, or it is yet to come.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> report = pyg_lth.train(data, pyg_lth.TrainConfig(model="mf", dim=8, max_epochs=5))
        >>> pyg_lth.Report.model_validate_json(report.to_json()) == report
        True
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: int = Field(1, alias="schema")
    config: Annotated[dict[str, Any], BeforeValidator(_encodable)]
    seeds: list[int]
    groups: Groups | None
    dense: RoundResult
    popularity: Popularity
    rounds: list[Ticket]
    sparsest_winner: Winner | None
    sparsest_strict_winner: Winner | None
    ended: str | None = None
    unconverged_seeds: list[int] | None = None
    refit: Refit | None = None
    guests: list[str] = []

    @classmethod
    def of_seed(
        cls,
        config: dict[str, Any],
        groups: Groups,
        popularity: Popularity,
        results: Sequence[RoundResult],
        ended: str | None = None,
    ) -> "Report":
        """Judge the rounds of one seed.

        Args:
            config: The settings of the run.
            groups: What the analysis refers to.
            popularity: Metrics of the popularity ranking.
            results: All rounds so far, the dense one first.
            ended: Why there will be no more before the last round.
        """
        seeds = [config["seed"]]
        unconverged = [] if _converged(config, results[0]) else seeds
        return cls._judged(config, seeds, unconverged, groups, popularity, results, ended)

    @classmethod
    def of_seeds(
        cls,
        config: dict[str, Any],
        reports: Sequence["Report"],
        differences: Sequence[Difference | None],
    ) -> "Report":
        """Judge the means over several seeds, each of whose tickets is paired with its dense model.

        Args:
            config: The settings of the run.
            reports: One of each seed.
            differences: Of each round over all seeds; :obj:`None` for the dense one.
        """
        rounds = zip(*([r.dense, *r.rounds] for r in reports), differences, strict=False)
        results = [_mean(results, difference) for *results, difference in rounds]
        popularity = Popularity(
            valid=_mean_metrics([report.popularity.valid for report in reports]),
            test=_mean_metrics([report.popularity.test for report in reports]),
        )
        seeds = [seed for report in reports for seed in report.seeds]
        ended = next((report.ended for report in reports if report.ended), None)
        unconverged = [seed for report in reports for seed in report.unconverged_seeds or []]
        return cls._judged(config, seeds, unconverged, None, popularity, results, ended)

    @classmethod
    def _judged(
        cls,
        config: dict[str, Any],
        seeds: list[int],
        unconverged: list[int],
        groups: Groups | None,
        popularity: Popularity,
        results: Sequence[RoundResult],
        ended: str | None,
    ) -> "Report":
        metric = _metric(config)
        dense, *pruned = results
        adjusted = holm([r.difference.p_value for r in pruned if r.difference is not None])
        tickets = []
        for result, p_adjusted in zip(pruned, adjusted, strict=True):
            verdict = judge(
                ticket=result.test[metric],
                dense=dense.test[metric],
                popularity=popularity.test[metric],
                tolerance=config.get("tolerance", 0.0),
                ticket_epoch=result.best_epoch,
                dense_epoch=dense.best_epoch,
                num_seeds=len(seeds),
                p_adjusted=p_adjusted,
                dense_converged=not unconverged,
            )
            tickets.append(Ticket(**_found(result), p_adjusted=p_adjusted, **verdict.model_dump()))
        return cls(
            config=config,
            guests=[str(guest) for guest in guests_in(config)],
            seeds=seeds,
            groups=groups,
            dense=dense,
            popularity=popularity,
            rounds=tickets,
            sparsest_winner=_sparsest(ticket for ticket in tickets if ticket.wins),
            sparsest_strict_winner=_sparsest(ticket for ticket in tickets if ticket.strict),
            ended=ended,
            unconverged_seeds=unconverged,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def dense_converged(self) -> bool:
        """Whether the dense model stopped by itself, under every seed.

        Where it did not, a later epoch may be better, so no verdict is strict.
        """
        if self.unconverged_seeds is None:
            return _converged(self.config, self.dense, len(self.seeds))
        return not self.unconverged_seeds

    @computed_field  # type: ignore[prop-decorator]
    @property
    def winner_by_validation(self) -> Choice | None:
        """The sparsest ticket that holds on validation, held against test once.

        It holds where its metric on validation is at least the dense model's there less the
        tolerance, and above popularity's: with several seeds, their means. :obj:`None` where none
        does, or there is no validation part.
        """
        return self._choose(self._held())

    @computed_field  # type: ignore[prop-decorator]
    @property
    def strict_winner_by_validation(self) -> Choice | None:
        """The same among the tickets whose best epoch came no later than the dense model's."""
        if not self.dense_converged:
            return None
        return self._choose(t for t in self._held() if t.best_epoch <= self.dense.best_epoch)

    @property
    def chosen_on(self) -> SplitName:
        """The part that names the winner: validation where there is one."""
        by_validation = self.config["select_on"] == "valid" and self.dense.valid is not None
        return "valid" if by_validation else "test"

    @property
    def winner(self) -> Winner | None:
        """The winner to name: the one that validation chose, if it wins on test too.

        Where there is no validation part, the sparsest that wins on test.
        """
        if self.chosen_on == "test":
            return self.sparsest_winner
        return _named(self.winner_by_validation)

    @property
    def strict_winner(self) -> Winner | None:
        """The same in the strict reading."""
        if self.chosen_on == "test":
            return self.sparsest_strict_winner if self.dense_converged else None
        return _named(self.strict_winner_by_validation)

    def _held(self) -> Iterator[Ticket]:
        """The tickets that hold on validation."""
        dense, popularity = self.dense.valid, self.popularity.valid
        if self.chosen_on == "test" or dense is None or popularity is None:
            return
        of_dense, of_popularity = dense[self.metric], popularity[self.metric]
        for ticket in self.rounds:
            if ticket.valid is not None and holds(
                ticket.valid[self.metric], of_dense, of_popularity, self.config["tolerance"]
            ):
                yield ticket

    def _choose(self, tickets: Iterable[Ticket]) -> Choice | None:
        """The sparsest of some tickets, and whether it wins on test."""
        ticket = min(tickets, key=lambda ticket: ticket.remaining, default=None)
        if ticket is None:
            return None
        p_value = ticket.difference.p_value
        verdict = judge(
            ticket=ticket.test[self.metric],
            dense=self.dense.test[self.metric],
            popularity=self.popularity.test[self.metric],
            tolerance=self.config["tolerance"],
            ticket_epoch=ticket.best_epoch,
            dense_epoch=self.dense.best_epoch,
            num_seeds=len(self.seeds),
            p_adjusted=p_value,
            dense_converged=self.dense_converged,
        )
        return Choice(
            round=ticket.round, density=ticket.density, p_value=p_value, wins=verdict.wins
        )

    def ticket(self, winner: Winner) -> Ticket:
        """The ticket that a winner is."""
        return next(ticket for ticket in self.rounds if ticket.round == winner.round)

    @property
    def metric(self) -> str:
        """Key of the metric that decides."""
        return _metric(self.config)

    def to_json(self) -> str:
        """The text of ``report.json``."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def to_frame(self) -> "pd.DataFrame":
        """A table of pandas with a row for each round, the dense one first.

        The columns are the fields of :class:`RoundResult` and :class:`Ticket` but the analysis,
        with metrics as ``valid_recall`` and ``test_recall`` and the difference to the dense model
        as ``relative``, ``low``, ``high`` and ``p_value``.
        """
        from pyg_lth.results.frames import report_frame

        return report_frame(self)

    def __repr__(self) -> str:
        config, winner = self.config, self.winner
        what = [str(config[name]) for name in ("model", "method") if name in config]
        found = (
            "no winner"
            if winner is None
            else f"the winner is round {winner.round} at density {winner.density:.2%}"
        )
        rounds = f"{len(self.rounds)} of {config.get('rounds', 0)} rounds"
        return f"Report({' '.join(what)}, seeds {self.seeds}: {rounds}, {found})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from pyg_lth.results import notebook, text

        return (
            notebook.paragraph(text.title(self))
            + notebook.paragraph(text.conclusion(self), strong=True)
            + notebook.table(text.COLUMNS, text.table_rows(self))
            + notebook.paragraph(text.caption(self))
        )


def _found(result: RoundResult) -> dict[str, Any]:
    """What a round came to, without the verdict that an earlier report gave it."""
    return {name: getattr(result, name) for name in RoundResult.model_fields}


def _metric(config: dict[str, Any]) -> str:
    """Runs of versions that had no choice were decided by recall."""
    metric: str = config.get("select_by", f"recall@{config['topk']}")
    return metric


def _named(choice: Choice | None) -> Winner | None:
    return None if choice is None or not choice.wins else choice


def _converged(config: dict[str, Any], dense: RoundResult, num_seeds: int = 1) -> bool:
    """Whether a dense training stopped by itself: it was no better for as long as it may be.

    The means of several seeds tell that one was stopped early by the mean time that they waited.
    """
    waited = dense.epochs - dense.best_epoch
    stopped_early = num_seeds > 1 or dense.epochs >= config["max_epochs"]
    return not stopped_early or waited > config["patience"] * config["eval_every"] - 1e-6


def _sparsest(tickets: Iterable[Ticket]) -> Winner | None:
    winner = min(tickets, key=lambda ticket: ticket.remaining, default=None)
    if winner is None:
        return None
    return Winner(round=winner.round, density=winner.density)


def _mean(results: Sequence[RoundResult], difference: Difference | None) -> RoundResult:
    """The means over seeds of one round."""

    def mean(name: str) -> float:
        return fmean(getattr(result, name) for result in results)

    tests = [result.test for result in results]
    reached = [r.epochs_to_dense for r in results if r.epochs_to_dense is not None]
    return RoundResult(
        round=results[0].round,
        density=mean("density"),
        remaining=round(mean("remaining")),
        epochs=mean("epochs"),
        best_epoch=mean("best_epoch"),
        seconds=mean("seconds"),
        cost_seconds=mean("cost_seconds"),
        valid=_mean_metrics([result.valid for result in results]),
        test={name: fmean(test[name] for test in tests) for name in tests[0]},
        test_sd={name: stdev(test[name] for test in tests) for name in tests[0]}
        if len(tests) > 1
        else None,
        epochs_to_dense=fmean(reached) if len(reached) == len(results) else None,
        difference=difference,
        beyond=_mean_metrics([result.beyond for result in results]),
    )


def _mean_metrics(metrics: Sequence[Metrics | None]) -> Metrics | None:
    """The means of the metrics that all seeds have."""
    whole = [value for value in metrics if value is not None]
    if len(whole) < len(metrics):
        return None
    shared = [name for name in whole[0] if all(name in value for value in whole)]
    return {name: fmean(value[name] for value in whole) for name in shared}
