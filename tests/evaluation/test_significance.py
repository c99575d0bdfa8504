import numpy as np
import pytest
from scipy.stats import binom, t

import pyg_lth.evaluation.significance
from pyg_lth.evaluation.significance import ALPHA, RESAMPLES, holm, judge, paired_difference

TOLERANCE = 0.05


def recalls(rng, change=0.0, num_seeds=1, num_users=300, shared=0.8):
    """Recall of users under a ticket and the dense model, many of them 0.

    A share of a user's items is ranked alike by both models; on the rest the ticket hits less or
    more often, such that its expected recall is exactly ``1 + change`` times the dense one.
    """
    items = np.minimum(rng.geometric(0.15, size=num_users), 40)
    chance = 0.8 * rng.beta(0.7, 3, size=num_users)
    alike = rng.binomial(items, shared, size=(num_seeds, num_users))
    hits = rng.binomial(alike, chance)
    dense = hits + rng.binomial(items - alike, chance)
    ticket = hits + rng.binomial(items - alike, chance * (1 + change / (1 - shared)))
    return ticket / items, dense / items


def binomial_band(trials, chance):
    """Counts that a correct method leaves once in a thousand."""
    return binom.interval(0.999, trials, chance)


@pytest.fixture
def few_resamples(monkeypatch):
    """For tests that look at p-values alone."""
    monkeypatch.setattr(pyg_lth.evaluation.significance, "RESAMPLES", 2)


@pytest.fixture(scope="module")
def p_values_at_the_margin():
    """60 searches of 20 independent rounds, each of which loses exactly the tolerance."""
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyg_lth.evaluation.significance, "RESAMPLES", 2)
        return np.array(
            [
                [
                    paired_difference(*recalls(rng, -TOLERANCE), TOLERANCE, 0).p_value
                    for _ in range(20)
                ]
                for _ in range(60)
            ]
        )


def test_the_simulated_effect_is_the_one_asked_for():
    ticket, dense = recalls(np.random.default_rng(0), -0.1, num_users=400_000)
    assert ticket.mean() / dense.mean() - 1 == pytest.approx(-0.1, abs=0.005)
    assert (dense == 0).mean() > 0.4
    assert 0.8 < np.corrcoef(ticket[0], dense[0])[0, 1] < 0.95


def test_the_interval_covers_the_true_effect_in_95_of_100_samples(monkeypatch):
    monkeypatch.setattr(pyg_lth.evaluation.significance, "RESAMPLES", 400)
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(500):
        difference = paired_difference(*recalls(rng, -0.05, num_users=1000), TOLERANCE, seed)
        covered += difference.low <= -0.05 <= difference.high
    low, high = binomial_band(500, 0.95)
    assert low <= covered <= high


