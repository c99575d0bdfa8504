"""Files that are no ticket, or no longer, are refused with one line before memory is taken."""

import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_lth.errors import InputError
from pyg_lth.tickets import CompactTable, Ticket

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def content(make_ticket, tmp_path_factory):
    path = tmp_path_factory.mktemp("tickets") / "a.ticket"
    make_ticket("int4", "columns", ids=True, valid=True, layers=2, bias=True).save(path)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    """Check that a file is refused with one line that names it, without much memory."""

    def check(content, message=None):
        path = tmp_path / "bad.ticket"
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(InputError, match=message) as caught:
            Ticket.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert peak < 3 * len(content) + MEGABYTE

    return check


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def sealed(header, data=b""):
    """A file of any header with a checksum that is right."""
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict):
        metadata["sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    whole = len(text).to_bytes(8, "little") + text + data
    return whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1)


def with_about(content, **changes):
    """The file with other words in its header; ``table`` changes what is said of the table."""
    header, data = header_of(content)
    about = json.loads(header["__metadata__"]["about"])
    about["table"] |= changes.pop("table", {})
    header["__metadata__"]["about"] = json.dumps(about | changes)
    return sealed(header, data)


def with_array(content, name, array):
    """The file with another array in the place of one."""
    header, data = header_of(content)
    tensors = {}
    for key, entry in header.items():
        if key != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[key] = (entry, data[begin:end])
    kinds = {"uint8": "U8", "uint16": "U16", "float32": "F32", "int8": "I8", "int64": "I64"}
    kinds |= {"float16": "F16"}
    fresh = {"dtype": kinds[array.dtype.name], "shape": [array.size]}
    tensors[name] = (fresh, array.tobytes())
    header, data = {"__metadata__": header["__metadata__"]}, b""
    for key, (entry, part) in tensors.items():
        header[key] = {**entry, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    return sealed(header, data)


def test_every_flipped_bit_is_refused(content, refused):
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        refused(bytes(flipped))


def test_every_truncation_is_refused(content, refused):
    for length in range(0, len(content), 7):
        refused(content[:length])
    refused(content + b"\0", "checksum")


def test_sealing_again_changes_nothing(content, tmp_path):
    (tmp_path / "same").write_bytes(sealed(*header_of(content)))
    Ticket.load(tmp_path / "same")


def test_safetensors_reads_the_file_too(content, tmp_path):
    (tmp_path / "a.ticket").write_bytes(content)
    with safetensors.safe_open(tmp_path / "a.ticket", "np") as file:
        assert file.metadata()["format"] == "pyg-lth-ticket"
        assert file.metadata()["version"] == "3"
        assert file.get_tensor("bias.item").dtype == np.float16
        assert file.get_tensor("table.counts").shape == (16,)


def test_other_files_are_refused(refused, tmp_path):
    other = {"weight": np.ones((2, 2), np.float32)}
    refused(safetensors.numpy.save(other), "does not name the format pyg-lth-ticket")
    refused(safetensors.numpy.save(other, {"format": "pt"}), "does not name the format")
    refused(b"PK\3\4" + bytes(100), "no safetensors file")
    refused(b"", "empty")
    refused((1 << 62).to_bytes(8, "little") + b"{}", "no safetensors file")
    refused((2).to_bytes(8, "little") + b"[]", "no JSON object")
    refused((10**6).to_bytes(8, "little") + b"[" * 10**6, "no JSON")
    with pytest.raises(InputError, match="No such file"):
        Ticket.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="directory"):
        Ticket.load(tmp_path)


def test_other_versions_and_kinds_are_refused(content, refused, tmp_path):
    header, data = header_of(content)
    header["__metadata__"]["version"] = "4"
    refused(sealed(header, data), "of version '4' .* versions up to '3': upgrade pyg-lth")
    CompactTable.from_dense(np.ones((2, 2))).save(tmp_path / "table")
    refused((tmp_path / "table").read_bytes(), "holds a table, not a ticket")


def test_only_a_ticket_with_a_bias_needs_a_reader_of_version_3(make_ticket, tmp_path):
    make_ticket().save(tmp_path / "without")
    assert header_of((tmp_path / "without").read_bytes())[0]["__metadata__"]["version"] == "2"
    assert Ticket.load(tmp_path / "without").bias is None
    make_ticket(bias=True).save(tmp_path / "with")
    assert header_of((tmp_path / "with").read_bytes())[0]["__metadata__"]["version"] == "3"


