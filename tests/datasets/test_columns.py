import datetime
import decimal
import random

import numpy as np
import pyarrow as pa
import pytest

from pyg_lth.datasets import DatasetError
from pyg_lth.datasets.columns import Columns


def column(values, typed=False):
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return Columns("log", {"x": array}, lambda row: f"line {row + 2}", ["x"] if typed else [])


def fails(take, values, **options):
    with pytest.raises(DatasetError) as caught:
        getattr(column(values, **options), take)("x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ids(values, kind="auto", typed=False):
    codes, distinct = column(values, typed).ids("x", kind)
    return distinct[codes].tolist()


def test_kinds_of_ids():
    assert ids(["3", "-1", "3"]) == [3, -1, 3]
    assert ids(["3", "-1"], typed=True) == ids(["3", "-1"], "text") == ["3", "-1"]
    assert ids([3, -1], "text") == ["3", "-1"] and ids([3, -1]) == [3, -1]
    assert ids(["007", "+7", "7"], "integer") == [7, 7, 7]
    assert ids(["a", "7", "b"]) == ["a", "7", "b"] and ids(["a", "7"], "text") == ["a", "7"]
    assert ids([1.0, 2.0], "integer") == [1, 2] and ids(pa.array([2**63], pa.uint64())) == [
        str(2**63)
    ]
    isbn = ["0012358321", "001235832X", "1402894626"]
    assert ids(isbn) == ids(isbn, "text") == isbn
    assert ids([" 7", "8 "]) == [7, 8] and ids([" 7", "8"], typed=True) == [" 7", "8"]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            ["76561197970982479", "76561198035864385", "evcentric"],
            {},
            "line 4: id 'evcentric' in column 'x' is text among integers; repair",
        ),
        (
            ["1", "x"],
            {"kind": "integer"},
            "line 3: id 'x' in column 'x' is no integer; set `ids=text`",
        ),
        (
            ["1", "9" * 20],
            {"kind": "integer"},
            "line 3: id '99999999999999999999' in column 'x' needs more than 64 bits",
        ),
        (["1", "9" * 5000], {"kind": "integer"}, "needs more than 64 bits"),
        ([1.0, 1.5], {"kind": "integer"}, "line 3: column 'x' holds no whole number"),
        ([1.0, 1e300], {"kind": "integer"}, "line 3: column 'x' holds no whole number"),
        ([1.0, 2.0], {}, "column 'x' holds double; store ids as text or integers"),
        ([True, False], {}, "column 'x' holds bool; store ids as"),
        ([[1], [2]], {}, "column 'x' holds list"),
    ],
)
def test_bad_ids(values, options, message):
    with pytest.raises(DatasetError) as caught:
        column(values).ids("x", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "gap", ["", "  ", "None", "none", "NULL", "nan", "NaN", "<NA>", "n/a", "\\N", None]
)
def test_what_is_missing(gap):
    for take, values in (
        ("ids", ["1", gap, "3"]),
        ("ids", ["a", gap, "b"]),
        ("numbers", ["1.5", gap, "2"]),
    ):
        found = fails(take, values, typed=take == "ids")
        assert "line 3: " in found and "or set `drop_missing`" in found
        left = column(values).without_missing(["x"])
        assert len(left.column("x")) == 2 and left.place(1) == "line 4"
        assert left.notes == ("log: 1 rows without a value in x dropped (first: line 3)",)
    assert "line 3" in fails("times", ["2020-01-01", gap])
    whole = column(["1", "2"])
    assert whole.without_missing(["x"]) is whole
    with pytest.raises(DatasetError, match="every row lacks one of x"):
        column([gap, gap]).without_missing(["x"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "+5", "-3", " 4 "], [1, 5, -3, 4]),
        (["1", "+5.5", ".5", "1e-2", "3."], [1, 5.5, 0.5, 0.01, 3]),
        (["true", "False", "TRUE"], [1, 0, 1]),
        ([True, False], [1, 0]),
        (["9223372036854775807", "1"], [2**63 - 1, 1]),
        (["9223372036854775808", "1"], [2.0**63, 1]),
        ([decimal.Decimal("0.7"), decimal.Decimal("1.5")], [0.7, 1.5]),
        (pa.array([0.7], pa.float32()), [np.float32(0.7)]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
    ],
)
def test_numbers(values, expected):
    assert column(values).numbers("x").tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "good"], "line 3: column 'x' holds no number: 'good'; every row needs one"),
        (["1", "true"], "line 3: column 'x' holds no number: 'true'"),
        (["1", "inf"], "line 3: column 'x' holds no number: 'inf'"),
        (["1", "1e999"], "line 3: column 'x' holds no number"),
        (["1", "1_0"], "line 3: column 'x' holds no number: '1_0'"),
        (["1", "\u0663"], "line 3: column 'x' holds no number"),
        ([1.0, float("nan")], "line 3: column 'x' holds no number"),
        ([1.0, float("inf")], "line 3: column 'x' holds no number"),
        ([1, None], "line 3: column 'x' holds no number"),
        ([True, None], "line 3: column 'x' holds no number"),
        (["1", "x" * 10**5], f"holds no number: '{'x' * 60}'…; every"),
        ([[1]], "column 'x' holds list<"),
    ],
)
def test_bad_numbers(values, message):
    assert message in fails("numbers", values)
    assert len(fails("numbers", values)) < 200