def test_the_interval_is_that_of_a_naive_bootstrap():
    ticket, dense = recalls(np.random.default_rng(2), -0.1, num_seeds=2)
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(RESAMPLES):
        users = rng.integers(300, size=300)
        ratios.append(ticket[:, users].sum() / dense[:, users].sum() - 1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    difference = paired_difference(ticket, dense, TOLERANCE, seed=0)
    assert difference.relative == pytest.approx(ticket.sum() / dense.sum() - 1)
    assert difference.low == pytest.approx(low, abs=0.06 * (high - low))
    assert difference.high == pytest.approx(high, abs=0.06 * (high - low))


def test_the_p_value_is_that_of_the_t_statistic():
    ticket, dense = recalls(np.random.default_rng(4))
    margins = (ticket - (1 - TOLERANCE) * dense)[0]
    statistic = margins.mean() / (margins.std(ddof=1) / np.sqrt(300))
    assert paired_difference(ticket, dense, TOLERANCE, 0).p_value == pytest.approx(
        t.sf(statistic, 299)
    )


def test_a_ticket_at_the_margin_passes_5_times_in_100(p_values_at_the_margin):
    low, high = binomial_band(p_values_at_the_margin.size, ALPHA)
    assert low <= (p_values_at_the_margin < ALPHA).sum() <= high


def test_p_values_at_the_margin_are_uniform(p_values_at_the_margin):
    size = p_values_at_the_margin.size
    for level in (0.25, 0.5, 0.75):
        low, high = binomial_band(size, level)
        assert low <= (p_values_at_the_margin < level).sum() <= high


def test_an_equal_ticket_passes_well_inside_the_margin_and_a_poor_one_never(few_resamples):
    rng = np.random.default_rng(5)
    equal = [paired_difference(*recalls(rng, num_users=2000), 0.1, 0).p_value for _ in range(100)]
    poor = [
        paired_difference(*recalls(rng, -0.15, num_users=2000), 0.1, 0).p_value for _ in range(100)
    ]
    assert (np.array(equal) < ALPHA).sum() >= 95
    assert (np.array(poor) < ALPHA).sum() == 0


def test_at_tolerance_0_a_ticket_has_to_be_better_than_the_dense_model(few_resamples):
    rng = np.random.default_rng(6)
    equal = [paired_difference(*recalls(rng), 0.0, 0).p_value for _ in range(300)]
    low, high = binomial_band(300, ALPHA)
    assert low <= (np.array(equal) < ALPHA).sum() <= high
    assert paired_difference(*recalls(rng, 0.1, num_users=4000, shared=0.5), 0.0, 0).p_value < ALPHA


def test_users_are_compared_with_themselves():
    rng = np.random.default_rng(7)
    ticket, dense = recalls(rng, 0.01, num_users=2000, shared=0.95)
    paired = paired_difference(ticket, dense, TOLERANCE, 0)
    mixed = paired_difference(rng.permuted(ticket, axis=1), dense, TOLERANCE, 0)
    assert paired.relative == pytest.approx(mixed.relative)
    assert mixed.high - mixed.low > 3 * (paired.high - paired.low)
    assert paired.p_value < ALPHA < mixed.p_value


def test_a_gain_shared_by_all_users_has_no_interval_to_speak_of():
    dense = recalls(np.random.default_rng(8))[1]
    difference = paired_difference(1.02 * dense, dense, TOLERANCE, 0)
    assert (difference.relative, difference.low, difference.high) == pytest.approx((0.02,) * 3)


def test_holm_keeps_the_chance_of_any_false_win_in_a_search_at_5_in_100(p_values_at_the_margin):
    searches = len(p_values_at_the_margin)
    unadjusted = (p_values_at_the_margin < ALPHA).any(axis=1).sum()
    adjusted = sum(min(holm(p)) < ALPHA for p in p_values_at_the_margin)
    assert adjusted <= binomial_band(searches, ALPHA)[1]
    assert unadjusted >= binomial_band(searches, 1 - (1 - ALPHA) ** 20)[0]  # 64 in 100


def test_holm_on_a_textbook_example():
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


def naive_holm(p_values):
    """The least level at which step-down rejection reaches each test."""
    adjusted = [0.0] * len(p_values)
    left, highest = list(range(len(p_values))), 0.0
    while left:
        smallest = min(left, key=lambda test: p_values[test])
        highest = max(highest, min(1.0, len(left) * p_values[smallest]))
        adjusted[smallest] = highest
        left.remove(smallest)
    return adjusted


@pytest.mark.parametrize("number", [0, 1, 2, 7, 50])
def test_holm_agrees_with_the_naive_loop_in_any_order(number):
    rng = np.random.default_rng(number)
    p_values = rng.random(number) ** 3
    p_values[: number // 3] = p_values[number // 3 : 2 * (number // 3)]  # ties
    adjusted = holm(p_values.tolist())
    assert adjusted == pytest.approx(naive_holm(p_values.tolist()))
    order = rng.permutation(number)
    assert holm(p_values[order].tolist()) == [adjusted[test] for test in order]


def test_holm_adjusts_upwards_to_1_at_most():
    p_values = [0.5, 0.001, 0.9, 1.0, 0.0]
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    assert adjusted[3] == 1
    assert adjusted[4] == 0


def test_a_users_metric_is_averaged_over_the_seeds():
    ticket, dense = recalls(np.random.default_rng(9), num_seeds=3)
    averaged = paired_difference(
        ticket.mean(axis=0, keepdims=True), dense.mean(axis=0, keepdims=True), TOLERANCE, 0
    )
    assert paired_difference(ticket, dense, TOLERANCE, 0) == averaged


def test_seeds_that_say_the_same_add_no_certainty():
    ticket, dense = recalls(np.random.default_rng(10))
    once = paired_difference(ticket, dense, TOLERANCE, 0)
    thrice = paired_difference(ticket.repeat(3, axis=0), dense.repeat(3, axis=0), TOLERANCE, 0)
    assert thrice.model_dump() == pytest.approx(once.model_dump())


def test_single_precision_is_averaged_in_double():
    ticket, dense = recalls(np.random.default_rng(11), num_seeds=3)
    single = ticket.astype(np.float32), dense.astype(np.float32)
    double = single[0].astype(np.float64), single[1].astype(np.float64)
    assert paired_difference(*single, TOLERANCE, 0) == paired_difference(*double, TOLERANCE, 0)


def test_a_comparison_repeats_by_its_seed_and_leaves_the_global_state_alone():
    ticket, dense = recalls(np.random.default_rng(12))
    np.random.seed(0)
    first = paired_difference(ticket, dense, TOLERANCE, 1)
    drawn = np.random.random()
    np.random.seed(0)
    assert drawn == np.random.random()
    assert paired_difference(ticket, dense, TOLERANCE, 1) == first
    other = paired_difference(ticket, dense, TOLERANCE, 2)
    assert other.low != first.low
    assert (other.relative, other.p_value) == (first.relative, first.p_value)


def test_the_interval_does_not_depend_on_the_batch(monkeypatch):
    ticket, dense = recalls(np.random.default_rng(13))
    whole = paired_difference(ticket, dense, TOLERANCE, 0)
    monkeypatch.setattr(pyg_lth.evaluation.significance, "BATCH_VALUES", 1)
    assert paired_difference(ticket, dense, TOLERANCE, 0) == whole


def test_a_ticket_that_is_the_dense_model_differs_by_nothing():
    dense = recalls(np.random.default_rng(14))[1]
    difference = paired_difference(dense, dense, 0.0, 0)
    assert (difference.relative, difference.low, difference.high) == (0, 0, 0)
    assert difference.p_value == 1
    assert paired_difference(dense, dense, TOLERANCE, 0).p_value < ALPHA


def test_losing_exactly_the_tolerance_of_every_user_shows_nothing():
    dense = recalls(np.random.default_rng(15), num_seeds=3)[1]
    assert paired_difference((1 - TOLERANCE) * dense, dense, TOLERANCE, 0).p_value == 1


@pytest.mark.parametrize(
    ("ticket", "dense", "p_value"),
    [
        ([0.6, 0.6, 0.6], [0.5, 0.5, 0.5], 1 / 8),  # three of three users gain
        ([0.4, 0.4, 0.4], [0.5, 0.5, 0.5], 1.0),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], 1.0),
    ],
)
def test_without_spread_the_sign_test_stands_in(ticket, dense, p_value):
    assert paired_difference(np.array([ticket]), np.array([dense]), 0.0, 0).p_value == p_value


