"""Which tickets win, and with what certainty."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

# With several seeds a ticket wins only where its Holm-adjusted p-value is below this.
ALPHA = 0.05
CONFIDENCE = 0.95
RESAMPLES = 2000
# Values of a batch of resamples: 1 MB, which the caches hold; larger batches are slower.
BATCH_VALUES = 2**17
# Differences of metrics below this are rounding: metrics are at most 1.
ROUNDING = 1e-12

Users = npt.NDArray[np.float64]


class Difference(BaseModel):
    """Paired difference of a ticket to the dense model, over users.

    Args:
        relative: Mean metric of the ticket over that of the dense model, minus 1; :obj:`None`
            where the dense model's is 0.
        low: Lower end of the 95% bootstrap interval of ``relative``; :obj:`None` where there is
            none: one user, or so few hits that a resample has none of the dense model's.
        high: Upper end of the interval.
        p_value: One-sided p-value of non-inferiority, in [0, 1]. Its null hypothesis is that the
            ticket's mean is at most ``1 - tolerance`` times the dense model's.
    """

    model_config = ConfigDict(frozen=True)

    relative: float | None
    low: float | None
    high: float | None
    p_value: float = Field(ge=0, le=1)


class Verdict(BaseModel):
    """Whether a ticket wins.

    Args:
        wins: It is as good on test as the dense model, within the tolerance and, with several
            seeds, beyond chance; and it is better than the popularity ranking.
        strict: It wins, and its best epoch came no later than the dense model's; :obj:`None`
            where it wins against a dense model that had not converged, whose best epoch is not
            known.
    """

    model_config = ConfigDict(frozen=True)

    wins: bool
    strict: bool | None


def paired_difference(
    ticket: npt.NDArray[np.floating[Any]],
    dense: npt.NDArray[np.floating[Any]],
    tolerance: float,
    seed: int,
) -> Difference:
    """Compare a ticket with the dense model on the same users.

    Every user's metric is averaged over the seeds first. Users are the sampling unit, so interval
    and p-value speak of other users under these seeds, not of other seeds. Of a few hundred users
    the interval is a little short: simulated, it covers 92 to 94 times in 100, not 95.

    At tolerance 0 the test asks whether the ticket is *better* than the dense model: an equal one
    does not pass.

    Args:
        ticket: Metric of each user under the ticket, floating, shape ``[num_seeds, num_users]``.
        dense: The same under the dense model of the same seed.
        tolerance: Relative loss that is still no loss, in [0, 1).
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If the arrays differ in shape, are empty, or are not two-dimensional.
    """
    if ticket.shape != dense.shape or ticket.ndim != 2 or ticket.size == 0:
        raise ValueError(
            f"ticket {ticket.shape} and dense {dense.shape} must have the same shape "
            "[num_seeds, num_users], with at least one of each"
        )
    ticket_users: Users = ticket.mean(axis=0, dtype=np.float64)
    dense_users: Users = dense.mean(axis=0, dtype=np.float64)
    dense_mean = dense_users.mean()
    low, high = _interval(ticket_users, dense_users, seed)
    return Difference(
        relative=ticket_users.mean() / dense_mean - 1 if dense_mean else None,
        low=low,
        high=high,
        p_value=_p_value(ticket_users - (1 - tolerance) * dense_users),
    )


def _interval(ticket: Users, dense: Users, seed: int) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval of the relative difference of means, users resampled."""
    if ticket.size == 1:
        return None, None
    from scipy import stats  # takes a second

    def relative(ticket: Users, dense: Users, axis: int) -> Users:
        difference: Users = ticket.mean(axis) / dense.mean(axis) - 1
        return difference

    # A resample without any hit of the dense model has no relative difference.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        low, high = stats.bootstrap(
            (ticket, dense),
            relative,
            n_resamples=RESAMPLES,
            batch=max(1, BATCH_VALUES // ticket.size),
            vectorized=True,
            paired=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if not np.isfinite([low, high]).all():
        return None, None
    return float(low), float(high)


def _p_value(margins: Users) -> float:
    """One-sided t test of whether the mean margin of the users is above 0.

    Where all margins are the same, there is no spread to test by and the sign test stands in.
    """
    if np.ptp(margins) <= ROUNDING:
        return float(0.5**margins.size) if margins.mean() > ROUNDING else 1.0
    from scipy import stats  # takes a second

    return float(stats.ttest_1samp(margins, 0.0, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    Those below a level can all be called significant, and the chance that any one of them is wrong
    stays below that level, however the tests depend on each other.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics, 1979.

    Args:
        p_values: One p-value a test, in [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = values.argsort()
    scaled = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def holds(ticket: float, dense: float, popularity: float, tolerance: float) -> bool:
    """Whether a ticket's metric is as good as the dense model's and better than popularity's.

    Args:
        ticket: Metric of the ticket, mean over the seeds.
        dense: Metric of the dense model, mean over the seeds.
        popularity: Metric of the popularity ranking.
        tolerance: Relative loss that is still no loss, in [0, 1).
    """
    return ticket >= dense * (1 - tolerance) and ticket > popularity


def judge(
    *,
    ticket: float,
    dense: float,
    popularity: float,
    tolerance: float,
    ticket_epoch: float,
    dense_epoch: float,
    num_seeds: int,
    p_adjusted: float,
    dense_converged: bool = True,
) -> Verdict:
    """Hold a ticket against the dense model of the same seeds (paper, Section 3.1).

    Args:
        ticket: Test metric of the ticket, mean over the seeds.
        dense: Test metric of the dense model, mean over the seeds.
        popularity: Test metric of the popularity ranking.
        tolerance: Relative loss at which the ticket still wins, in [0, 1).
        ticket_epoch: Epoch of the ticket's best evaluation, mean over the seeds; the paper's j'.
        dense_epoch: Epoch of the dense model's best evaluation, mean over the seeds; the paper's j.
        num_seeds: Number of seeds. With one, the p-value decides nothing.
        p_adjusted: P-value of :func:`compare`, adjusted by :func:`holm` for the tickets that are
            looked at: for all of a run, or for the one that validation chose.
        dense_converged: Whether the dense model stopped by itself, under every seed.
    """
    wins = holds(ticket, dense, popularity, tolerance) and (num_seeds == 1 or p_adjusted < ALPHA)
    if not wins:
        return Verdict(wins=False, strict=False)
    return Verdict(wins=True, strict=ticket_epoch <= dense_epoch if dense_converged else None)
