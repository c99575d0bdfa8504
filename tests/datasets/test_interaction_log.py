import numpy as np
import pytest

from pyg_lth.datasets.interaction_log import _at_least, _positions


@pytest.mark.parametrize(
    ("dtype", "values", "least", "expected"),
    [
        ("float32", [0.7, 0.69, np.inf], 0.7, [1, 0, 1]),
        ("float16", [0.1, 0.2], 0.2, [0, 1]),
        ("float32", [1, 2], 1e300, [0, 0]),
        ("int64", [2**53, 2**53 + 1], 2**53 + 1, [0, 1]),
        ("int64", [3, 4, 5], 3.5, [0, 1, 1]),
        ("int8", [-3, 4], -200, [1, 1]),
        ("int8", [-3, 4], 200.5, [0, 0]),
        ("uint64", [2**64 - 1, 1], 2, [1, 0]),
        ("uint8", [0, 1], -1, [1, 1]),
    ],
)
def test_ratings_are_compared_in_their_own_type(dtype, values, least, expected):
    assert _at_least(np.array(values, dtype=dtype), least).tolist() == list(map(bool, expected))


def test_positions():
    known = np.array([2, 5, 9])
    assert _positions(np.array([9, 1, 5, 10]), known).tolist() == [2, -1, 1, -1]
    text = np.array(["b", "d"], dtype=object)
    assert _positions(np.array(["d", "a"], dtype=object), text).tolist() == [1, -1]
    assert _positions(known, known[:0]).tolist() == [-1, -1, -1]