@pytest.mark.parametrize(("ticket", "p_value"), [(0.6, 0.5), (0.5, 1.0), (0.4, 1.0)])
def test_one_user_has_no_interval_and_proves_nothing(ticket, p_value):
    difference = paired_difference(np.array([[ticket]]), np.array([[0.5]]), 0.0, 0)
    assert difference.relative == pytest.approx(ticket / 0.5 - 1)
    assert (difference.low, difference.high) == (None, None)
    assert difference.p_value == p_value


@pytest.mark.filterwarnings("error")
def test_a_dense_model_without_hits_has_no_relative_difference():
    ticket, dense = np.array([[0.0, 0.5, 0.25, 0.0]]), np.zeros((1, 4))
    difference = paired_difference(ticket, dense, TOLERANCE, 0)
    assert (difference.relative, difference.low, difference.high) == (None, None, None)
    assert ALPHA < difference.p_value < 0.5
    assert paired_difference(dense, dense, TOLERANCE, 0).p_value == 1


@pytest.mark.filterwarnings("error")
def test_so_few_hits_that_a_resample_has_none_give_no_interval():
    dense = np.zeros((1, 50))
    dense[0, :2] = 1
    difference = paired_difference(dense / 2, dense, TOLERANCE, 0)
    assert difference.relative == -0.5
    assert (difference.low, difference.high) == (None, None)


