"""Whatever a file holds, it is read, or refused in one line that names it."""

import csv
import gzip
import io
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_lth.datasets import DatasetError
from pyg_lth.datasets.adjacency import read_adjacency
from pyg_lth.datasets.ids import read_id_list, write_id_list
from pyg_lth.datasets.interaction_log import Log, Rules
from pyg_lth.datasets.layouts import DEFAULT_COLUMNS, Layout, read_columns

FORMS = [
    "csv",
    "tsv",
    "dat",
    "data",
    "inter",
    "jsonl",
    "json",
    "txt",
    "parquet",
    "csv.gz",
    "csv.zst",
]
VALUES = [
    "",
    "None",
    "null",
    "NaN",
    '"',
    '""',
    "a",
    "007",
    "9" * 30,
    "-1",
    "+5",
    "1e999",
    "\x00",
    "é",
]
VALUES += [
    "\u2028",
    "\ud7ff",
    "2020-01-01",
    "2020-01-01T00:00Z",
    "true",
    "x" * 5000,
    "[1]",
    "\\",
    "'",
]
JUNK = [
    *VALUES,
    "\n",
    "\r",
    "\r\n",
    "\t",
    ",",
    ";",
    "::",
    '"\n',
    '",',
    "\ufeff",
    "\f",
    "\v",
    "{",
    "[[" * 99,
]


def write(rng, path, form):
    """Writes a log that is plausible, then spoilt in some places."""
    letter = rng.choice(["u", "u", "7", "u7"])
    rows = [
        [f"{rng.choice(letter)}{rng.randrange(9)}", str(rng.randrange(12)), "3", str(n)]
        for n in range(rng.choice([0, 2, 99, 99, 99, 99]))
    ]
    for row in rows:
        if rng.random() < rng.choice([0, 0.02]):
            row[rng.randrange(4)] = rng.choice(VALUES)
    names = ["user_id", "item_id", "rating", "time"]
    if form == "parquet":
        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        kinds = [pa.string(), pa.large_string(), pa.float32(), pa.int64(), pa.date32(), pa.bool_()]
        table = {}
        for name, values in columns.items():
            try:
                table[name] = pa.array(values).cast(rng.choice(kinds))
            except pa.ArrowException:
                table[name] = pa.array(values)
        sink = io.BytesIO()
        pa.parquet.write_table(pa.table(table), sink)
        content = sink.getvalue()
    else:
        if form.startswith("json"):
            lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        elif form == "txt":
            lines = [" ".join(map(str, (n, *rng.sample(range(9), 3)))) for n, _ in enumerate(rows)]
        else:
            mark = {"tsv": "\t", "dat": "::", "data": "\t", "inter": "\t"}.get(form, ",")
            head = [name + ":token" * (form == "inter") for name in names]
            lines = [mark.join(row) for row in ([head] * (rng.random() < 0.9) + rows)]
        text = rng.choice(["\n", "\r\n", "\r"]).join(lines)
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice(JUNK) + text[place + rng.randrange(3) :]
        content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        place = rng.randrange(len(content) + 1)
        content = (
            content[:place] + bytes([rng.randrange(256)]) * rng.randrange(3) + content[place + 1 :]
        )
    if form.endswith(".gz"):
        content = gzip.compress(content)
    elif form.endswith(".zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    if rng.random() < 0.05:
        content = content[: rng.randrange(len(content) + 1)]
    path.write_bytes(content)


def read(rng, path):
    """Reads a file as InteractionFile does, with options drawn at random."""

    def some(*values):
        return rng.choice([*[None] * 6, *values])

    layout = Layout(
        some("auto", ";", "::", "tab") if rng.random() < 0.2 else None, rng.random() < 0.1
    )
    if layout.is_lightgcn(path):
        read_adjacency(path)
        return
    timed = rng.random() < 0.5
    rules = Rules.checked(
        str(path),
        DEFAULT_COLUMNS[layout.no_header],
        user_col=None,
        item_col=None,
        time_col=("4" if layout.no_header else "time") if timed else None,
        rating_col=("3" if layout.no_header else "rating") if rng.random() < 0.5 else None,
        ids=some("auto", "text", "integer"),
        drop_missing=some(True),
        min_rating=None,
        core=some(1, 2),
        split=some("last") if timed else None,
        split_seed=None,
        repeats=some("merge", "merge", "refuse"),
        drop_cold=None,
        is_given=False,
    )
    log = rules.read(read_columns(path, rules.columns, layout))
    assert isinstance(log, Log)
    rules.divide(log).to_graph(str(path))


def attempt(folder, seed):
    rng = random.Random(seed)
    form = rng.choice(FORMS)
    path = folder / f"log.{form}"
    write(rng, path, form)
    try:
        read(rng, path)
    except DatasetError as error:
        message = str(error)
        assert message.isprintable() and str(folder) in message and len(message) < 1000
        return False
    return True


def test_a_thousand_files(tmp_path):
    read_well = sum(attempt(tmp_path, seed) for seed in range(1000))
    assert 200 < read_well < 800  # both ends are tried


@pytest.mark.torture
def test_many_thousand_files(tmp_path):
    for seed in range(1000, 30_000):
        attempt(tmp_path, seed)


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hypothesis")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=8), st.sampled_from(",;\t"))
def test_what_the_standard_library_writes_is_read_back(folder, rows, separator):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("user_id", "item_id", "x"), *rows])
    path = folder / "log.csv"
    path.write_text(file.getvalue(), newline="")
    layout = Layout("tab" if separator == "\t" else separator)
    try:
        found = read_columns(path, ["user_id", "item_id", "x"], layout)
    except DatasetError as error:
        # A tab divides lines, unless the quotes alone add up; then it says so.
        assert separator == "\t" and "fields where 3 are expected" in str(error)
        return
    read_back = zip(
        *(found.column(name).to_pylist() for name in ("user_id", "item_id", "x")), strict=True
    )
    if list(read_back) != rows:
        assert separator == "\t" and '"' in "".join("".join(row) for row in rows)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=5), min_size=1, max_size=9),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lightgcn_text_says_each_pair_once(folder, lines, end):
    path = folder / "train.txt"
    path.write_text(end.join(" ".join(map(str, line)) for line in lines), newline="")
    try:
        text = read_adjacency(path)
    except DatasetError as error:
        pairs = "pairs with ratings" in str(error) and {len(line) for line in lines} == {3}
        empty = "no user has an item" in str(error) and {len(line) for line in lines} == {1}
        assert pairs or empty
        return
    shown = set(zip(*text.pairs.tolist(), strict=True))
    if not (text.notes and len(lines[0]) == 3):
        assert shown == {(user, item) for user, *items in lines for item in items}
    users = [line[0] for line in lines]
    if not text.notes:
        assert bool(text.repeats) == (
            len(set(users)) < len(users) or any(len(set(items)) < len(items) for _, *items in lines)
        )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=9))
def test_id_lists_come_back(folder, ids):
    import numpy as np

    path = folder / "user_list.txt"
    try:
        write_id_list(path, np.array(ids, dtype=object))
    except DatasetError as error:
        assert "line end" in str(error)
        return
    assert list(map(str, read_id_list(path).tolist())) == ids
