"""All words on a report: its table as text, what it concludes, and what a reader asks of it."""

from collections.abc import Iterator

from pyg_lth.evaluation.evaluator import Metrics
from pyg_lth.evaluation.significance import ALPHA, Difference
from pyg_lth.results.report import Report, RoundResult, Ticket, Winner

# What stands where there is no figure.
NOTHING = "–"


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent; a dash where there is none."""
    return NOTHING if share is None else f"{share:.{digits}%}"


def change(value: float | None, base: float | None) -> str:
    """The relative difference of a value to another, in percent; a dash where there is none."""
    return signed(value / base - 1) if value is not None and base else NOTHING


def signed(difference: float) -> str:
    """A relative difference, in percent."""
    return f"{difference:+.1%}"


def interval(difference: Difference | None, to: str = " to ") -> str:
    """The ends of the interval of a difference, in percent; empty where it has none."""
    if difference is None or difference.low is None or difference.high is None:
        return ""
    return f"{signed(difference.low)}{to}{signed(difference.high)}"


def score(value: float | None, spread: float | None = None) -> str:
    """A metric, with its standard deviation where there is one; a dash where there is no metric."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if spread is None else f"{value:.4f}±{spread:.4f}"


def number(value: float) -> str:
    """A count that may be a mean: at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def count(number: int, noun: str) -> str:
    """How many there are of something."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


COLUMNS = (
    "round",
    "density",
    "remaining",
    "epochs",
    "recall",
    "vs dense",
    "95% interval",
    "p",
    "ndcg",
    "to dense",
    "seconds",
    "wins",
)

# What a narrow display can do without, the least needed first.
DISPENSABLE = ("remaining", "seconds", "p", "to dense", "ndcg")