@pytest.mark.parametrize(
    ("ticket", "dense"), [((3, 5), (1, 5)), ((1, 5), (1, 4)), ((5,), (5,)), ((1, 0), (1, 0))]
)
def test_shapes_have_to_agree(ticket, dense):
    with pytest.raises(ValueError, match="num_seeds, num_users"):
        paired_difference(np.ones(ticket), np.ones(dense), TOLERANCE, 0)


def verdict(ticket=0.5, dense=0.4, popularity=0.1, tolerance=0.0, **changes):
    settings = {"ticket_epoch": 10, "dense_epoch": 10, "num_seeds": 1, "p_adjusted": 1.0} | changes
    given = judge(
        ticket=ticket, dense=dense, popularity=popularity, tolerance=tolerance, **settings
    )
    return given.wins, given.strict


@pytest.mark.parametrize(
    ("ticket", "dense", "popularity", "tolerance", "wins"),
    [
        (0.5, 0.4, 0.1, 0.0, True),
        (0.4, 0.4, 0.1, 0.0, True),  # as good is good enough
        (0.3999, 0.4, 0.1, 0.0, False),
        (0.36, 0.4, 0.1, 0.05, False),
        (0.38, 0.4, 0.1, 0.05, True),
        (0.375, 0.5, 0.1, 0.25, True),  # on the tolerance itself, exact in binary
        (0.3749, 0.5, 0.1, 0.25, False),
        (0.5, 0.4, 0.6, 0.0, False),  # worse than popularity
        (0.5, 0.4, 0.5, 0.0, False),  # popularity has to be beaten, not met
        (0.0, 0.0, 0.0, 0.0, False),
    ],
)
@pytest.mark.parametrize(("num_seeds", "p_adjusted"), [(1, 1.0), (3, 0.0)])
def test_a_ticket_wins_within_the_tolerance_and_above_popularity(
    ticket, dense, popularity, tolerance, wins, num_seeds, p_adjusted
):
    certainty = {"num_seeds": num_seeds, "p_adjusted": p_adjusted}
    assert verdict(ticket, dense, popularity, tolerance, **certainty) == (wins, wins)


@pytest.mark.parametrize(
    ("num_seeds", "p_adjusted", "wins"),
    [(1, 0.9, True), (2, 0.9, False), (2, 0.05, False), (2, 0.049, True), (5, 0.0, True)],
)
def test_with_several_seeds_a_win_has_to_be_significant(num_seeds, p_adjusted, wins):
    assert verdict(num_seeds=num_seeds, p_adjusted=p_adjusted) == (wins, wins)


@pytest.mark.parametrize(
    ("ticket_epoch", "dense_epoch", "strict"),
    [(9, 10, True), (10, 10, True), (11, 10, False), (31 / 3, 32 / 3, True)],
)
def test_a_strict_win_came_no_later(ticket_epoch, dense_epoch, strict):
    given = verdict(ticket_epoch=ticket_epoch, dense_epoch=dense_epoch)
    assert given == (True, strict)


def test_no_win_is_no_strict_win_however_early():
    assert verdict(ticket=0.3, ticket_epoch=1) == (False, False)
    assert verdict(num_seeds=3, p_adjusted=0.5, ticket_epoch=1) == (False, False)
