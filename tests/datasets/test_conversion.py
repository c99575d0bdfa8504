from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pyg_lth.datasets import DatasetError, DatasetOptions, load_dataset
from pyg_lth.datasets.conversion import convert

LOG = "user_id,item_id,stars,when\n" + "".join(
    f"u {u},{i},{(u + i) % 5},2020-01-{u + i + 1:02}T00:00:00+01:00\n"
    for u in range(6)
    for i in range(10)
)


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(LOG + "u 1,3,4,2020-02-01T00:00:00Z\n,7,1,2020-01-01T00:00:00Z\n")
    return {"dataset": "log.csv", "time_col": "when", "rating_col": "stars", "drop_missing": True}


def test_a_log_as_parquet(log):
    files, notes = convert(DatasetOptions(**log), Path("deep/out.parquet"))
    assert files == [Path("deep/out.parquet")] and len(notes) == 1
    table = pq.read_table(files[0])
    assert table.column_names == ["user_id", "item_id", "time", "rating"] and len(table) == 61
    assert [pa.types.is_integer(kind) for kind in table.schema.types] == [False, True, False, True]
    last = {"split": "last"}
    again = load_dataset(
        DatasetOptions(dataset=str(files[0]), time_col="time", rating_col="rating", **last)
    )
    assert edges(again) == edges(load_dataset(DatasetOptions(**log, **last)))


def edges(dataset):
    found = dataset[0]["user", "rates", "item"]
    return {
        key: {
            (str(dataset.user_ids[u]), int(dataset.item_ids[i]))
            for u, i in zip(*index.tolist(), strict=True)
        }
        for key, index in found.items()
    }


def test_a_split_there_and_back(log):
    options = DatasetOptions(**log, core=2, split="last")
    files, _ = convert(options, Path("split"))
    assert [path.name for path in files] == [
        *("item_list.txt", "test.txt", "train.txt", "user_list.txt", "valid.txt"),
    ]
    made, back = load_dataset(options), load_dataset(DatasetOptions(dataset="split"))
    assert back.counts == made.counts
    for key, index in made[0]["user", "rates", "item"].items():
        assert back[0]["user", "rates", "item"][key].equal(index)
    assert back.user_ids.tolist() == made.user_ids.tolist()
    assert back.item_ids.tolist() == made.item_ids.tolist()
    convert(DatasetOptions(dataset="split"), Path("split.parquet"))
    table = pq.read_table("split.parquet").to_pydict()
    assert set(table["part"]) == {"train", "valid", "test"}
    assert len(table["part"]) == made.counts.train + made.counts.valid + made.counts.test


def test_lightgcn_text(log):
    files, notes = convert(DatasetOptions(**log), Path("out/all.txt"))
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        path.name for path in files
    )
    assert any("repeated" in note for note in notes)
    lines = files[0].read_text().splitlines()
    assert len(lines) == 6 and sum(len(line.split()) - 1 for line in lines) <= 60
    assert files[1].read_text().startswith("org_id remap_id\nu 0 0\nu 1 1\n")


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        ({}, "log.csv", "log.csv: is there already; name another place"),
        ({"core": 3}, "out.parquet", "log.csv: `core` shapes a data set, and Parquet gets the log"),
        ({"drop_missing": None}, "out.parquet", "log.csv, line 63: empty id"),
        ({"dataset": "none"}, "out", "unknown data set 'none'"),
    ],
)
def test_what_is_refused_leaves_nothing(log, options, out, message):
    with pytest.raises(DatasetError) as caught:
        convert(DatasetOptions(**{**log, **options}), Path(out))
    assert message in str(caught.value)
    assert [path.name for path in Path().iterdir() if path.name != "data"] == ["log.csv"]


def test_ids_that_lists_cannot_hold(log):
    Path("odd.csv").write_text(
        "user_id,item_id\n" + "".join(f'"a\n{u}",{i}\n' for u in range(3) for i in range(10))
    )
    with pytest.raises(DatasetError, match="holds a line end; convert to Parquet instead"):
        convert(DatasetOptions(dataset="odd.csv"), Path("odd"))
    assert not Path("odd").exists()
    convert(DatasetOptions(dataset="odd.csv"), Path("odd.parquet"))