def test_version_1_had_no_score_and_ranks_by_inner_product(make_ticket, tmp_path):
    make_ticket(layers=2).save(tmp_path / "new")
    header, data = header_of((tmp_path / "new").read_bytes())
    about = json.loads(header["__metadata__"]["about"])
    del about["score"]
    header["__metadata__"] |= {"version": "1", "about": json.dumps(about)}
    (tmp_path / "old").write_bytes(sealed(header, data))
    assert Ticket.load(tmp_path / "old").score == "dot"


HUGE = 2**40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": HUGE}, "not that of its users and items"),
        ({"users": -1}, "does not say what ticket"),
        ({"items": 2**31}, "does not say what ticket"),
        ({"users": 7.0}, "does not say what ticket"),
        ({"users": 6, "items": 10}, "ids|interactions|for each of 10"),
        ({"table": {"rows": HUGE}}, "places are not those"),
        ({"table": {"rows": 2**64 + 16}}, "places are not those"),
        ({"table": {"dim": HUGE, "width": HUGE}}, "cannot be"),
        ({"table": {"dim": 0, "width": 0}}, "cannot be"),
        ({"table": {"width": 3}}, "only first-columns"),
        ({"table": {"form": "bitmap"}}, "has not just bits"),
        ({"table": {"form": "dense"}}, "has not just scales, values"),
        ({"table": {"form": "pickle"}}, "unknown"),
        ({"table": {"values": "float64"}}, "unknown"),
        ({"table": {"values": "int8"}}, "values of int8"),
        ({"table": {"dim": 2, "width": 2}}, "outside its 2 columns"),
        ({"layer_weights": []}, "weights that cannot be"),
        ({"layer_weights": [0.5] * 100}, "weights that cannot be"),
        ({"layer_weights": [float("nan")]}, "weights that cannot be"),
        ({"layer_weights": ["1"]}, "weights that cannot be"),
        ({"score": "l2"}, "does not say what ticket"),
        ({"score": "cosine", "layer_weights": None}, "for propagated tables"),
        ({"fold_in": "x"}, "does not say what ticket"),
        ({"notes": None}, "does not say what ticket"),
    ],
)
def test_headers_that_lie_are_refused(content, refused, changes, message):
    refused(with_about(content, **changes), message)


