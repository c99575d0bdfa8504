"""All words on a report: its table as text, what it concludes, and what a reader asks of it."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pyg_lth.config import SplitName
from pyg_lth.errors import printable
from pyg_lth.evaluation.evaluator import Metrics
from pyg_lth.evaluation.significance import ALPHA, Difference
from pyg_lth.results.report import Popularity, Report, RoundResult, Ticket, Winner

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
DISPENSABLE = (
    "remaining",
    "seconds",
    "p",
    "to dense",
    "ndcg",
    "95% interval",
    "epochs",
    "vs dense",
)


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
            "wins": _verdict(report, ticket),
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


# What a ranking shows beyond accuracy, with the format of its figures.
BEYOND: dict[str, Callable[[float | None], str]] = {
    "coverage": percent,
    "gini": lambda value: NOTHING if value is None else f"{value:.3f}",
    "popularity": lambda value: NOTHING if value is None else number(value),
    "tail_recall": score,
}


def beyond_rows(report: Report) -> list[tuple[str, ...]]:
    """Cells under ``round``, ``density`` and :data:`BEYOND`, of rounds that were looked at."""
    k = report.config["topk"]
    return [
        (
            str(result.round) if result.round else "dense",
            percent(result.density),
            *(show(result.beyond.get(f"{name}@{k}")) for name, show in BEYOND.items()),
        )
        for result in (report.dense, *report.rounds)
        if result.beyond is not None
    ]


BEYOND_CAPTION = (
    "Of the lists of all test users. coverage: share of the items that stand in any list. gini: how"
    " unevenly the places go to the items, 0 where all have as many. popularity: mean train"
    " interactions of what is listed. tail_recall: recall of items outside the most popular fifth."
)


def decides(report: Report) -> str:
    """The metric that decides, in running text."""
    return report.metric.partition("@")[0].replace("ndcg", "NDCG")


def _verdict(report: Report, ticket: Ticket) -> str:
    if not ticket.wins:
        return "no"
    return "strict" if ticket.strict and report.dense_converged else "yes"


def caption(report: Report) -> str:
    """The text under the table: how epochs were chosen, and what the columns mean."""
    k, split, name = report.config["topk"], report.config["select_on"], decides(report)
    if split == "test":
        chosen = "Epochs and masks were SELECTED ON TEST (the authors' protocol): optimistic."
    else:
        chosen = (
            "Epochs and masks were chosen on validation, the winner too; test is only reported."
        )
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
    return " ".join(filter(None, [text, _how_chosen(report), unconverged(report)]))


def _how_chosen(report: Report) -> str:
    """How the winner was named."""
    if report.chosen_on == "test":
        return "There is no validation part, so test, which judges, names the winner too."
    return (
        "The winner is the sparsest ticket that holds on validation (no worse there than dense less"
        " the tolerance, and better than popularity); test is looked at once for it, so its own p"
        " is not adjusted. What the table says of the other tickets chose nothing."
    )


def unconverged(report: Report) -> str:
    """That the dense model had not converged, and what follows; empty where it had."""
    if report.dense_converged:
        return ""
    seeds = report.unconverged_seeds or []
    of = f" of seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if len(seeds) else ""
    return (
        f"The dense model{of if len(report.seeds) > 1 else ''} was stopped at max_epochs"
        f" ({report.config['max_epochs']}) before its patience had run out"
        f" ({_epochs(report.dense)}): it had not converged, and trained longer it may be better. So"
        " whether a ticket wins in the strict reading is not said."
    )


def headline(report: Report) -> str:
    """The verdict in a line: which ticket wins, by how much and how sure."""
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
    if report.winner is None:
        return f"No ticket wins{unfinished}."
    return f"Sparsest winning ticket: {_describe(report, report.winner)}{unfinished}."


def remarks(report: Report) -> list[str]:
    """What belongs to the headline: who chose the winner, the strict reading, other winners."""
    if not report.rounds:
        return []
    winner, strict, chosen = report.winner, report.strict_winner, report.winner_by_validation
    found = []
    if winner is not None and chosen is not None:
        found.append(
            f"Validation chose it, and test was looked at once for it: {_p(chosen.p_value)}."
        )
    elif winner is not None:
        found.append("Test itself chose it: there is no validation part.")
    elif chosen is not None:
        described = _describe(report, chosen)
        found.append(f"Validation chose {described}: on test, looked at once, it does not win.")
    on_test = report.sparsest_winner
    if report.chosen_on == "valid" and on_test is not None and on_test.round != _round(chosen):
        found.append(
            f"On test the sparsest that wins is round {on_test.round} ({percent(on_test.density)}),"
            " but test chooses nothing."
        )
    if not report.dense_converged:
        found.append(
            "Strict verdicts are withheld: the dense model was stopped at max_epochs and had not"
            " converged."
        )
    elif winner is None:
        pass
    elif strict is None:
        found.append("None wins in the strict reading.")
    elif strict.round == winner.round:
        found.append("It wins in the strict reading too.")
    else:
        found.append(f"In the strict reading: {_describe(report, strict)}.")
    return found


def conclusion(report: Report) -> str:
    """What a reader wants first: which ticket wins, by how much, how sure, and where it is."""
    return " ".join([headline(report), *remarks(report)])


def _round(winner: Winner | None) -> int | None:
    return None if winner is None else winner.round


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
    names = ["dataset", "model", "dim", "layers", "loss", "method", "scope", "amount"]
    teacher = report.config.get("teacher")
    if report.config.get("distill") and ("rounds" in report.config or teacher):
        names.append("distill")
    shown = [
        f"{name} {printable(str(report.config[name]))}" for name in names if name in report.config
    ]
    if teacher:
        shown.append(f"taught by {printable(Path(teacher).name)}")
    seeds = "seed " if len(report.seeds) == 1 else "seeds "
    return ", ".join([*shown, seeds + ", ".join(map(str, report.seeds))])


def markdown(text: str) -> str:
    """A text as Markdown shows it, in which nothing is markup or HTML."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def to_markdown(report: Report, notes: Sequence[str] = ()) -> str:
    """The text of ``report.md``.

    Args:
        report: The report.
        notes: What reading the data merged, dropped or left out.
    """
    lines = [
        f"# {markdown(title(report))}",
        "",
        conclusion(report),
        "",
        *_table(COLUMNS, table_rows(report)),
        "",
        caption(report),
        "",
        *([refit(report), ""] if report.refit else []),
    ]
    if notes:
        lines += ["Reading the data:", "", *(f"- {markdown(note)}" for note in notes), ""]
    if rows := beyond_rows(report):
        lines += ["## Beyond accuracy", "", *_table(["round", "density", *BEYOND], rows)]
        lines += ["", BEYOND_CAPTION, ""]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [columns, ["---:"] * len(columns), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]


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

    It is the winner; where none wins, the ticket that validation chose; where it chose none, the
    ticket of the best metric; where there is no ticket, the dense model.
    """
    named = report.winner or report.winner_by_validation
    if named is not None:
        return report.ticket(named)
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
    if not report.dense_converged:
        found.append("The dense model had not converged: trained longer it may be the better one.")
    return found


def why_none_wins(report: Report) -> str:
    """Why no ticket wins, in one paragraph; empty where one does or there is none."""
    if report.winner is not None or not report.rounds:
        return ""
    if report.sparsest_winner is None:
        return _reasons(report, "test")
    if report.winner_by_validation is None:
        return f"On validation, which names the winner, {_reasons(report, 'valid')}"
    return _why_not_the_chosen(report, report.ticket(report.winner_by_validation))


def _reasons(report: Report, split: SplitName) -> str:
    """What is wrong with how many tickets."""
    metric, tickets = report.metric, report.rounds
    scores = [(getattr(ticket, split) or {}).get(metric, 0.0) for ticket in tickets]
    dense, popular = (getattr(one, split)[metric] for one in (report.dense, report.popularity))
    lowest = dense * (1 - report.config["tolerance"])
    worse, unpopular = ([s < lowest for s in scores], [s <= popular for s in scores])
    rest = [not (one or other) for one, other in zip(worse, unpopular, strict=True)]
    reasons = [
        (worse, f"{metric} below {score(lowest)}, {_floor(report)}"),
        (unpopular, f"{metric} not above that of the ranking by popularity, {score(popular)}"),
        (rest, f"as good, but not beyond chance (p of {ALPHA:g} or more)"),
    ]
    text = "; ".join(
        f"{reason}: {sum(found)} of {count(len(tickets), 'ticket')}"
        for found, reason in reasons
        if any(found)
    )
    text += "."
    if dense <= popular:
        text += f" The dense model itself ({score(dense)}) does not beat popularity."
    return text


def _why_not_the_chosen(report: Report, ticket: Ticket) -> str:
    """Why the ticket that validation chose does not win on test, where another would have."""
    metric = report.metric
    value, popular = ticket.test[metric], report.popularity.test[metric]
    lowest = report.dense.test[metric] * (1 - report.config["tolerance"])
    if value < lowest:
        reason = f"{metric} {score(value)} is below {score(lowest)}, {_floor(report)}"
    elif value <= popular:
        reason = f"{metric} {score(value)} is not above popularity's {score(popular)}"
    else:
        reason = f"as good, but not beyond chance ({_p(ticket.difference.p_value)})"
    return (
        f"the sparsest ticket that holds on validation, round {ticket.round}, does not win on test:"
        f" {reason}. Test is looked at once, so no other round takes its place."
    )


def _which(report: Report) -> Iterator[str]:
    ticket, strict = subject(report), report.strict_winner
    if not isinstance(ticket, Ticket):
        yield "None: there are no tickets" + (" yet." if report.config.get("rounds") else ".")
        return
    if report.winner is None:
        which = "What validation chose" if report.winner_by_validation else "The best of them"
        yield f"None. {which}: {_place(report, ticket)}."
        return
    yield f"{_place(report, ticket).capitalize()}."
    if report.chosen_on == "test":
        yield "Test itself chose it: there is no validation part."
    else:
        yield (
            f"It is the sparsest that holds on validation: {report.metric} there "
            f"{_on_validation(report, ticket)}, dense's {_on_validation(report, report.dense)}, "
            f"popularity's {_on_validation(report, report.popularity)}."
        )
    if not report.dense_converged:
        yield unconverged(report)
    elif strict is None:
        yield "In the strict reading (best epoch no later than dense's): none."
    elif strict.round == ticket.round:
        yield "The same in the strict reading: its best epoch came no later than dense's."
    else:
        place = _place(report, report.ticket(strict))
        yield f"In the strict reading (best epoch no later than dense's): {place}."


def _on_validation(report: Report, result: RoundResult | Popularity) -> str:
    return score(None if result.valid is None else result.valid[report.metric])


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
        if report.winner_by_validation is None:
            value = ticket.p_adjusted
            adjusted = f"adjusted by Holm for {count(len(report.rounds), 'round')}"
        else:
            value = ticket.difference.p_value
            adjusted = "not adjusted, since validation chose the ticket"
        yield f"{reading}{_ends(ticket.difference)}; {_p(value)}, {adjusted}."
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
    ticket, strict = subject(report), report.strict_winner
    if isinstance(ticket, Ticket):
        yield "", ticket
    if strict is not None and strict.round != ticket.round:
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
