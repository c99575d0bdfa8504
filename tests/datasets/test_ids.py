import numpy as np
import pytest

from pyg_lth.datasets.ids import as_integers, read_ids, write_ids


@pytest.mark.parametrize("ids", [["7", "-1", "0"], ["9223372036854775807"]])
def test_as_integers(ids):
    assert as_integers(ids).tolist() == list(map(int, ids))


@pytest.mark.parametrize("ids", [["007", "1"], ["9223372036854775808"], ["a"], ["1 "], ["1_0"]])
def test_as_integers_loses_nothing(ids):
    assert as_integers(ids).tolist() == ids


def test_written_ids_come_back(tmp_path):
    for ids in ([3, 5, 2**40], ["a,b", 'say "x"', "two\nlines", " 7", ""], ["01", "1"]):
        write_ids(tmp_path / "ids.csv", np.array(ids, dtype=None if ids[0] == 3 else object))
        assert read_ids(tmp_path / "ids.csv").tolist() == ids