def bytes_of(*numbers):
    return np.array(numbers, np.uint8)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("table.counts", np.full(16, 255, np.uint8), "do not add up"),
        ("table.counts", np.zeros(15, np.uint8), "not those of 16 rows"),
        ("table.columns", np.zeros(1, np.uint8), "do not add up"),
        ("table.columns", np.zeros(1, np.float32), "not those of 16 rows"),
        ("table.scales", np.zeros(1, np.uint16), "a scale for each row"),
        ("table.values", np.zeros(1, np.uint8), "values of int4"),
        ("table.more", np.zeros(1, np.uint8), "has not just"),
        ("bias.item", np.zeros(8, np.float16), "not one float16 for each of 9 items"),
        ("bias.item", np.zeros(9, np.float32), "not one float16 for each of 9 items"),
        ("bias.item", np.full(9, np.inf, np.float16), "bias is not finite"),
        ("bias.user", np.zeros(7, np.float16), "an array 'bias.user' too many"),
        ("more", np.zeros(1, np.uint8), "too many"),
        ("train.lengths", np.full(7, 255, np.uint8), "do not add up"),
        ("train.lengths", np.full(7, 2**62, np.int64), "do not add up"),
        ("train.lengths", np.zeros(6, np.uint8), "of 7 users"),
        ("user_ids.text", bytes_of(*[255] * 42), "not UTF-8"),
        ("user_ids.text", bytes_of(*[65] * 42), "two indices"),
        ("user_ids.lengths", np.full(7, 7, np.uint8), "do not add up"),
        ("item_ids.numbers", np.zeros(9, np.uint8), "two indices"),
        ("item_ids.numbers", np.zeros(8, np.uint8), "an id for each of 9"),
        ("item_ids.text", np.zeros(8, np.uint8), "neither integers nor text"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(content, refused, name, array, message):
    refused(with_array(content, name, array), message)


@pytest.mark.parametrize(
    ("gaps", "message"),
    [
        (bytes_of(0, 0, 0, 0, 0, 0, 9), "outside its 9"),
        (bytes_of(0, 0, 0, 0, 0, 0, 128), "ends within a gap"),
        (bytes_of(0, 0, 0, 0, 0, 128, 0), "ends within a gap"),
    ],
)
def test_items_out_of_range_are_refused(content, refused, gaps, message):
    one_each = with_array(content, "train.lengths", np.ones(7, np.uint8))
    refused(with_array(one_each, "train.gaps", gaps), message)


@pytest.mark.parametrize(
    ("gaps", "message"),
    [
        (bytes_of(128, 0), "more bytes than it needs"),
        (bytes_of(*[129] * 5, 1), "more bytes than it needs"),
        (bytes_of(255, 255, 255, 255, 127), "outside its 9"),
        (bytes_of(4, 4), "outside its 9"),
    ],
)
def test_gaps_that_cannot_be_are_refused(content, refused, gaps, message):
    lengths = np.array([0, 0, 0, 0, 0, 0, gaps.size], np.uint8)
    last_only = with_array(content, "train.lengths", lengths)
    refused(with_array(last_only, "train.gaps", gaps), message)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "U8", "shape": [HUGE], "data_offsets": [0, HUGE]}, "beyond the file"),
        ({"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}, "cannot be"),
        ({"dtype": "U8", "shape": [2, 3], "data_offsets": [0, 6]}, "one-dimensional"),
        ({"dtype": "I64", "shape": [2**61], "data_offsets": [0, 0]}, "cannot be"),
        ({"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]}, "cannot be"),
        ({"dtype": "U8", "shape": [1], "data_offsets": [5, 6]}, "cannot be"),
        ({"dtype": "U8"}, "one-dimensional"),
        ([], "one-dimensional"),
    ],
)
def test_offsets_out_of_range_are_refused(content, refused, entry, message):
    header, data = header_of(content)
    refused(sealed({"__metadata__": header["__metadata__"], "table.counts": entry}, data), message)


@pytest.mark.parametrize("values", ["float32", "float16", "bfloat16", "int8"])
def test_values_that_are_not_finite_are_refused(make_ticket, refused, tmp_path, values):
    make_ticket(values, "dense").save(tmp_path / "good")
    name, array = "table.values", np.full(64, np.nan, np.float32)
    if values == "float16":
        array = np.full(64, 0x7C00, np.uint16)
    elif values == "bfloat16":
        array = np.full(64, 0x7F80, np.uint16)
    elif values == "int8":
        name, array = "table.scales", np.full(16, 0x7F7F, np.uint16)
    bad = with_array((tmp_path / "good").read_bytes(), name, array)
    if values == "float16":
        header, data = header_of(bad)
        header["table.values"]["dtype"] = "F16"
        bad = sealed(header, data)
    refused(bad, "not finite")


def test_columns_out_of_order_are_refused(tmp_path, refused, make_ticket):
    make_ticket("float32", "columns").save(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    columns = Ticket.load(tmp_path / "good").table.tensors["columns"]
    refused(with_array(good, "table.columns", columns[::-1].copy()), "do not ascend")
    refused(with_array(good, "table.columns", columns * 0), "do not ascend")


def test_a_bit_map_has_no_bit_behind_its_end(tmp_path):
    CompactTable.from_dense(np.eye(3), form="bitmap").save(tmp_path / "good")
    bits = bytes_of(0b00010001, 0b11111111)
    (tmp_path / "bad").write_bytes(with_array((tmp_path / "good").read_bytes(), "bits", bits))
    with pytest.raises(InputError, match="behind its end"):
        CompactTable.load(tmp_path / "bad")


def test_a_table_too_large_to_propagate_is_refused(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="more than the limit of 100"):
        Ticket.load(tmp_path / "a", memory_limit=100)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_nothing_that_is_sealed_gets_past_the_checks(content, data, tmp_path_factory):
    """Whatever a file says, it is refused, or it answers within its own bounds."""
    header, body = header_of(content)
    body = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.ticket"
    path.write_bytes(sealed(header, bytes(body)))
    try:
        ticket = Ticket.load(path)
    except InputError:
        return
    items, scores = ticket.rank(slice(None), 9)
    assert ((items >= 0) & (items <= 9)).all()
    assert not np.isnan(scores).any()