DAY = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    "ascending",
    [
        ["2019-12-31", "2020-01-01", "2020-01-02"],
        ["2020-01-01", "9999-12-31"],
        ["2020-01-01 09:00", "2020-01-01 10:00", "2020-01-02 00:00"],
        ["2020-01-01T00:00:00+02:00", "2019-12-31T23:00:00Z", "2020-01-01T00:00:00.5Z"],
        ["1600000000000000001", "1600000000000000002"],
        ["-1", "+5", "6"],
        ["1600000000.0000001", "1600000000.0000002", "1600000001"],
        ["5e3", "6000"],
        [5000, 5001],
        [0.5, 1.5],
        pa.array([1, 2], pa.date32()),
        pa.array([86400000, 2 * 86400000], pa.date64()),
        pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1, 2], pa.duration("ms")),
        pa.array([decimal.Decimal("0.1"), decimal.Decimal("0.2")]),
        [DAY, DAY + datetime.timedelta(microseconds=1)],
        [DAY.date(), DAY.date() + datetime.timedelta(days=1)],
    ],
)
def test_times_keep_their_order(ascending):
    assert (np.diff(column(ascending).times("x")) > 0).all()
    order = list(range(len(ascending)))
    random.Random(0).shuffle(order)
    array = ascending if isinstance(ascending, pa.Array) else pa.array(ascending)
    shuffled = column(array.take(pa.array(order)))
    assert np.argsort(shuffled.times("x")).tolist() == np.argsort(order).tolist()
    kept = column(shuffled.time_array("x")).times("x")
    assert np.argsort(kept).tolist() == np.argsort(order).tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["5", "2020-01-01"], "line 3: column 'x' holds no number: '2020-01-01'"),
        (["2020-01-01", "5"], "line 3: time '5' in column 'x' is no ISO 8601 time as those before"),
        (["2020-01-01", "2020-02-30"], "line 3: time '2020-02-30' in column 'x' is no ISO 8601"),
        (["2020-01-01T00:00", "2020-01-01T00:00Z"], "line 3: time '2020-01-01T00:00Z'"),
        (["2020-01-01T00:00Z", "2020-01-01T00:00"], "line 3: time '2020-01-01T00:00'"),
        (["yesterday"], "line 2: column 'x' holds no number and no ISO 8601 time: 'yesterday'"),
        (
            ["1600000000", "1600000001", "1600000002000"],
            "line 4: time 1600000002000 in column 'x' looks like ms where those before are in s",
        ),
        (
            [1600000000, 1600000002000000000],
            "line 3: time 1600000002000000000 in column 'x' looks like ns",
        ),
        (pa.array([1, 2], pa.time32("s")), "column 'x' holds time32[s]; store times as"),
        ([True], "column 'x' holds bool; store times as"),
    ],
)
def test_bad_times(values, message):
    assert message in fails("times", values)
