import csv
import gzip
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pyg_lth.datasets import DatasetError, InteractionFile

PARTS = ("edge_index", "val_edge_label_index", "edge_label_index")


def rows(seed=0, users=12, items=10):
    rng = random.Random(seed)
    return [
        {
            "user_id": f"u{rng.randrange(users):02}",
            "item_id": rng.randrange(items) * 5,
            "when": rng.randrange(1000),
            "stars": rng.randrange(1, 11) / 2,
        }
        for _ in range(users * items)
    ]


def write(path, table):
    suffix = path.name.removesuffix(".gz").rsplit(".")[-1]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
        return path
    if suffix == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in table)
    else:
        delimiter = {"csv": ",", "tsv": "\t"}[suffix]
        lines = [list(table[0]), *(row.values() for row in table)]
        text = "".join(delimiter.join(map(str, line)) + "\n" for line in lines)
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def parts(dataset):
    """The pairs of each part in original ids."""
    edges = dataset[0]["user", "rates", "item"]
    return [
        set()
        if part not in edges
        else set(
            zip(
                dataset.user_ids[edges[part][0].numpy()].tolist(),
                dataset.item_ids[edges[part][1].numpy()].tolist(),
                strict=True,
            )
        )
        for part in PARTS
    ]


def fails(root, path, **options):
    with pytest.raises(DatasetError) as caught:
        InteractionFile(root, path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SUFFIXES = ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.gz", "jsonl.gz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats_agree(tmp_path, suffix):
    table = rows()
    path = write(tmp_path / f"log.{suffix}", table)
    dataset = InteractionFile(tmp_path / "root", path)
    train, valid, test = parts(dataset)
    assert train | valid | test <= {(row["user_id"], row["item_id"]) for row in table}
    assert dataset.user_ids.tolist() == sorted({user for user, _ in train})
    assert dataset.item_ids.tolist() == sorted({item for _, item in train})
    assert parts(InteractionFile(tmp_path / "root", write(tmp_path / "a.csv", table))) == [
        train,
        valid,
        test,
    ]
    folder = Path(dataset.root)
    assert folder.parent == tmp_path / "root" and folder.name.startswith("log-")
    assert not (folder / "raw").exists() and dataset.raw_paths == [str(path)]
    with Path(dataset.processed_paths[2]).open(newline="") as file:
        written = list(csv.reader(file))
    assert written[:2] == [["index", "id"], ["0", str(dataset.item_ids[0])]]


def test_last_by_time_with_ratings_and_core(tmp_path):
    table = rows()
    path = write(tmp_path / "log.csv", table)
    dataset = InteractionFile(
        tmp_path / "root",
        path,
        time_col="when",
        rating_col="stars",
        min_rating=2.5,
        core=3,
        split="last",
    )
    last = {}
    for row in table:
        pair = (row["user_id"], row["item_id"])
        if pair not in last or row["when"] >= last[pair]["when"]:
            last.pop(pair, None)
            last[pair] = row
    log = [(*pair, row["when"]) for pair, row in last.items() if row["stars"] >= 2.5]
    while True:
        kept = [
            row
            for row in log
            if sum(row[0] == other[0] for other in log) >= 3
            and sum(row[1] == other[1] for other in log) >= 3
        ]
        if kept == log:
            break
        log = kept
    expected = [set(), set(), set()]
    order = {pair: place for place, pair in enumerate(last)}
    for user in {row[0] for row in log}:
        mine = sorted((r for r in log if r[0] == user), key=lambda r: (r[2], order[r[:2]]))
        for place, row in enumerate(reversed(mine)):
            expected[{0: 2, 1: 1}.get(place, 0)].add(row[:2])
    items = {item for _, item in expected[0]}
    found = parts(dataset)
    assert found[0] == expected[0]
    # Of equal times the later line counts as later, which the oracle follows only roughly.
    assert {pair for pair in expected[2] if pair[1] in items} == found[2]
    assert {pair for pair in expected[1] if pair[1] in items} == found[1]


def test_given_files_keep_cold_users_and_items(tmp_path):
    train = write(tmp_path / "a.csv", [{"u": f"x{n}", "i": n} for n in (0, 1, 2)])
    valid = write(tmp_path / "b.csv", [{"u": "x3", "i": 1}, {"u": "x9", "i": 9}])
    test = write(tmp_path / "c.csv", [{"u": "x0", "i": 9}, {"u": "x1", "i": 0}])
    options = {"user_col": "u", "item_col": "i", "valid_file": valid, "test_file": test}
    kept = InteractionFile(tmp_path, train, **options)
    assert parts(kept) == [
        {("x0", 0), ("x1", 1), ("x2", 2)},
        {("x3", 1), ("x9", 9)},
        {("x0", 9), ("x1", 0)},
    ]
    assert kept.user_ids.tolist() == ["x0", "x1", "x2", "x3", "x9"]
    assert kept.notes == (
        f"{train}: 2 users and 1 items without a training interaction kept "
        "(`drop_cold` leaves them out)",
    )
    dropped = InteractionFile(tmp_path, train, **options, drop_cold=True)
    assert parts(dropped) == [parts(kept)[0], set(), {("x1", 0)}]
    assert dropped.notes == (
        f"{valid}: 2 valid interactions with a user or item that training lacks dropped",
        f"{test}: 1 test interactions with a user or item that training lacks dropped",
    )
    # Who is too rare for the core does not come back as cold.
    cored = InteractionFile(tmp_path, train, **options, core=1)
    assert parts(cored) == parts(dropped)
    write(test, [{"u": "x0", "i": 9}])
    assert "no interactions are left for test" in fails(tmp_path, train, **options, drop_cold=True)


def test_overlapping_parts_are_refused_or_merged(tmp_path):
    train = write(tmp_path / "a.csv", [{"user_id": n, "item_id": n} for n in (0, 1, 2)])
    valid = write(tmp_path / "b.csv", [{"user_id": 0, "item_id": n} for n in (0, 1)])
    test = write(tmp_path / "c.csv", [{"user_id": n, "item_id": 1} for n in (0, 1, 2)])
    options = {"valid_file": valid, "test_file": test}
    message = fails(tmp_path, train, **options)
    assert "a.csv: 1 pairs of valid are in a part before it (first: user 0, item 0); " in message
    assert "2 pairs of test are in a part before it (first: user 0, item 1); repair" in message
    dataset = InteractionFile(tmp_path, train, **options, repeats="merge")
    assert parts(dataset) == [{(0, 0), (1, 1), (2, 2)}, {(0, 1)}, {(2, 1)}]
    assert len(dataset.notes) == 2 and all("merged" in note for note in dataset.notes)


def test_given_files_of_other_id_types(tmp_path):
    numbers = write(tmp_path / "a.csv", [{"user_id": n, "item_id": n} for n in range(4)])
    letters = write(tmp_path / "b.csv", [{"user_id": "x", "item_id": 1}])
    message = fails(tmp_path, numbers, test_file=letters)
    assert "b.csv: its ids are text (first: 'x')" in message
    table = [{"user_id": user, "item_id": n % 2} for n, user in enumerate(["x", "y", "z", 7])]
    text = write(tmp_path / "c.csv", table)
    test = write(tmp_path / "d.csv", [{"user_id": 7, "item_id": 0}])
    assert parts(InteractionFile(tmp_path, text, test_file=test))[2] == {("7", 0)}


def test_lightgcn_text(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.txt").write_text("10 5 7\n11 7\n")
    only = InteractionFile(
        tmp_path, write_text(tmp_path / "log.txt", "\n".join(f"{u} 0 1 2 3 4" for u in range(4)))
    )
    assert only.counts == (4, 5, 16, 0, 4)
    (folder / "test.txt").write_text("10 8\n11 5\n")
    for path in (folder, folder / "train.txt"):
        dataset = InteractionFile(tmp_path, path)
        assert Path(dataset.root).name.startswith("mine-")
        assert parts(dataset) == [{(10, 5), (10, 7), (11, 7)}, set(), {(10, 8), (11, 5)}]
    (folder / "valid.txt").write_text("12 8\n11 5\n")
    (folder / "test.txt").write_text("10 8\n")
    assert parts(InteractionFile(tmp_path, folder))[1:] == [{(12, 8), (11, 5)}, {(10, 8)}]
    dropping = {"drop_cold": True}
    assert "no interactions are left for test" in fails(tmp_path, folder, **dropping)
    (folder / "train.txt").write_text("10 5 7\n11 7\n10 9 5 9\n")
    (folder / "test.txt").write_text("10 9\n10 8\n")
    message = fails(tmp_path, folder)
    assert "train.txt, line 3: user 10 has a line already; " in message
    assert "line 3: item 5 appears twice for user 10 (and 1 more such pair); " in message
    assert "1 pairs of test are in a part before it (first: user 10, item 9); repair" in message
    merged = InteractionFile(tmp_path, folder, repeats="merge")
    assert parts(merged)[0] == {(10, 5), (10, 7), (10, 9), (11, 7)}
    assert parts(merged)[2] == {(10, 8)}
    assert sum("merged" in note for note in merged.notes) == 3
    (folder / "user_list.txt").write_text(
        "org_id remap_id\n" + "".join(f"u{n} {n}\n" for n in range(13))
    )
    (folder / "item_list.txt").write_text(
        "org_id remap_id\n" + "".join(f"i{n} {n}\n" for n in range(9))
    )
    assert "item_list.txt: has no line for 9, which" in fails(tmp_path, folder, repeats="merge")
    with (folder / "item_list.txt").open("a") as file:
        file.write("i9 9\n")
    named = InteractionFile(tmp_path, folder, repeats="merge")
    assert parts(named)[2] == {("u10", "i8")}
    (folder / "test.txt").unlink()
    assert "test.txt: cannot be read (No such file" in fails(tmp_path, folder)


def write_text(path, text):
    path.write_text(text)
    return path


def test_variants_and_changed_files(tmp_path):
    path = write(tmp_path / "log.csv", rows())
    root = tmp_path / "root"
    made = [
        InteractionFile(root, path, **options).root
        for options in ({}, {"split_seed": 1}, {"core": 2}, {"time_col": "when", "split": "last"})
    ]
    assert len(set(made)) == 4 and InteractionFile(root, path).root == made[0]
    os.utime(path, ns=(1, 1))
    assert InteractionFile(root, path).root not in made


def test_repeats_of_ids_that_only_look_alike(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id\n" + "".join(f"{u},{i}\n" for u in ("01", "1") for i in "abcdefghij")
    )
    assert InteractionFile(tmp_path, path).user_ids.tolist() == ["01", "1"]


def test_quotes_newlines_crlf_and_byte_order_mark(tmp_path):
    body = "".join(f'{u},"say ""{i}"", ok","two\nlines"\r\n' for u in "ab" for i in range(10))
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"user_id,item_id,text\r\n{body}".encode())
    dataset = InteractionFile(tmp_path, path)
    assert dataset.counts.train == 14 and dataset.item_ids[0].startswith('say "')
    path.write_bytes(path.read_bytes() + b"\r\n,x,\r\n")
    assert "log.csv, line 43: empty id in column 'user_id'" in fails(tmp_path, path)


GOOD = "user_id,item_id,when,stars\n1,1,5,4\n2,1,6,3\n3,2,7,5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": the file is empty"),
        (b"user_id,item_id,when,stars\n", ": the file has no rows"),
        (
            GOOD.replace("user_id", "uid").encode(),
            ", line 1: no column 'user_id'; name one of uid, item_id, when, stars",
        ),
        (GOOD.replace("when", "user_id").encode(), ", line 1: two columns 'user_id'"),
        (GOOD.encode() + b"\n,4,5,6\n", ", line 6: empty id in column 'user_id'; give every row"),
        (GOOD.encode() + b"4,  ,5,6\n", ", line 5: empty id in column 'item_id'"),
        (GOOD.encode() + b"4,1,5,good\n", ", line 5: column 'stars' holds no number"),
        (GOOD.encode() + b"4,1,5,\n", ", line 5: column 'stars' holds no number"),
        (GOOD.encode() + b"4,1,nan,3\n", ", line 5: column 'when' holds no number"),
        (GOOD.encode() + b"4,1,2020-01-01,3\n", ", line 5: column 'when' holds no number"),
        (GOOD.encode() + b"abc,1,5,3\n", ", line 5: id 'abc' in column 'user_id' is text among "),
        (GOOD.encode() + b"user_id,item_id,when,stars\n", ", line 5: id 'user_id' in column"),
        (GOOD.encode() + b"\n4,1,5\n", ", line 6: 3 fields where 4 are expected; repair the line"),
        (GOOD.encode() + b"4,1,5,3,9\n", ", line 5: 5 fields where 4 are expected"),
        (GOOD.encode() + b"4,caf\xe9,5,3\n", ", line 5: byte 0xe9 is not UTF-8; convert the file"),
        (GOOD.encode("utf-16"), ", line 1: byte 0xff is not UTF-8"),
        (b"user_id,item_id,when,stars\n1,1,1,5\n1,2,2,5\n", ": only one user (1) has interactions"),
        (b"user_id,item_id,when,stars\n1,1,1,5\n2,1,2,5\n", ": only one item (1) has interactions"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    assert f"{path}{message}" in fails(tmp_path, path, time_col="when", rating_col="stars")


def test_unclosed_quote(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(GOOD + '"4,1,5,3\n' + "5,1,5,3\n" * 50_000)
    message = fails(tmp_path, path)
    assert "log.csv, line 5: a quote opens a field and is never closed; close it" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user_id": 4, "item_id"', ", line 3: not JSON ("),
        ("[4, 1]", ", line 3: not an object"),
        ('{"user_id": 4}', ", line 3: no column 'item_id'; name one of user_id"),
        (
            '{"user_id": "4", "item_id": 1}',
            ", line 3: \"4\" in column 'user_id' is not of the type ",
        ),
        ('{"user_id": null, "item_id": 1}', ", line 3: empty id in column 'user_id'"),
        ('{"user_id": 1.5, "item_id": 1}', ": column 'user_id' holds double"),
    ],
)
def test_bad_json_lines(tmp_path, line, message):
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": 1, "item_id": 1}\n\n' + line + "\n")
    found = fails(tmp_path, path)
    assert str(path) in found and message.removeprefix(":") in found


def test_bad_parquet(tmp_path):
    path = write(tmp_path / "log.parquet", rows())
    whole = path.read_bytes()
    assert "schema: no column 'uid'; name one of user_id, item_id, when, stars" in fails(
        tmp_path, path, user_col="uid"
    )
    odd = pa.array([b"a", b"\xff"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"user_id": odd, "item_id": odd}), path)
    assert f"{path}: damaged Parquet file (" in fails(tmp_path, path)
    for content in (whole[: len(whole) // 2], whole[4:], b"", b"PAR1"):
        path.write_bytes(content)
        assert f"{path}: damaged Parquet file (" in fails(tmp_path, path)
    pq.write_table(pa.table({"user_id": [1, None, 2], "item_id": [1, 2, 3]}), path)
    assert f"{path}, row 2: empty id in column 'user_id'" in fails(tmp_path, path)
    pq.write_table(pa.table({"user_id": [1.0, 2.0], "item_id": [1, 2]}), path)
    assert "column 'user_id' holds double; store ids as text or integers" in fails(tmp_path, path)
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 2], "r": [1.0, None]}), path)
    assert ", row 2: column 'r' holds no number" in fails(tmp_path, path, rating_col="r")
    pq.write_table(pa.table({"user_id": [1][:0], "item_id": [1][:0]}), path)
    assert "the file has no rows" in fails(tmp_path, path)


