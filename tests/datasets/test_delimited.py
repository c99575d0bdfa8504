import csv
import gzip
import io
import random

import pyarrow as pa
import pytest

from pyg_lth.datasets import DatasetError
from pyg_lth.datasets.delimited import Header, read_delimited
from pyg_lth.datasets.layouts import Layout, read_columns


def read(path, content, columns=("user_id", "item_id"), **options):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = read_columns(path, columns, Layout(**options))
    return [found.column(name).to_pylist() for name in columns], found


def fails(path, content, columns=("user_id", "item_id"), **options):
    with pytest.raises(DatasetError) as caught:
        read(path, content, columns, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


HEAD = "user_id{0}item_id{0}title\n"
ROWS = [f"u{n}{{0}}i{n}{{0}}t{n}\n" for n in range(48)]


def test_in_tsv_a_quote_is_data_unless_it_encloses_the_field(tmp_path):
    rows = [row.format("\t") for row in ROWS]
    rows[3] = 'u3\ti5\t"Heroes\n'
    rows[20] = 'u4\t"i ""5"""\tVillains"\n'
    rows[30] = 'u5\t"i6"x"\t""\n'
    (users, items, titles), _ = read(
        tmp_path / "log.tsv", HEAD.format("\t") + "".join(rows), ("user_id", "item_id", "title")
    )
    assert len(users) == 48 and items[20] == 'i "5"' and items[30] == '"i6"x"'
    assert titles[3] == '"Heroes' and titles[20] == 'Villains"' and titles[30] == ""


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_a_csv_writer_writes_is_read_back(tmp_path, separator):
    rng = random.Random(0)
    fields = ["a", 'say "hi"', "two\nlines", f"x{separator}y", "", " ", "1", '"', "\r\n", "''"]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        table = [["user_id", "item_id", "x\ny"]]
        table += [[rng.choice(fields) for _ in range(3)] for _ in range(60)]
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator="\n")
        writer.writerows(table)
        (users, items), _ = read(tmp_path / "log.csv", file.getvalue(), separator=separator)
        assert [[user, item] for user, item in zip(users, items, strict=True)] == [
            row[:2] for row in table[1:]
        ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('u3,i5,"Heroes\n', "line 5: a quote opens a field and is never closed; close it where"),
        ('u3,"i5,Heroes\n', "line 5: a quote opens a field and is never closed"),
        ('u3,i5,"He\nu,"x",y\n', "line 5: a quote opens a field and closes on line 6 amid a field"),
    ],
)
def test_in_csv_a_quote_that_swallows_lines_is_refused(tmp_path, row, message):
    rows = [line.format(",") for line in ROWS]
    rows[3] = row
    assert message in fails(tmp_path / "log.csv", HEAD.format(",") + "".join(rows))


def test_in_csv_a_quote_amid_a_field_is_data(tmp_path):
    text = 'user_id,item_id,size\nu1,5" disk,"say ""x"""\n"u""2",7" disk,"two\nlines"\n'
    (users, items), _ = read(tmp_path / "log.csv", text)
    assert users == ["u1", 'u"2'] and items == ['5" disk', '7" disk']


def test_lines_of_a_tsv_that_do_not_add_up(tmp_path):
    head = HEAD.format("\t")
    (users, _), _ = read(tmp_path / "log.tsv", head + 'u1\t"i\t1"\tx\nu2\ti2\t"two\nlines"\n')
    assert users == ["u1", "u2"]
    # The quotes add up, but what they enclose would be records.
    swallowed = head + 'u1\ti1\t"He\nu2\ti2\nu3\ti3\tVi"\n'
    assert "line 3: 2 fields where 3 are expected" in fails(tmp_path / "log.tsv", swallowed)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("blank", ["", "{0}", "{0}{0}"])
@pytest.mark.parametrize(
    "names", ["user_id,item_id,x", '"user_id",item_id,"x\ny"', "user_id, item_id,x"]
)
def test_header_and_rows_are_read_alike(tmp_path, end, mark, blank, names):
    text = mark + blank.format(end) + names + end + f"a,1,2{end}{blank.format(end)}b,3,4"
    (users, items), found = read(tmp_path / "log.csv", text)
    assert (users, items) == (["a", "b"], ["1", "3"])
    lines = 1 + blank.count("0") + names.count("\n")
    assert found.place(0) == f"line {lines + 1}"
    assert found.place(1) == f"line {lines + 2 + blank.count('0')}"


def test_columns_whose_fields_are_all_quoted_are_typed(tmp_path):
    for name, text in (
        ("a.csv", '"user_id","item_id"\n"1","2"\n"3","4"\n'),
        ("b.csv", 'user_id,item_id,x\n"1",2,"a,b"\n\n"3",4,\n'),
        ("c.tsv", 'user_id\titem_id\n"1"\t2\n"3"\t"4"\n'),
    ):
        _, found = read(tmp_path / name, text)
        assert found.typed == ({"user_id", "item_id"} if name == "a.csv" else {"user_id"})


