import pytest
import torch

from pyg_lth import kernels
from pyg_lth.evaluation import ranking
from pyg_lth.evaluation.ranking import rank_items


@pytest.fixture
def native():
    if not kernels.usable(torch.device("cpu")):
        pytest.skip("the kernels are not compiled here")


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(kernels, "usable", lambda device: False)


@pytest.fixture(params=["native", "plain"])
def way(request):
    """Each way of ranking in turn."""
    request.getfixturevalue(request.param)


def in_rows(seen):
    """The CSR form of one collection of items for each user."""
    rowptr = torch.tensor([0, *map(len, seen)]).cumsum(0)
    return rowptr, torch.tensor([item for items in seen for item in sorted(items)]).long()


def random_seen(num_users, num_items):
    """Users who have seen nothing, everything, and anything between."""
    chance = torch.linspace(0, 1, num_users).unsqueeze(1)
    seen = torch.rand(num_users, num_items) < chance
    seen[-1] = True
    return [row.nonzero().flatten().tolist() for row in seen]


def whole(*shape):
    """Embeddings of small whole numbers: exact scores, many of them equal."""
    return torch.randint(-3, 4, shape).float()


def distinct(num_users, num_items, dim):
    """Embeddings whose scores are exact, and no two of them equal for one user."""
    users, items = whole(num_users, dim), whole(num_items, dim)
    users[:, 0], items[:, 0] = 1.0, torch.randperm(num_items) * 1024.0
    return users, items


def naive(users, items, seen, k):
    """Score, sort and cut in pure Python, for one user after the other."""
    users, items = users.tolist(), items.tolist()
    k = min(k, len(items))
    lists = []
    for user, known in zip(users, seen, strict=True):
        score = [sum(a * b for a, b in zip(user, item, strict=True)) for item in items]
        unseen = [i for i in range(len(items)) if i not in known and score[i] > -torch.inf]
        best = sorted(unseen, key=lambda i: (-score[i], i))[:k]
        lists.append(best + [len(items)] * (k - len(best)))
    return lists


# Around a group of four users, a panel of sixteen items, and a tile of 96 users by 8 panels.
SIZES = [(1, 1, 1), (3, 15, 2), (4, 16, 32), (5, 17, 7), (9, 40, 33), (97, 33, 3), (2, 1100, 5)]


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize(("num_users", "num_items", "dim"), SIZES)
def test_ranking_equals_a_naive_loop(way, num_users, num_items, dim, k):
    users, items = distinct(num_users, num_items, dim)
    seen = random_seen(num_users, num_items)
    ranked = rank_items(users, items, in_rows(seen), k)
    assert ranked.dtype == torch.long
    assert ranked.tolist() == naive(users, items, seen, k)


@pytest.mark.parametrize(("num_users", "num_items", "dim"), SIZES)
def test_equal_scores_are_ordered_by_the_lower_item(way, num_users, num_items, dim):
    users, items = whole(num_users, dim), whole(num_items, dim)
    seen = random_seen(num_users, num_items)
    assert rank_items(users, items, in_rows(seen), 10).tolist() == naive(users, items, seen, 10)


def test_rows_of_zeros_of_either_sign_are_ranked_by_the_lower_item(way):
    users, items = torch.tensor([[0.0, 0.0], [-0.0, 0.0], [1.0, 0.0]]), whole(40, 2)
    items[::3, 0] = -0.0
    seen = [[0, 2], [], [1]]
    ranked = rank_items(users, items, in_rows(seen), 30)
    assert ranked.tolist() == naive(users, items, seen, 30)
    assert ranked[0].tolist() == [item for item in range(32) if item not in (0, 2)]


def test_both_ways_agree_on_ordinary_embeddings(native, request):
    users, items = torch.randn(300, 32), torch.randn(2000, 32)
    seen = in_rows(random_seen(300, 2000))
    fast = rank_items(users, items, seen, 20)
    request.getfixturevalue("plain")
    slow = rank_items(users, items, seen, 20)
    # Rounding may swap neighbours, and only them.
    assert (fast == slow).float().mean() > 0.999
    scores = torch.cat([users @ items.t(), torch.zeros(300, 1)], dim=1)
    assert torch.allclose(scores.gather(1, fast), scores.gather(1, slow), atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 23, 24, 23 * 3, 23 * 10, 23 * 11])