def test_parquet_types(tmp_path):
    table = pa.table(
        {
            "user_id": pa.array([str(n % 3) + "x" for n in range(12)]).dictionary_encode(),
            "item_id": pa.array([2**64 - 1 - n % 4 for n in range(12)], pa.uint64()),
            "t": pa.array(range(12), pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    dataset = InteractionFile(tmp_path, tmp_path / "log.parquet", time_col="t", split="last")
    assert parts(dataset)[2] == {(f"{n % 3}x", str(2**64 - 1 - n % 4)) for n in (9, 10, 11)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rating": 3}, "`min_rating` needs `rating_col`"),
        ({"split": "last"}, "`split=last` needs `time_col`"),
        ({"valid_file": "x.csv"}, "`valid_file` needs `test_file`"),
        ({"test_file": "x.csv", "split_seed": 1}, "the test file is given, so nothing is split"),
        ({"test_file": "x.csv"}, "x.csv: cannot be read (No such file"),
        ({"user_col": "item_id"}, "one column cannot play two parts"),
        (
            {"core": 99},
            "nothing is left when each user and item needs 99 interactions; lower `core`",
        ),
        ({"rating_col": "stars", "min_rating": 9}, "no stars is 9 or more; lower `min_rating`"),
    ],
)
def test_bad_options(tmp_path, options, message):
    assert message in fails(tmp_path, write(tmp_path / "log.csv", rows()), **options)


def test_bad_paths(tmp_path):
    assert "none.csv: cannot be read (No such file" in fails(tmp_path, tmp_path / "none.csv")
    other = write_text(tmp_path / "log.xlsx", "x")
    assert "unknown suffix '.xlsx'; name it .csv" in fails(tmp_path, other)
    text = write_text(tmp_path / "log.txt", "0 1\n1 1 2\n")
    assert "LightGCN text has no columns" in fails(tmp_path, text, user_col="u")
    few = write(tmp_path / "few.csv", [{"user_id": n, "item_id": n} for n in range(4)])
    assert "few.csv: no interactions are left for test: 4 of 4 users occur once" in fails(
        tmp_path, few
    )
    assert "a folder brings its own test file" in fails(tmp_path, tmp_path, test_file=few)


def test_a_folder_of_parquet_parts(tmp_path):
    folder = tmp_path / "log"
    (folder / "b=1").mkdir(parents=True)
    table = rows()
    write(folder / "part-0.parquet", table[:50])
    write(folder / "b=1" / "part-1.parquet", table[50:])
    (folder / "_SUCCESS").touch()
    (folder / ".part.parquet").write_bytes(b"")
    whole = InteractionFile(
        tmp_path / "root", write(tmp_path / "all.parquet", table[50:] + table[:50])
    )
    dataset = InteractionFile(tmp_path / "root", folder)
    assert parts(dataset) == parts(whole)
    bad = [dict(table[0], user_id=None), *table[1:]]
    write(folder / "part-0.parquet", bad)
    message = fails(tmp_path, folder)
    assert f"{folder}, part-0.parquet, row 1: empty id in column 'user_id'" in message
    pq.write_table(pa.table({"user_id": [[1]], "item_id": [1]}), folder / "part-2.parquet")
    message = fails(tmp_path, folder)
    assert message.startswith(f"{folder}/part-2.parquet, schema: column 'user_id' holds list<")
    assert message.endswith("where the parts before it hold string; use one type")
    assert "neither a train.txt nor Parquet files" in fails(tmp_path, tmp_path / "root")