@pytest.mark.parametrize("suffix", ["csv", "CSV", "csv.gz", "csv.zst", "txt", "anything"])
@pytest.mark.parametrize("separator", [";", "::", "auto", "tab", "|", " ", "§"])
def test_separators(tmp_path, suffix, separator):
    mark = {"auto": ";", "tab": "\t"}.get(separator, separator)
    text = "\n".join(
        mark.join(row) for row in (["user_id", "item_id", "t"], *[["a", "7", "5"]] * 3)
    )
    content = text.encode()
    if suffix.endswith(".gz"):
        content = gzip.compress(content)
    elif suffix.endswith(".zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    (users, items), found = read(tmp_path / f"log.{suffix}", content, separator=separator)
    assert (users, items) == (["a"] * 3, ["7"] * 3)
    assert len(found.notes) == (separator == "auto")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (
            "a.csv",
            "user_id;item_id\n1;2\n",
            {},
            "no column 'user_id'; name one of user_id;item_id, or set `separator=';'`",
        ),
        ("a.csv", "user_id;item_id\n1;2;3\n", {"separator": ";"}, "line 2: 3 fields where 2 are"),
        ("a.csv", "user_id;item_id\n1,2\n", {"separator": "auto"}, "no separator divides each of"),
        (
            "a.csv",
            "196,242,3\n1,2,3\n",
            {},
            "line 1: the first line holds numbers alone, so it is no header; set `no_header`",
        ),
        ("a.csv", "1,2\n", {"separator": "x"}, "separator 'x' cannot divide fields"),
        ("a.csv", "1,2\n", {"separator": '"'}, "cannot divide fields"),
        (
            "a.json",
            '{"user_id": 1, "item_id": 2}',
            {"no_header": True},
            "are for divided text alone",
        ),
        (
            "a.csv",
            f"{'x' * 10**5},item_id\n1,2\n",
            {},
            "no column 'user_id'; name one of '" + "x" * 60 + "'…, item_id",
        ),
        ("a.csv", ",".join(map(str, range(1000))) + "x\n", {}, "and 980 more"),
        ("a.csv", "user_id,item_id\n\n\r\n", {}, "the file has no rows"),
        ("a.csv", "\x00,item_id\n1,2\n", {}, "name one of \\x00, item_id"),
    ],
)
def test_bad_layouts(tmp_path, name, content, options, message):
    assert message in fails(tmp_path / name, content, **options)


def test_without_a_header(tmp_path):
    text = "7\t5\t3.5\n8\t6\t4\n"
    for name in ("a.tsv", "u.data", "ratings.dat", "u1.base"):
        (users, items), _ = read(tmp_path / name, text, ("1", "2"), no_header=True)
        assert (users, items) == (["7", "8"], ["5", "6"])
    columns = ("user_id", "item_id", "rating", "4")
    (*_, ratings, fourth), _ = read(tmp_path / "u.data", "7\t5\t3\t9\n8\t6\t4\t8\n", columns)
    assert ratings == ["3", "4"] and fourth == ["9", "8"]
    (users, _), _ = read(tmp_path / "a.dat", "1::1193::5::978300760\n2::661::3::978302109\n")
    assert users == ["1", "2"]
    (users, _), _ = read(tmp_path / "a.dat", "userID\tartistID\n2\t51\n", ("userID", "artistID"))
    assert users == ["2"]
    assert "no column '5'; name one of 1, 2, 3" in fails(
        tmp_path / "a.tsv", text, ("1", "5"), no_header=True
    )


def test_recbole(tmp_path):
    text = "user_id:token\titem_id:token\trating:float\n196\t242\t3\n186\t302\t3\n"
    (users, _), found = read(tmp_path / "ml.inter", text)
    assert users == ["196", "186"] and found.typed == {"user_id", "item_id"}
    (ratings, _), found = read(tmp_path / "ml.inter", text, ("rating:float", "item_id:token"))
    assert ratings == ["3", "3"] and found.typed == {"item_id:token"}


def test_a_line_longer_than_a_block(tmp_path):
    (users, _), _ = read(tmp_path / "a.csv", f"user_id,item_id,x\n1,2,{'y' * 3_000_000}\n3,4,z\n")
    assert users == ["1", "3"]


def test_given_names(tmp_path):
    path = tmp_path / "log"
    path.write_text("1 2\n3 4\n")
    found = read_delimited(path, ["b"], " ", Header(("a", "b")))
    assert found.column("b").to_pylist() == ["2", "4"] and found.place(1) == "line 2"
