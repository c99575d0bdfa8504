import subprocess
import sys

import pandas
import pytest

from pyg_lth.datasets import DatasetError, InteractionFile, InteractionTable

polars = pytest.importorskip("polars")


@pytest.fixture
def frame():
    rows = [
        (u, i, (u * 7 + i * 3) % 5 + 0.5, u * i * 7 % 31)
        for u in range(8)
        for i in range(0, 20, u % 3 + 1)
    ]
    frame = pandas.DataFrame(rows, columns=["user_id", "item_id", "stars", "when"])
    return frame.assign(when=pandas.to_datetime(frame.when, unit="D"))


def same(first, second):
    edges = [dataset[0]["user", "rates", "item"] for dataset in (first, second)]
    assert set(edges[0].keys()) == set(edges[1].keys())
    assert all(value.equal(edges[1][key]) for key, value in edges[0].items())
    assert first.counts == second.counts
    assert first.user_ids.tolist() == second.user_ids.tolist()
    assert first.item_ids.tolist() == second.item_ids.tolist()


@pytest.mark.parametrize("convert", [lambda f: f, lambda f: polars.from_pandas(f)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"core": 5, "split_seed": 3},
        {"time_col": "when", "split": "last", "rating_col": "stars", "min_rating": 1},
    ],
)
def test_a_frame_and_its_file_agree(tmp_path, frame, convert, options):
    frame.to_csv(tmp_path / "log.csv", index=False)
    frame.to_parquet(tmp_path / "log.parquet")
    table = InteractionTable(convert(frame), **options)
    for name in ("log.csv", "log.parquet"):
        dataset = InteractionFile(tmp_path / "root", tmp_path / name, **options)
        same(table, dataset)
        assert [note.partition(": ")[2] for note in table.notes] == [
            note.partition(": ")[2] for note in dataset.notes
        ]


def test_a_given_split_and_copies(frame):
    train, test = frame[frame.index % 5 > 0], frame[frame.index % 5 == 0]
    table = InteractionTable(train, test_frame=test)
    assert table.counts.train == len(train) and table.counts.test == len(test)
    assert table.counts.valid == 0 and table[0].validate() and table.copy()[0].validate()
    assert InteractionTable(train, valid_frame=test[:3], test_frame=test[3:]).counts.valid == 3
    text = InteractionTable(frame.astype({"user_id": str}))
    assert text.user_ids.tolist() == [str(user) for user in range(8)]
    assert InteractionTable(frame.astype({"user_id": "category"})).counts == text.counts
    gaps = frame.astype({"user_id": "Int64"})
    gaps.loc[3, "user_id"] = None
    assert InteractionTable(gaps, drop_missing=True).notes[0].endswith("row 4 (position 3))")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            lambda f: f.assign(user_id=None),
            {},
            "frame, row 1 (position 0): empty id in column 'user_id'",
        ),
        (
            lambda f: f.assign(user_id=[1, "a"] * (len(f) // 2)),
            {},
            "frame, row 2 (position 1): 'a' in column 'user_id' cannot be stored",
        ),
        (lambda f: f.assign(item_id=f.item_id + 0.5), {}, "frame: column 'item_id' holds double"),
        (
            lambda f: f.drop(columns="user_id"),
            {},
            "frame: no column 'user_id'; name one of item_id",
        ),
        (lambda f: f[:0], {}, "frame: the file has no rows"),
        (lambda f: f.to_dict(), {}, "frame: 'dict' is no frame; give one of pandas or polars"),
        (lambda f: polars.from_pandas(f).lazy(), {}, "is no frame"),
        (lambda f: f, {"split": "last"}, "frame: `split=last` needs `time_col`"),
        (lambda f: f, {"valid_frame": 3}, "frame: `valid_frame` needs `test_frame`"),
        (lambda f: f, {"repeats": "refuse", "test_frame": 3}, "test_frame: 'int' is no frame"),
        (lambda f: pandas.concat([f, f]), {"repeats": "refuse"}, "come again later, as do"),
    ],
)
def test_bad_frames(frame, change, options, message):
    even = frame[: len(frame) // 2 * 2]
    with pytest.raises(DatasetError) as caught:
        InteractionTable(change(even), **options)
    assert message in str(caught.value)


def test_a_file_needs_no_library_of_frames():
    # pandas too is ours to import only here, but PyG imports it where it is installed.
    script = (
        "import sys; import pyg_lth.datasets.interaction_file, pyg_lth.datasets.interaction_table\n"
        "print([name for name in ('polars', 'narwhals') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr
