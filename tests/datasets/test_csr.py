import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pyg_lth.datasets import (
    DatasetError,
    InteractionFile,
    InteractionTable,
    csr,
    parquet,
    read_csr,
)
from pyg_lth.datasets.interaction_log import Rules
from pyg_lth.datasets.interaction_table import columns_of

NAMES = ("user_id", "item_id")
OPTIONS = ("time_col", "rating_col", "min_rating", "core", "split", "split_seed")
RULES = dict.fromkeys((*OPTIONS, "ids", "drop_missing", "repeats", "drop_cold"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(parquet, "PIECE", 7)
    monkeypatch.setattr(csr, "PIECE", 7)


def draw(seed, kind):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 23, 300), rng.zipf(1.3, 300).clip(max=40) - 3
    if kind == "text":
        return pa.table({"user_id": [f"u {n}" for n in users], "item_id": [f"é{n}" for n in items]})
    if kind == "dictionary":
        text = pa.array([f"u{n}" for n in users]).dictionary_encode()
        return pa.table({"user_id": text, "item_id": pa.array(items, pa.int16())})
    return pa.table({"user_id": pa.array(users + 2**40), "item_id": pa.array(items, pa.int32())})


def write(folder, table, ends=(0, 100, 101, 290, 300)):
    """A folder of parts as Spark leaves one, one of them empty and one of several row groups."""
    (folder / "day=2").mkdir(parents=True)
    for number, (begin, end) in enumerate(itertools.pairwise(ends)):
        name = folder / ("day=2" if number == 3 else "") / f"part-{number:04}.parquet"
        pq.write_table(table.slice(begin, end - begin), name, row_group_size=30)
    pq.write_table(table.slice(0, 0), folder / "part-0002b.parquet")
    for name in ("_SUCCESS", "_metadata", "_common_metadata", ".part-0000.parquet.crc"):
        (folder / name).touch()
    # By name, what lies in a folder comes first.
    return pa.concat_tables([table.slice(ends[3]), table.slice(0, ends[3])])


def plain(table, **options):
    rules = Rules.checked("log", NAMES, user_col=None, item_col=None, is_given=False, **RULES)
    log = rules._replace(**options).read(columns_of(table.to_pandas(), "log", list(NAMES)))
    order = np.lexsort((log.items, log.users))
    return log, np.stack([log.users[order], log.items[order]])


@pytest.mark.parametrize("ids", ["auto", "text"])
@pytest.mark.parametrize("kind", ["integers", "text", "dictionary"])
def test_the_matrix_is_what_the_plain_reader_makes_of_all_rows(tmp_path, kind, ids):
    log, pairs = plain(write(tmp_path / "log", draw(0, kind)), ids=ids)
    found = read_csr(tmp_path / "log", ids=ids)
    assert (found.indptr.dtype, found.indices.dtype) == (np.int64, np.int32)
    assert found.pairs().dtype == np.int64 and np.array_equal(found.pairs(), pairs)
    for own, known in ((found.user_ids, log.user_ids), (found.item_ids, log.item_ids)):
        assert own.dtype == known.dtype and own.tolist() == known.tolist()
    assert [note.split(": ")[1] for note in found.notes] == [
        f"{300 - pairs.shape[1]} repeated interactions merged"
    ]
    assert found.nbytes == 8 * (log.user_ids.size + 1) + 4 * pairs.shape[1]


def write_parts(folder, *parts):
    folder.mkdir(exist_ok=True)
    for number, columns in enumerate(parts):
        pq.write_table(pa.table(columns), folder / f"part-{number}.parquet")
    return folder


GOOD = {"user_id": ["a"] * 20, "item_id": list(range(20))}
LATE = list(range(40, 59))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"user_id": [*"bcd" * 6, None, "e"], "item_id": list(range(20))},
            "LOG, part-1.parquet, row 19: empty id in column 'user_id'; give every row one, or set "
            "`drop_missing`",
        ),
        (
            {"user_id": [*"bcd" * 6, "NaN", ""], "item_id": list(range(20))},
            "LOG, part-1.parquet, row 19: empty id in column 'user_id'; give every row one, or set "
            "`drop_missing`",
        ),
        (
            {"user_id": ["b"] * 20, "item_id": [*LATE, None]},
            "LOG, part-1.parquet, row 20: empty id in column 'item_id'; give every row one, or set "
            "`drop_missing`",
        ),
        (
            {"user_id": ["b"] * 20, "song": [*LATE, 1]},
            "LOG/part-1.parquet, schema: no column 'item_id'; name one of user_id, song",
        ),
        (
            {"user_id": [1], "item_id": [1]},
            "LOG/part-1.parquet, schema: column 'user_id' holds int64 where the parts before it "
            "hold string; use one type",
        ),
        (
            {"user_id": ["b"], "item_id": [0.5]},
            "LOG: column 'item_id' holds double; store ids as text or integers",
        ),
    ],
    ids=["none", "nan", "no item", "no column", "other type", "floats"],
)
def test_what_is_refused_is_refused_as_by_any_reader(tmp_path, bad, message):
    folder = write_parts(tmp_path / "log", GOOD, bad)
    with pytest.raises(DatasetError) as caught:
        read_csr(folder)
    assert str(caught.value) == message.replace("LOG", str(folder))


