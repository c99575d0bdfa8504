import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_lth.errors import InputError
from pyg_lth.tickets import IdTable, ItemLists


def pairs_of(lists):
    pairs = [(user, item) for user, items in enumerate(lists) for item in items]
    return np.array(pairs, np.int64).reshape(-1, 2).T


@given(
    lists=st.lists(st.sets(st.integers(0, 2**31 - 2), max_size=6), min_size=1, max_size=8),
    users=st.lists(st.integers(0, 7), max_size=5),
)
@settings(max_examples=80, deadline=None)
def test_lists_come_back(lists, users):
    packed = ItemLists.from_pairs(pairs_of(lists), len(lists), 2**31 - 1)
    users = [user % len(lists) for user in users]
    found = ItemLists.from_tensors(packed.tensors(), len(lists), 2**31 - 1)
    for asked, wanted in ((users, users), (slice(1, 3), range(len(lists))[1:3])):
        rowptr, items = found.of_users(asked)
        assert [items[a:b].tolist() for a, b in itertools.pairwise(rowptr)] == [
            sorted(lists[user]) for user in wanted
        ]


def test_pairs_may_come_in_any_order_and_degrees_are_counted():
    lists = ItemLists.from_pairs(np.array([[2, 0, 2], [1, 3, 0]]), 3, 5)
    assert lists.degrees.tolist() == [1, 1, 0, 1, 0]
    assert lists.nbytes == 3 + 3


@pytest.mark.parametrize(
    ("ids", "known", "unknown", "nbytes"),
    [
        (range(5), {4: 4, "3": 3, np.int64(2): 2}, [5, -1, "03", "x", 2.5], 0),
        ([7, 3, 300], {7: 0, "300": 2}, [0, "007", ""], 6),
        ([-5, 2**40], {-5: 0, str(2**40): 1}, [0, 2**70], 16),
        (["b", "a", "zoë", ""], {"b": 0, "zoë": 2, "": 3}, ["c", 1], 4 + 6),
        (["1", "x"], {"1": 0, 1: 0}, ["01"], 4),
    ],
)
def test_ids_and_back(ids, known, unknown, nbytes):
    packed = IdTable.of(ids)
    table = IdTable.from_tensors(packed.tensors, len(ids))
    assert table.nbytes == nbytes
    assert table.at(np.arange(len(ids))) == list(ids)
    assert {value: table.index_of(value) for value in known} == known
    assert all(table.index_of(value) is None for value in unknown)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([1, 1], "two indices"), ([1, "a"], "all integers or all text"), ([0, 2**63], "64 bits")],
)
def test_ids_that_cannot_be_are_refused(ids, message):
    with pytest.raises(InputError, match=message):
        IdTable.of(ids)
