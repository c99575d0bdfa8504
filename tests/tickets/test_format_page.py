"""A reader by the rules of docs/ticket_format.md, which knows nothing of this package."""

import hashlib
import json

import numpy as np
import pytest

from pyg_lth.tickets.places import FORMS
from pyg_lth.tickets.quantization import VALUES

TYPES = {"U8": "u1", "I8": "i1", "U16": "<u2", "F16": "<f2", "U32": "<u4", "F32": "<f4"}


def bfloat(codes):
    return (codes.astype("<u4") << 16).view("<f4")


def read(content):
    """Header and arrays."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    known = header.pop("__metadata__")
    assert (known["format"], known["version"], known["kind"]) == ("pyg-lth-ticket", "1", "ticket")
    plain = content[:end].replace(known["sha256"].encode(), b"0" * 64) + content[end:]
    assert hashlib.sha256(plain).hexdigest() == known["sha256"]
    arrays = {}
    for name, entry in header.items():
        begin, stop = (end + offset for offset in entry["data_offsets"])
        arrays[name] = np.frombuffer(content[begin:stop], TYPES[entry["dtype"]])
    return json.loads(known["about"]), arrays


def table_of(about, arrays):
    rows, dim, kind = about["rows"], about["dim"], about["values"]
    row, column = np.divmod(np.arange(rows * about["width"]), about["width"])
    if about["form"] == "bitmap":
        bits = np.unpackbits(arrays["table.bits"], bitorder="little")[: rows * dim]
        row, column = np.divmod(np.flatnonzero(bits), dim)
    elif about["form"] == "columns":
        row, column = np.repeat(np.arange(rows), arrays["table.counts"]), arrays["table.columns"]
    values = arrays["table.values"]
    if kind == "bfloat16":
        values = bfloat(values)
    if kind == "int4":
        halves = np.stack([values & 15, values >> 4], axis=1).ravel()[: row.size].astype(int)
        values = np.where(halves > 7, halves - 16, halves)
    if kind in ("int8", "int4"):
        values = values * bfloat(arrays["table.scales"])[np.unique(row, return_inverse=True)[1]]
    table = np.zeros((rows, dim), np.float32)
    table[row, column] = values
    return table


def lists_of(lengths, gaps):
    number, shift, place, lists = 0, 0, 0, []
    for length in lengths.tolist():
        items, place = [], place + length
        for byte in gaps[place - length : place].tolist():
            number, shift = number | (byte & 127) << shift, shift + 7
            if byte < 128:
                items.append(number if not items else items[-1] + 1 + number)
                number, shift = 0, 0
        lists.append(items)
    return lists


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("values", VALUES)
def test_a_reader_by_the_page_reads_what_we_wrote(make_ticket, tmp_path, form, values):
    ticket = make_ticket(values, form, ids=True, valid=True)
    ticket.save(tmp_path / "a.ticket")
    about, arrays = read((tmp_path / "a.ticket").read_bytes())
    table = table_of(about["table"], arrays)
    np.testing.assert_array_equal(table, ticket.table.to_dense())
    train = lists_of(arrays["train.lengths"], arrays["train.gaps"])
    valid = lists_of(arrays["valid.lengths"], arrays["valid.gaps"])
    assert arrays["item_ids.numbers"].tolist() == ticket.item_ids.at(range(9))
    ends = np.cumsum(arrays["user_ids.lengths"])
    text = bytes(arrays["user_ids.text"])
    names = [text[end - 6 : end].decode() for end in ends.tolist()]
    assert names == ticket.user_ids.at(range(7))
    for user, name in enumerate(names):
        left = sorted({*range(9)} - {*train[user], *valid[user]})
        scores = table[7:] @ table[user]
        best = sorted(left, key=lambda item: -scores[item])
        found = ticket.recommend([name], k=9)[0]
        assert sorted(100 - item for item in found.items) == left
        np.testing.assert_allclose(scores[best], found.scores, atol=1e-5)
