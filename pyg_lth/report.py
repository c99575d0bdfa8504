"""What a search found: the report, and its table as rows of text."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pyg_lth.evaluation import Metrics
from pyg_lth.statistics import judge


class RoundResult(BaseModel):
    """What one round came to.

    Args:
        round: Round of the search; 0 is the dense model.
        density: Share of living entries, in [0, 1].
        remaining: Number of living entries.
        epochs: Epochs trained.
        best_epoch: Epoch of the evaluation whose state was kept.
        seconds: Time of the training, evaluation included, in seconds.
        valid: Metrics on validation at ``best_epoch``; :obj:`None` where test chose the epoch.
        test: Metrics on test at ``best_epoch``.
    """

    model_config = ConfigDict(frozen=True)

    round: int
    density: float
    remaining: int
    epochs: int
    best_epoch: int
    seconds: float
    valid: Metrics | None
    test: Metrics


class Ticket(RoundResult):
    """A pruned round, with its verdict against the dense one.

    Args:
        wins: See :class:`~pyg_lth.statistics.Verdict`.
        strict: See :class:`~pyg_lth.statistics.Verdict`.
    """

    wins: bool
    strict: bool


class SparsestWinner(BaseModel):
    """The ticket of lowest density that wins."""

    model_config = ConfigDict(frozen=True)

    round: int
    density: float


class Popularity(BaseModel):
    """Metrics of ranking every user's items by train popularity."""

    model_config = ConfigDict(frozen=True)

    valid: Metrics | None
    test: Metrics


class Report(BaseModel):
    """The result of a search, as it stands in ``report.json`` (design, Section 5).

    Args:
        config: The settings of the run.
        dense: Round 0, the dense model.
        popularity: The ranking that a ticket has to beat.
        rounds: The pruned rounds so far.
        sparsest_winner: :obj:`None` where no ticket wins.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: int = Field(1, alias="schema")
    config: dict[str, Any]
    dense: RoundResult
    popularity: Popularity
    rounds: list[Ticket]
    sparsest_winner: SparsestWinner | None

    @classmethod
    def from_results(
        cls,
        config: dict[str, Any],
        popularity: Popularity,
        results: list[RoundResult],
        metric: str,
        tolerance: float,
    ) -> "Report":
        """Judge the rounds and name the sparsest winner.

        Args:
            config: The settings of the run.
            popularity: Metrics of the popularity ranking.
            results: All rounds, the dense one first.
            metric: Key of the metric that decides.
            tolerance: Relative loss at which a ticket still wins.
        """
        dense, *pruned = results
        rounds = []
        for result in pruned:
            verdict = judge(
                result.test,
                result.best_epoch,
                dense.test,
                dense.best_epoch,
                popularity.test,
                metric,
                tolerance,
            )
            rounds.append(Ticket(**result.model_dump(), **verdict.model_dump()))
        winner = min((t for t in rounds if t.wins), key=lambda t: t.remaining, default=None)
        return cls(
            config=config,
            dense=dense,
            popularity=popularity,
            rounds=rounds,
            sparsest_winner=winner and SparsestWinner(round=winner.round, density=winner.density),
        )

    def to_json(self) -> str:
        """The text of ``report.json``."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


COLUMNS = (
    "round",
    "density",
    "remaining",
    "epochs",
    "recall",
    "vs dense",
    "ndcg",
    "seconds",
    "wins",
)


def table_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells of the report's table, under :data:`COLUMNS`: popularity, dense, then the tickets.

    Metrics are those on test, at K; *epochs* shows the best one of those trained.
    """
    k = report.config["topk"]
    recall, ndcg = f"recall@{k}", f"ndcg@{k}"
    dense = report.dense

    def change(test: Metrics) -> str:
        if dense.test[recall] == 0:
            return ""
        return f"{test[recall] / dense.test[recall] - 1:+.1%}"

    def cells(name: str, result: RoundResult, delta: str, verdict: str) -> tuple[str, ...]:
        return (
            name,
            f"{result.density:.2%}",
            f"{result.remaining:,}",
            f"{result.best_epoch}/{result.epochs}",
            f"{result.test[recall]:.4f}",
            delta,
            f"{result.test[ndcg]:.4f}",
            f"{result.seconds:.1f}",
            verdict,
        )

    test = report.popularity.test
    rows: list[tuple[str, ...]] = [
        ("popular", "", "", "", f"{test[recall]:.4f}", change(test), f"{test[ndcg]:.4f}", "", ""),
        cells("dense", dense, "", ""),
    ]
    for ticket in report.rounds:
        verdict = "strict" if ticket.strict else "yes" if ticket.wins else "no"
        rows.append(cells(str(ticket.round), ticket, change(ticket.test), verdict))
    return rows


def caption(report: Report) -> str:
    """The sentence under the table: how epochs were chosen, and what the columns mean."""
    k, tolerance = report.config["topk"], report.config.get("tolerance")
    if report.config["select_on"] == "test":
        chosen = "Epochs and masks were SELECTED ON TEST (the authors' protocol): optimistic."
    else:
        chosen = "Epochs and masks were chosen on validation; test is only reported."
    text = f"{chosen} Recall and NDCG at {k}, on test."
    if report.rounds:
        text += (
            f" A ticket wins when its recall is at least the dense one's (tolerance {tolerance:g})"
            " and beats popularity; strict: at no later a best epoch. One seed, no interval."
        )
    return text


def conclusion(report: Report) -> str:
    """The one sentence that a reader wants first."""
    planned = report.config.get("rounds", 0)
    if not planned:
        return "Dense training only: there are no tickets to judge."
    unfinished = (
        f" ({len(report.rounds)} of {planned} rounds so far)"
        if len(report.rounds) < planned
        else ""
    )
    winner = report.sparsest_winner
    if winner is None:
        return f"No ticket wins{unfinished}."
    return (
        f"Sparsest winning ticket: round {winner.round}, "
        f"which keeps {winner.density:.2%} of the entries{unfinished}."
    )


def title(report: Report) -> str:
    """The settings that tell one run from another."""
    names = ("dataset", "model", "dim", "layers", "method", "scope", "amount", "seed")
    return ", ".join(f"{name} {report.config[name]}" for name in names if name in report.config)


def to_markdown(report: Report) -> str:
    """The text of ``report.md``."""
    lines = [
        f"# {title(report)}",
        "",
        conclusion(report),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---:|" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in table_rows(report)),
        "",
        caption(report),
        "",
    ]
    return "\n".join(lines)