def table_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells of the report's table, under :data:`COLUMNS`: popularity, dense, then the tickets.

    Metrics are those on test, at K; *epochs* shows the best one of those trained, and *vs dense*
    is of the metric that decides.
    """
    recall, ndcg = (f"{name}@{report.config['topk']}" for name in ("recall", "ndcg"))
    dense, metric = report.dense, report.metric

    def against_dense(test: Metrics) -> str:
        return change(test[metric], dense.test[metric]) if dense.test[metric] else ""

    def cells(name: str, result: RoundResult) -> dict[str, str]:
        reached = result.epochs_to_dense
        return {
            "round": name,
            "density": percent(result.density),
            "remaining": f"{result.remaining:,}",
            "epochs": f"{number(result.best_epoch)}/{number(result.epochs)}",
            "recall": _value(result, recall),
            "ndcg": score(result.test[ndcg]),
            "to dense": "" if reached is None else number(reached),
            "seconds": f"{result.seconds:.1f}",
        }

    def ticket_cells(ticket: Ticket) -> dict[str, str]:
        return {
            **cells(str(ticket.round), ticket),
            "vs dense": against_dense(ticket.test),
            "95% interval": interval(ticket.difference, ".."),
            "p": "<0.001" if ticket.p_adjusted < 0.0005 else f"{ticket.p_adjusted:.3f}",
            "wins": "strict" if ticket.strict else "yes" if ticket.wins else "no",
        }

    test = report.popularity.test
    popularity = {
        "round": "popular",
        "recall": score(test[recall]),
        "vs dense": against_dense(test),
        "ndcg": score(test[ndcg]),
    }
    rows = [popularity, cells("dense", dense), *map(ticket_cells, report.rounds)]
    return [tuple(row.get(name, "") for name in COLUMNS) for row in rows]


def decides(report: Report) -> str:
    """The metric that decides, in running text."""
    return report.metric.partition("@")[0].replace("ndcg", "NDCG")


def caption(report: Report) -> str:
    """The text under the table: how epochs were chosen, and what the columns mean."""
    k, split, name = report.config["topk"], report.config["select_on"], decides(report)
    if split == "test":
        chosen = "Epochs and masks were SELECTED ON TEST (the authors' protocol): optimistic."
    else:
        chosen = "Epochs and masks were chosen on validation; test is only reported."
    text = f"{chosen} Recall and NDCG at {k}, on test"
    if len(report.seeds) > 1:
        text += f", means ± standard deviations over {len(report.seeds)} seeds"
    text += "."
    if report.guests:
        text += f" Not of pyg-lth itself: {', '.join(report.guests)}."
    if not report.rounds:
        return text
    text += (
        f" 95% interval: of the relative difference of {name} to dense, by paired bootstrap over"
        f" the users. p: of a test that {name} is above dense's less the tolerance"
        f" ({report.config['tolerance']:g}), adjusted by Holm for {len(report.rounds)} rounds. A"
        f" ticket wins when its {name} is at least dense's less the tolerance and beats popularity"
    )
    if len(report.seeds) > 1:
        text += f", with p below {ALPHA:g}"
    text += (
        "; strict: at no later a best epoch. to dense: epochs until it was as good on"
        f" {'validation' if split == 'valid' else 'test'} as dense at its best."
    )
    if len(report.seeds) == 1:
        text += " One seed: what another would give is not known."
    else:
        text += " Interval and p speak of other users, not of other seeds."
    return text


def conclusion(report: Report) -> str:
    """What a reader wants first: which ticket wins, by how much, how sure, and where it is."""
    planned = report.config.get("rounds", 0)
    if not planned:
        return "Dense training only: there are no tickets to judge."
    so_far = f"{len(report.rounds)} of {planned} rounds"
    if report.ended is not None:
        unfinished = f" ({so_far}: {report.ended})"
    elif len(report.rounds) < planned:
        unfinished = f" ({so_far} so far)"
    else:
        unfinished = ""
    winner, strict = report.sparsest_winner, report.sparsest_strict_winner
    if winner is None:
        return f"No ticket wins{unfinished}."
    text = f"Sparsest winning ticket: {_describe(report, winner)}{unfinished}."
    if strict is None:
        return f"{text} None wins in the strict reading."
    if strict == winner:
        return f"{text} It wins in the strict reading too."
    return f"{text} In the strict reading: {_describe(report, strict)}."


def _describe(report: Report, winner: Winner) -> str:
    difference = report.ticket(winner).difference
    text = f"round {winner.round}, which keeps {percent(winner.density)} of the entries"
    if difference.relative is None:
        return text
    text += f", {report.metric} {signed(difference.relative)} against dense"
    ends = interval(difference)
    return f"{text} (95% interval {ends})" if ends else text


def refit(report: Report) -> str:
    """What dense and winner came to when nothing was held out; empty where they were not refit."""
    if report.refit is None:
        return ""
    recall, ndcg = (f"{name}@{report.config['topk']}" for name in ("recall", "ndcg"))

    def told(name: str, result: RoundResult) -> str:
        figures = f"{recall} {_value(result, recall)}, {ndcg} {_value(result, ndcg)}"
        return f"{name} {figures} after {number(result.epochs)} epochs"

    dense, ticket = report.refit.dense, report.refit.ticket
    text = f"Refit on train and validation, test: {told('dense', dense)}"
    if ticket is None:
        return f"{text}." if not report.rounds else f"{text}; no ticket, since none wins."
    text += f"; {told(f'round {ticket.round} ({percent(ticket.density)})', ticket)}"
    if ticket.difference is None or ticket.difference.relative is None:
        return f"{text}."
    text += f", {report.metric} {signed(ticket.difference.relative)} against dense"
    ends = interval(ticket.difference)
    return f"{text} (95% interval {ends})." if ends else f"{text}."


def title(report: Report) -> str:
    """The settings that tell one run from another."""
    names = ("dataset", "model", "dim", "layers", "loss", "method", "scope", "amount")
    shown = [f"{name} {report.config[name]}" for name in names if name in report.config]
    seeds = "seed " if len(report.seeds) == 1 else "seeds "
    return ", ".join([*shown, seeds + ", ".join(map(str, report.seeds))])


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
        *([refit(report), ""] if report.refit else []),
    ]
    return "\n".join(lines)


def questions(report: Report, num_users: int | None) -> dict[str, list[str]]:
    """Answer four questions on the ticket that :func:`subject` chooses, in sentences.

    Args:
        report: The report.
        num_users: Users of test, :obj:`None` where it is not known.

    Returns:
        The sentences of each answer, by the question, in the order to read them in.
    """
    return {
        "Which ticket wins?": list(_which(report)),
        "By how much?": list(_by_how_much(report)),
        "Against what?": list(_against_what(report)),
        "How sure?": list(_how_sure(report, num_users)),
    }


def subject(report: Report) -> RoundResult:
    """The round that a reader wants to know of.

    It is the sparsest winner; where none wins, the ticket of the best metric; where there is no
    ticket, the dense model.
    """
    if report.sparsest_winner is not None:
        return report.ticket(report.sparsest_winner)
    return max(report.rounds, key=lambda ticket: ticket.test[report.metric], default=report.dense)


def limits(report: Report) -> list[str]:
    """What the verdict does not say, a sentence each."""
    found = []
    if report.config["select_on"] == "test":
        found.append(
            "Epochs and masks were selected on test, so all metrics are optimistic: nothing here "
            "was measured on data that chose nothing."
        )
    if not report.rounds:
        return found
    alone = decides(report)
    found.append(f"It decides on {alone} alone: other metrics may differ, and so may other data.")
    if len(report.seeds) == 1:
        found.append(
            "It rests on one seed: what another would give is not known. Interval and p speak of "
            "other users, not of other seeds."
        )
    else:
        found.append(
            "Interval and p speak of other users under these seeds, not of other seeds; how much "
            f"these {len(report.seeds)} differ, the standard deviation (±) shows."
        )
    if len(report.rounds) > 1:
        found.append(
            f"p is adjusted for all {len(report.rounds)} rounds, the interval of a round is not."
        )
    return found


def why_none_wins(report: Report) -> str:
    """Why no ticket wins, in one paragraph; empty where one does or there is none."""
    if report.sparsest_winner is not None or not report.rounds:
        return ""
    metric, tickets = report.metric, report.rounds
    dense, popular = report.dense.test[metric], report.popularity.test[metric]
    lowest = dense * (1 - report.config["tolerance"])
    worse = [ticket for ticket in tickets if ticket.test[metric] < lowest]
    unpopular = [ticket for ticket in tickets if ticket.test[metric] <= popular]
    rest = [ticket for ticket in tickets if ticket not in worse and ticket not in unpopular]
    reasons = [
        (worse, f"{metric} below {score(lowest)}, {_floor(report)}"),
        (unpopular, f"{metric} not above that of the ranking by popularity, {score(popular)}"),
        (rest, f"as good, but not beyond chance (p of {ALPHA:g} or more)"),
    ]
    text = "; ".join(
        f"{reason}: {len(found)} of {count(len(tickets), 'ticket')}"
        for found, reason in reasons
        if found
    )
    text += "."
    if dense <= popular:
        text += f" The dense model itself ({score(dense)}) does not beat popularity."
    return text


def _which(report: Report) -> Iterator[str]:
    ticket, strict = subject(report), report.sparsest_strict_winner
    if not isinstance(ticket, Ticket):
        yield "None: there are no tickets" + (" yet." if report.config.get("rounds") else ".")
        return
    if report.sparsest_winner is None:
        yield f"None. The best of them: {_place(report, ticket)}."
        return
    yield f"{_place(report, ticket).capitalize()}."
    if strict is None:
        yield "In the strict reading (best epoch no later than dense's): none."
    elif strict == report.sparsest_winner:
        yield "The same in the strict reading: its best epoch came no later than dense's."
    else:
        place = _place(report, report.ticket(strict))
        yield f"In the strict reading (best epoch no later than dense's): {place}."


def _by_how_much(report: Report) -> Iterator[str]:
    metric, dense = report.metric, report.dense
    for reading, ticket in _tickets(report):
        yield (
            f"{reading}{metric} on test is {_value(ticket, metric)} against dense's "
            f"{_value(dense, metric)}: {change(ticket.test[metric], dense.test[metric])} "
            f"({_ends(ticket.difference)})."
        )
    shown = subject(report)
    if not isinstance(shown, Ticket):
        yield f"There is only the dense model: {metric} on test is {_value(dense, metric)}."
        return
    others = [
        f"{name} is {_value(shown, name)} against {_value(dense, name)} "
        f"({change(shown.test[name], dense.test[name])})"
        for name in shown.test
        if name != metric
    ]
    yield f"By other metrics: {'; '.join(others)}."


def _against_what(report: Report) -> Iterator[str]:
    metric, ticket, dense = report.metric, subject(report), report.dense
    same = "the same seed" + ("" if len(report.seeds) == 1 else "s")
    seeds = ", ".join(map(str, report.seeds))
    yield (
        f"The dense model of {same} ({seeds}), all {dense.remaining:,} entries: {metric} "
        f"{_value(dense, metric)}, {_epochs(dense)}."
    )
    if isinstance(ticket, Ticket):
        split = "validation" if report.config["select_on"] == "valid" else "test"
        reached = (
            f"{'in some seed ' if len(report.seeds) > 1 else ''}it was never as good"
            if ticket.epochs_to_dense is None
            else f"at epoch {number(ticket.epochs_to_dense)} it was first as good"
        )
        yield f"The ticket: {_epochs(ticket)}; {reached} on {split} as dense at its best."
    popular = report.popularity.test[metric]
    yield (
        f"The ranking by popularity, for which nothing is trained: {metric} {score(popular)}; "
        f"{'the ticket' if isinstance(ticket, Ticket) else 'dense'} against it: "
        f"{change(ticket.test[metric], popular)}."
    )


def _how_sure(report: Report, num_users: int | None) -> Iterator[str]:
    several = len(report.seeds) > 1
    for reading, ticket in _tickets(report):
        yield (
            f"{reading}{_ends(ticket.difference)}; {_p(ticket.p_adjusted)}, adjusted by "
            f"Holm for {count(len(report.rounds), 'round')}."
        )
    if report.rounds:
        yield (
            f"p is that of a one-sided test against {report.metric} at most {_floor(report)}: the "
            "smaller, the surer. "
            + (
                f"With several seeds a ticket wins only where p is below {ALPHA:g}."
                if several
                else "With one seed it decides nothing: the means alone make the verdict."
            )
        )
    planned = report.config.get("seeds", 1)
    so_far = f" of {planned} so far" if len(report.seeds) < planned else ""
    users = "" if num_users is None else f" {count(num_users, 'user')} of test."
    yield f"{count(len(report.seeds), 'seed')}{so_far}.{users}"


def _tickets(report: Report) -> Iterator[tuple[str, Ticket]]:
    """The subject and, where it is another, the winner of the strict reading."""
    ticket, strict = subject(report), report.sparsest_strict_winner
    if isinstance(ticket, Ticket):
        yield "", ticket
    if strict is not None and strict != report.sparsest_winner:
        yield f"Strict reading, round {strict.round}: ", report.ticket(strict)


def _place(report: Report, ticket: Ticket) -> str:
    return (
        f"round {ticket.round} of {report.config['rounds']}: density {percent(ticket.density)}, "
        f"{ticket.remaining:,} of {report.dense.remaining:,} entries remain"
    )


def _floor(report: Report) -> str:
    tolerance = report.config["tolerance"]
    return f"dense's less the tolerance ({tolerance:g})" if tolerance else "dense's"


def _value(result: RoundResult, metric: str) -> str:
    return score(result.test[metric], result.test_sd[metric] if result.test_sd else None)


def _ends(difference: Difference) -> str:
    ends = interval(difference)
    return f"95% interval {ends}" if ends else "no 95% interval"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _epochs(result: RoundResult) -> str:
    return f"best epoch {number(result.best_epoch)} of {number(result.epochs)} trained"
