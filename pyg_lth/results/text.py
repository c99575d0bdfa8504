"""What a report answers who asks which ticket wins, by how much, against what and how sure."""

from collections.abc import Iterator

from pyg_lth.evaluation.significance import ALPHA, Difference
from pyg_lth.results.report import Report, RoundResult, Ticket, number


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
    found.append("It decides on recall alone: other metrics may differ, and so may other data.")
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
        (worse, f"{metric} below {lowest:.4f}, {_floor(report)}"),
        (unpopular, f"{metric} not above that of the ranking by popularity, {popular:.4f}"),
        (rest, f"as good, but not beyond chance (p of {ALPHA:g} or more)"),
    ]
    text = "; ".join(
        f"{reason}: {len(found)} of {_count(len(tickets), 'ticket')}"
        for found, reason in reasons
        if found
    )
    text += "."
    if dense <= popular:
        text += f" The dense model itself ({dense:.4f}) does not beat popularity."
    return text


def change(value: float | None, base: float | None) -> str:
    """The relative difference of a value to another, in percent; a dash where there is none."""
    return f"{value / base - 1:+.1%}" if value is not None and base else "–"


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
            f"({_interval(ticket.difference)})."
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
        f"The ranking by popularity, for which nothing is trained: {metric} {popular:.4f}; "
        f"{'the ticket' if isinstance(ticket, Ticket) else 'dense'} against it: "
        f"{change(ticket.test[metric], popular)}."
    )


def _how_sure(report: Report, num_users: int | None) -> Iterator[str]:
    several = len(report.seeds) > 1
    for reading, ticket in _tickets(report):
        yield (
            f"{reading}{_interval(ticket.difference)}; {_p(ticket.p_adjusted)}, adjusted by "
            f"Holm for {_count(len(report.rounds), 'round')}."
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
    users = "" if num_users is None else f" {_count(num_users, 'user')} of test."
    yield f"{_count(len(report.seeds), 'seed')}{so_far}.{users}"


def _tickets(report: Report) -> Iterator[tuple[str, Ticket]]:
    """The subject and, where it is another, the winner of the strict reading."""
    ticket, strict = subject(report), report.sparsest_strict_winner
    if isinstance(ticket, Ticket):
        yield "", ticket
    if strict is not None and strict != report.sparsest_winner:
        yield f"Strict reading, round {strict.round}: ", report.ticket(strict)


def _place(report: Report, ticket: Ticket) -> str:
    return (
        f"round {ticket.round} of {report.config['rounds']}: density {ticket.density:.2%}, "
        f"{ticket.remaining:,} of {report.dense.remaining:,} entries remain"
    )


def _floor(report: Report) -> str:
    tolerance = report.config["tolerance"]
    return f"dense's less the tolerance ({tolerance:g})" if tolerance else "dense's"


def _value(result: RoundResult, metric: str) -> str:
    spread = f" ± {result.test_sd[metric]:.4f}" if result.test_sd else ""
    return f"{result.test[metric]:.4f}{spread}"


def _interval(difference: Difference | None) -> str:
    if difference is None or difference.low is None or difference.high is None:
        return "no 95% interval"
    return f"95% interval {difference.low:+.1%} to {difference.high:+.1%}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _epochs(result: RoundResult) -> str:
    return f"best epoch {number(result.best_epoch)} of {number(result.epochs)} trained"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