def test_ids_of_another_kind_are_refused_at_their_first_row(tmp_path):
    folder = write_parts(tmp_path / "log", GOOD, {"user_id": ["7"] * 20, "item_id": [*LATE, 1]})
    with pytest.raises(DatasetError, match=r"part-0.parquet, row 1: id 'a' in column 'user_id' is"):
        read_csr(folder, ids="integer")
    floats = {"user_id": [0.0, -0.0, 3.0], "item_id": [1, 1, 1]}
    found = read_csr(write_parts(tmp_path / "whole", floats), ids="integer")
    assert (found.user_ids.tolist(), found.indices.tolist()) == ([0, 3], [0, 0])
    floats["user_id"][2] = 2.5
    with pytest.raises(DatasetError, match=r"row 3: column 'user_id' holds no whole number"):
        read_csr(write_parts(tmp_path / "whole", floats), ids="integer")


def test_a_value_that_does_not_fit_the_common_type_is_named_with_its_row(tmp_path):
    first = {"user_id": [1, 2**60 + 1], "item_id": [1, 1]}
    folder = write_parts(tmp_path / "log", first, {"user_id": [1.5], "item_id": [1]})
    with pytest.raises(DatasetError, match=r"part-0.parquet, row 2: 1152921504606846977 in column"):
        read_csr(folder)


def test_an_empty_folder_and_a_folder_without_rows_are_refused(tmp_path):
    (tmp_path / "log").mkdir()
    with pytest.raises(DatasetError, match="the folder holds no Parquet files; name another"):
        read_csr(tmp_path / "log")
    empty = {"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.int64())}
    with pytest.raises(DatasetError, match="the file has no rows; a data set needs interactions"):
        read_csr(write_parts(tmp_path / "log", empty))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split_seed": 3, "core": 2},
        {"rating_col": "stars", "min_rating": 3},
        {"rating_col": "stars", "min_rating": 3, "time_col": "when"},
        {"time_col": "when", "split": "last"},
        {"drop_missing": True},
        {"ids": "text"},
    ],
    ids=str,
)
def test_a_folder_is_the_data_set_of_its_rows_in_one_frame(tmp_path, options):
    rng = np.random.default_rng(1)
    table = draw(1, "text")
    table = table.append_column("stars", pa.array(rng.integers(1, 6, 300)))
    table = table.append_column("when", pa.array(rng.integers(0, 99, 300)))
    if options.get("drop_missing"):
        missing = pa.array([f"u{n}" if n else None for n in rng.integers(0, 9, 300)])
        table = table.set_column(0, "user_id", missing)
    whole = write(tmp_path / "log", table)
    known = InteractionTable(whole.to_pandas(), **options)
    found = InteractionFile(tmp_path / "root", tmp_path / "log", **options)
    assert found.counts == known.counts and found.user_ids.tolist() == known.user_ids.tolist()
    assert found.item_ids.tolist() == known.item_ids.tolist()
    own, other = (data[0]["user", "rates", "item"] for data in (found, known))
    assert list(own) == list(other) and "edge_label_index" in own
    for name, pairs in own.items():
        assert pairs.dtype == torch.int64 and torch.equal(pairs, other[name])
    dropped = [note for note in found.notes if "without a value" in note]
    assert bool(dropped) == bool(options.get("drop_missing"))


def test_repeats_are_refused_with_part_and_row(tmp_path):
    folder = write_parts(tmp_path / "log", GOOD, {"user_id": ["b", "a"], "item_id": [5, 19]})
    with pytest.raises(DatasetError, match=r"part-0.parquet, row 20: user 'a' and item 19 come ag"):
        InteractionFile(tmp_path / "root", folder, repeats="refuse")


def test_rows_without_an_id_are_dropped_and_those_after_keep_their_place(tmp_path):
    holes = {"user_id": [None, "b", "NaN", "c"] * 5, "item_id": [1, None, *range(18)]}
    folder = write_parts(tmp_path / "log", GOOD, holes)
    found = read_csr(folder, drop_missing=True)
    assert found.user_ids.tolist() == ["a", "b", "c"]
    assert np.diff(found.indptr).tolist() == [20, 4, 5]
    assert found.notes == (
        f"{folder}: 11 rows without a value in user_id or item_id dropped (first: part-1.parquet, "
        "row 1)",
    )
    holes["user_id"][11] = "x"
    folder = write_parts(tmp_path / "log", {**GOOD, "user_id": ["5"] * 20}, holes)
    with pytest.raises(DatasetError, match=r"part-1.parquet, row 4: id 'c' in column 'user_id' is"):
        read_csr(folder, ids="integer", drop_missing=True)
    every = {"user_id": [None], "item_id": [1]}
    with pytest.raises(DatasetError, match="every row lacks one of user_id, item_id"):
        read_csr(write_parts(tmp_path / "every", every), drop_missing=True)
