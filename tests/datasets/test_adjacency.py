import gzip
import random

import numpy as np
import pytest

from pyg_lth.datasets import DatasetError
from pyg_lth.datasets.adjacency import read_adjacency


def naive(text):
    return sorted(
        (int(user), int(item))
        for user, *items in (line.split() for line in text.splitlines() if line.strip())
        for item in items
    )


def test_equals_naive_reader(tmp_path):
    path = tmp_path / "train.txt"
    rng = random.Random(0)
    for _ in range(30):
        users = rng.sample(range(50), rng.randint(1, 20))
        lines = [
            rng.choice([" ", "\t", "  "]).join(
                map(str, [user, *rng.sample(range(99), rng.randint(1, 9))])
            )
            + rng.choice(["", " ", "\n"])
            for user in users
        ]
        end = rng.choice(["\n", "\r\n", "\r"])
        text = end.join(lines) + rng.choice(["", end, end * 2])
        path.write_bytes(text.encode())
        pairs = read_adjacency(path).pairs
        assert pairs.dtype == np.int64 and pairs.shape[0] == 2
        assert list(map(tuple, pairs.T.tolist())) == naive(text)


def test_users_without_items_gzip_and_byte_order_mark(tmp_path):
    path = tmp_path / "train.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf3 1\n0\n5 2147483647 7"))
    assert read_adjacency(path).pairs.tolist() == [[3, 5, 5], [1, 7, 2147483647]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 1\n1 x2 3\n", "line 2: id 'x2' is not an integer; a line is a user id"),
        (b"0 1\n1 2.0\n", "line 2: id '2.0' is not an integer"),
        (b"0 1\n\n1 2 -3\n", "line 3: id '-3' is negative"),
        (b"0 1\n1 2147483648\n", "line 2: id '2147483648' is larger than 2147483647"),
        (b"0 1\n1 99999999999999999999 5\n", "line 2: id '99999999999999999999' is larger"),
        (b"0 1\r1 2\f3\r", "line 2: id '2\\x0c3' is not an integer"),
        (b"0 1\n1 \v2\n", "line 2: id '\\x0b2' is not an integer"),
        (b"0 1\n1 " + b"9" * 10**5 + b"\n", "line 2: id '" + "9" * 60 + "'… is larger"),
        (b"0\n1\n", "no user has an item"),
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"0 1\n1 \xff\n", "line 2: byte 0xff is not UTF-8; convert the file to UTF-8"),
        ("0 1\n1 \u0663\n".encode(), "line 2: id '\u0663' is not an integer"),
    ],
)
def test_bad_lines(tmp_path, content, message):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_adjacency(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.txt: cannot be read \(No such file"):
        read_adjacency(tmp_path / "none.txt")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"0 1\n" * 100)[:-10])
    with pytest.raises(DatasetError, match=r"a\.txt\.gz: damaged gzip file .*fetch it again"):
        read_adjacency(tmp_path / "a.txt.gz")


def test_what_repeats_is_merged_and_counted_at_once(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("0 1 2 1 1\n1 4 5\n0 2 9\n1 7 8 9\n\n0\n")
    text = read_adjacency(path)
    assert text.pairs.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1], [1, 2, 9, 4, 5, 7, 8, 9]]
    assert text.repeats == (
        "line 3: user 0 has a line already (and 2 more such lines)",
        "line 1: item 1 appears twice for user 0 (and 2 more such pairs)",
    )


@pytest.mark.parametrize("weight", ["", " 1"])
def test_lists_of_pairs(tmp_path, weight):
    path = tmp_path / "train.txt"
    path.write_text("".join(f"{u} {i}{weight}\n" for u, i in [(0, 3), (1, 1), (0, 4), (0, 3)]))
    text = read_adjacency(path)
    assert text.pairs.tolist() == [[0, 0, 1], [3, 4, 1]]
    assert text.repeats == ()
    assert text.notes == (
        f"{path}: taken for a list of pairs, one a line",
        f"{path}: 1 repeated interactions merged",
    )
    path.write_text("0 3 1\n1 1 1\n2 0 1\n")  # no user comes again: a list of items
    assert read_adjacency(path).pairs.tolist() == [[0, 0, 1, 2, 2], [1, 3, 1, 0, 1]]
    path.write_text("0 3 1\n1 1 5\n0 4 2\n")
    with pytest.raises(DatasetError, match="pairs with ratings; set `separator=space` and `no_hea"):
        read_adjacency(path)
