import itertools

import numpy as np
import pytest

from pyg_lth.tickets import native
from pyg_lth.tickets.top_items import DenseRows, Items, rank

SIZES = [(1, 1, 1), (3, 15, 2), (70, 40, 3), (65, 700, 5), (2, 1100, 33)]


@pytest.fixture(params=["native", "numpy"])
def way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the kernels are not compiled here")


def random_seen(num_users, num_items, generator):
    """Users who have seen nothing, everything, and anything between."""
    chance = np.linspace(0, 1, num_users)[:, None]
    there = generator.random((num_users, num_items)) < chance
    return np.concatenate([[0], there.sum(axis=1).cumsum()]), np.nonzero(there)[1]


def naive(users, items, seen, k):
    rowptr, seen_item = seen
    lists = []
    for user, (begin, end) in enumerate(itertools.pairwise(rowptr)):
        score = [sum(a * b for a, b in zip(users[user], item, strict=True)) for item in items]
        left = [i for i in range(len(items)) if i not in set(seen_item[begin:end].tolist())]
        best = sorted(left, key=lambda i: (-score[i], i))[:k]
        lists.append(best + [len(items)] * (k - len(best)))
    return lists


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize(("num_users", "num_items", "dim"), SIZES)
@pytest.mark.parametrize("sparse", [False, True])
def test_ranking_equals_a_naive_loop(way, num_users, num_items, dim, k, sparse):
    generator = np.random.default_rng(0)
    users, items = (
        generator.integers(-3, 4, (number, dim)).astype(np.float32)
        for number in (num_users, num_items)
    )
    if sparse:
        users[generator.random(users.shape) < 0.8] = 0
        items[generator.random(items.shape) < 0.8] = 0
    seen = random_seen(num_users, num_items, generator)
    k = min(k, num_items)
    ranked, scores = rank(users, Items(DenseRows(items), 0, num_items, dim), seen, k)
    assert ranked.tolist() == naive(users.tolist(), items.tolist(), seen, k)
    there = ranked < num_items
    row = np.nonzero(there)[0]
    assert (scores[there] == (users[row] * items[ranked[there]]).sum(axis=1)).all()


def test_numpy_and_the_kernel_agree_to_the_bit(monkeypatch):
    if native.library() is None:
        pytest.skip("the kernels are not compiled here")
    generator = np.random.default_rng(1)
    users, items = (
        generator.standard_normal((number, 24)).astype(np.float32) for number in (100, 3000)
    )
    # Nearly the same item many times: what a matrix product rounds decides nothing.
    items[1000:] = items[:1000].repeat(2, axis=0) * (1 + 1e-7 * generator.random((2000, 1)))
    seen = random_seen(100, 3000, generator)
    kernel = rank(users, Items(DenseRows(items), 0, 3000, 24), seen, 20)
    monkeypatch.setattr(native, "library", lambda: None)
    plain = rank(users, Items(DenseRows(items), 0, 3000, 24), seen, 20)
    there = plain[0] < 3000
    np.testing.assert_array_equal(plain[0], kernel[0])
    np.testing.assert_array_equal(plain[1][there], kernel[1][there])


def test_scores_that_overflow_are_ranked_too(way):
    users = np.full((70, 2), 3e38, np.float32)
    items = np.array([[1, 0], [2, 0], [3e38, -3e38], [0, 0], [-3e38, 0]], np.float32)
    seen = np.zeros(71, np.int64), np.zeros(0, np.int64)
    ranked, _ = rank(users, Items(DenseRows(items), 0, 5, 2), seen, 5)
    # The score of the second and third is infinite, and that of the last is none.
    assert (ranked == [1, 2, 0, 3, 5]).all()
