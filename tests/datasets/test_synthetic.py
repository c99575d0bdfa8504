import numpy as np
import pytest

from pyg_lth.datasets import DatasetError, Synthetic
from pyg_lth.datasets.synthetic import generate


def test_default(tmp_path):
    dataset = Synthetic(tmp_path)
    counts = dataset.counts
    assert (counts.users, counts.items) == (1000, 800)
    assert counts.train + counts.valid + counts.test == 30_000
    assert 0.7 < counts.train / 30_000 < 0.75 and 0.17 < counts.test / 30_000 < 0.2
    degrees = np.bincount(dataset[0]["user", "rates", "item"].edge_index[1], minlength=800)
    assert np.sort(degrees)[-80:].sum() > 0.25 * degrees.sum()


def test_generate_is_frozen():
    pairs = generate(30, 20, 100, seed=5)
    assert (pairs[0] * 7919 + pairs[1] * 104_729).sum() == 99_695_253
    assert generate(30, 20, 100, seed=6).tolist() != pairs.tolist()


@pytest.mark.parametrize("shape", [(2, 20, 20), (20, 2, 20), (10, 8, 40), (300, 200, 5000)])
def test_generate_gives_distinct_pairs(shape):
    users, items = generate(*shape, seed=0)
    keys = users * shape[1] + items
    assert keys.size == shape[2] and (np.diff(keys) > 0).all()
    assert users.min() >= 0 and users.max() < shape[0] and items.max() < shape[1]


def test_taste_can_be_learned():
    """Items that share users come from the same few genres: the spectrum is not flat."""
    users, items = generate(400, 300, 9000, seed=0)
    matrix = np.zeros((400, 300))
    matrix[users, items] = 1
    expected = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    spectrum = np.linalg.svd((matrix - expected) / np.sqrt(expected + 1e-9), compute_uv=False)
    assert spectrum[13] > 1.15 * spectrum[16]


@pytest.mark.parametrize("shape", [(1, 20, 10), (20, 1, 10), (10, 8, 41), (10, 8, 9)])
def test_numbers_that_do_not_fit(tmp_path, shape):
    with pytest.raises(DatasetError, match="at least 2 users"):
        Synthetic(tmp_path, *shape)
