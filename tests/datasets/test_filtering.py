from collections import Counter

import numpy as np
import pytest

from pyg_lth.datasets.filtering import k_core, last_of_pairs


def naive_k_core(pairs, core):
    alive = list(range(len(pairs)))
    while True:
        users = Counter(pairs[row][0] for row in alive)
        items = Counter(pairs[row][1] for row in alive)
        kept = [r for r in alive if min(users[pairs[r][0]], items[pairs[r][1]]) >= core]
        if kept == alive:
            return alive
        alive = kept


@pytest.mark.parametrize("core", [0, 1, 2, 3, 5])
def test_k_core_equals_naive(core):
    rng = np.random.default_rng(core)
    for size in (0, 1, 30, 120):
        users, items = rng.integers(0, 20, size), rng.integers(0, 15, size)
        pairs = list(zip(users.tolist(), items.tolist(), strict=True))
        assert k_core(users, items, core).tolist() == naive_k_core(pairs, core)


def test_k_core_unravels_a_chain():
    users, items = np.array([0, 1, 1, 2, 2, 3]), np.array([0, 0, 1, 1, 2, 2])
    assert k_core(users, items, 2).size == 0


@pytest.mark.parametrize("with_times", [False, True])
def test_last_of_pairs_equals_naive(with_times):
    rng = np.random.default_rng(0)
    for size in (0, 1, 100):
        users, items = rng.integers(0, 5, size), rng.integers(0, 5, size)
        times = rng.integers(0, 4, size) if with_times else None
        last = {}
        for row, pair in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
            if pair not in last or times is None or times[row] >= times[last[pair]]:
                last[pair] = row
        assert last_of_pairs(users, items, times).tolist() == sorted(last.values())
