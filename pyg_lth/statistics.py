"""Which tickets win."""

from pydantic import BaseModel

from pyg_lth.evaluation import Metrics


class Verdict(BaseModel):
    """Whether a ticket wins.

    Args:
        wins: It is as good on test as the dense model, within the tolerance, and better than the
            popularity ranking.
        strict: It wins, and its best epoch came no later than the dense model's.
    """

    wins: bool
    strict: bool


def judge(
    ticket: Metrics,
    ticket_epoch: int,
    dense: Metrics,
    dense_epoch: int,
    popularity: Metrics,
    metric: str,
    tolerance: float,
) -> Verdict:
    """Hold a ticket against the dense model of the same seed (paper, Section 3.1).

    Args:
        ticket: Test metrics of the ticket.
        ticket_epoch: Epoch of its best evaluation, the paper's j'.
        dense: Test metrics of the dense model.
        dense_epoch: Epoch of its best evaluation, the paper's j.
        popularity: Test metrics of the popularity ranking.
        metric: Key of the metric that decides.
        tolerance: Relative loss at which the ticket still wins, in [0, 1).
    """
    wins = ticket[metric] >= dense[metric] * (1 - tolerance) and ticket[metric] > popularity[metric]
    return Verdict(wins=wins, strict=wins and ticket_epoch <= dense_epoch)
