import pytest

from pyg_lth.statistics import judge


def verdict(ticket, dense, popularity, ticket_epoch=10, dense_epoch=10, tolerance=0.0):
    given = judge(
        ticket={"recall@20": ticket, "ndcg@20": 0.0},
        ticket_epoch=ticket_epoch,
        dense={"recall@20": dense, "ndcg@20": 0.9},
        dense_epoch=dense_epoch,
        popularity={"recall@20": popularity, "ndcg@20": 0.9},
        metric="recall@20",
        tolerance=tolerance,
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
def test_a_ticket_wins_within_the_tolerance_and_above_popularity(
    ticket, dense, popularity, tolerance, wins
):
    assert verdict(ticket, dense, popularity, tolerance=tolerance) == (wins, wins)


@pytest.mark.parametrize(
    ("ticket_epoch", "dense_epoch", "strict"), [(9, 10, True), (10, 10, True), (11, 10, False)]
)
def test_a_strict_win_came_no_later(ticket_epoch, dense_epoch, strict):
    assert verdict(0.5, 0.4, 0.1, ticket_epoch, dense_epoch) == (True, strict)


def test_no_win_is_no_strict_win_however_early():
    assert verdict(0.3, 0.4, 0.1, ticket_epoch=1) == (False, False)