def test_plain_chunks_change_nothing(plain, monkeypatch, at_once):
    users, items = distinct(10, 23, 4)
    seen = random_seen(10, 23)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", at_once)
    assert rank_items(users, items, in_rows(seen), 5).tolist() == naive(users, items, seen, 5)


def test_long_lists_are_ranked_too(way):
    users, items = distinct(6, 400, 3)
    seen = random_seen(6, 400)
    for k in (256, 257, 500):
        assert rank_items(users, items, in_rows(seen), k).tolist() == naive(users, items, seen, k)


def test_places_without_an_item_hold_the_number_of_items(way):
    users, items = torch.ones(3, 1), torch.tensor([[1.0], [3.0], [2.0]])
    ranked = rank_items(users, items, in_rows([[1], [0, 1, 2], []]), 5)
    assert ranked.tolist() == [[2, 0, 3], [3, 3, 3], [1, 2, 0]]


def test_scores_that_are_no_number_are_never_ranked(way):
    nan, inf = torch.nan, torch.inf
    users = torch.tensor([[1.0, 0.0], [nan, 1.0], [1.0, 1.0]])
    items = torch.tensor([[1.0, 2.0], [nan, 1.0], [inf, 1.0], [-inf, 1.0], [5.0, 1.0]])
    ranked = rank_items(users, items, in_rows([[], [], [4]]), 5)
    assert ranked.tolist() == [[2, 4, 0, 5, 5], [5, 5, 5, 5, 5], [2, 0, 5, 5, 5]]


@pytest.mark.parametrize(("of_users", "of_items"), [(0, -100), (-100, 0), (100, -100), (-100, 100)])
def test_norms_of_tiny_and_huge_embeddings_hide_no_item(way, of_users, of_items):
    users, items = distinct(5, 1100, 4)
    seen = random_seen(5, 1100)
    # Powers of two change no order, but the squares of these are zero or infinite as floats.
    scaled = (users * 2.0**of_users, items * 2.0**of_items)
    assert rank_items(*scaled, in_rows(seen), 3).tolist() == naive(users, items, seen, 3)


def test_memory_that_is_not_contiguous_and_other_types_of_float_are_read_right(way):
    users, items = distinct(9, 30, 5)
    seen = random_seen(9, 30)
    expected = naive(users, items, seen, 6)
    rows = tuple(torch.stack([index, index], dim=1)[:, 0] for index in in_rows(seen))
    strided = (users.t().contiguous().t(), items.t().contiguous().t())
    assert rank_items(*strided, rows, 6).tolist() == expected
    double = (users.double(), items.double())
    assert rank_items(*double, in_rows(seen), 6).tolist() == expected


def test_ranking_is_the_same_with_any_number_of_threads(native):
    users, items, seen = torch.randn(500, 8), torch.randn(70, 8), in_rows(random_seen(500, 70))
    before = torch.get_num_threads()
    alone = rank_items(users, items, seen, 10)
    torch.set_num_threads(2)
    try:
        assert torch.equal(rank_items(users, items, seen, 10), alone)
    finally:
        torch.set_num_threads(before)


def test_chunks_on_a_cuda_device_wait_for_nothing(watched, monkeypatch):
    users, items, seen = whole(7, 5), whole(11, 5), in_rows(random_seen(7, 11))
    expected, waits = rank_items(users, items, seen, 4), []
    users, items, *seen = (x.cuda() for x in (users, items, *seen))
    for at_once in (2 * 11, 14 * 11):  # a user at a time, and all of them
        monkeypatch.setattr(ranking, "SCORES_AT_ONCE_ON_CUDA", at_once)
        before = watched.waits
        ranked = rank_items(users, items, tuple(seen), 4)
        waits.append(watched.waits - before)
        assert torch.equal(ranked.cpu(), expected)
    assert waits[0] == waits[1]
