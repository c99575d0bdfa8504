"""A reader by the rules of docs/ticket_format.md, which knows nothing of this package."""

import hashlib
import inspect
import json

import numpy as np
import pytest

from pyg_lth.tickets.places import FORMS
from pyg_lth.tickets.quantization import VALUES

TYPES = {"U8": "u1", "I8": "i1", "U16": "<u2", "F16": "<f2", "U32": "<u4", "F32": "<f4"}


def read(content):
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    known = header.pop("__metadata__")
    assert (known["format"], known["kind"]) == ("pyg-lth-ticket", "ticket")
    assert known["version"] == ("3" if "bias.item" in header else "2")
    sealed = content[:end].replace(known["sha256"].encode(), b"0" * 64) + content[end:]
    assert hashlib.sha256(sealed).hexdigest() == known["sha256"]
    parts = {name: slice(*(np.array(of["data_offsets"]) + end)) for name, of in header.items()}
    types = {name: TYPES[of["dtype"]] for name, of in header.items()}
    return json.loads(known["about"]), {
        n: np.frombuffer(content[parts[n]], types[n]) for n in parts
    }


def read_table(rows, dim, form, width, values, arrays):
    row, column = np.divmod(np.arange(rows * width), width)
    if form == "bitmap":
        bits = np.unpackbits(arrays["table.bits"], bitorder="little")
        row, column = np.divmod(np.flatnonzero(bits), dim)
    elif form == "columns":
        row, column = np.repeat(np.arange(rows), arrays["table.counts"]), arrays["table.columns"]
    codes, bfloat16 = arrays["table.values"], lambda code: (code.astype("<u4") << 16).view("<f4")
    if values == "int4":
        codes = np.stack([codes << 4, codes], axis=1).view("i1").ravel()[: row.size] >> 4
    numbers = bfloat16(codes) if values == "bfloat16" else codes
    if values in ("int8", "int4"):
        numbers = codes * bfloat16(arrays["table.scales"])[np.unique(row, return_inverse=True)[1]]
    table = np.zeros((rows, dim), np.float32)
    table[row, column] = numbers
    return table


def read_lists(lengths, gaps):
    lists, number, shift = [[] for _ in lengths], 0, 0
    for user, byte in zip(np.repeat(np.arange(lengths.size), lengths), gaps.tolist(), strict=True):
        number, shift = number | (byte & 127) << shift, shift + 7
        if byte < 128:
            lists[user].append(number + (lists[user][-1] + 1 if lists[user] else 0))
            number, shift = 0, 0
    return lists


def test_the_reader_takes_forty_lines():
    code = "".join(map(inspect.getsource, (read, read_table, read_lists)))
    assert len(code.splitlines()) <= 40


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("values", VALUES)
def test_a_reader_by_the_page_reads_what_we_wrote(make_ticket, tmp_path, form, values):
    ticket = make_ticket(values, form, ids=True, valid=True)
    ticket.save(tmp_path / "a.ticket")
    about, arrays = read((tmp_path / "a.ticket").read_bytes())
    table = read_table(**about["table"], arrays=arrays)
    np.testing.assert_array_equal(table, ticket.table.to_dense())
    train = read_lists(arrays["train.lengths"], arrays["train.gaps"])
    valid = read_lists(arrays["valid.lengths"], arrays["valid.gaps"])
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


@pytest.mark.parametrize("score", ["dot", "cosine"])
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_multiplied_is_what_the_page_says(make_ticket, tmp_path, score, bias):
    ticket = make_ticket(layers=2, score=score, bias=bias)
    ticket.save(tmp_path / "a.ticket")
    about, arrays = read((tmp_path / "a.ticket").read_bytes())
    graph = np.zeros((16, 16))
    for user, items in enumerate(read_lists(arrays["train.lengths"], arrays["train.gaps"])):
        graph[user, np.array(items, int) + 7] = graph[np.array(items, int) + 7, user] = 1
    scale = 1 / np.sqrt(np.maximum(graph.sum(axis=1), 1))
    graph *= scale[:, None] * scale
    table = read_table(**about["table"], arrays=arrays)
    weights = enumerate(about["layer_weights"])
    embedding = sum(
        alpha * np.linalg.matrix_power(graph, layer) @ table for layer, alpha in weights
    )
    if about["score"] == "cosine":
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        embedding /= np.where(length > 0, length, 1)
    np.testing.assert_allclose(ticket.embedding()[:, :4], embedding, atol=1e-6)
    scores = embedding[:7] @ embedding[7:].T + arrays.get("bias.item", np.zeros(9)).astype(float)
    ranked, found = ticket.rank(slice(None), 9, exclude_seen=False)
    np.testing.assert_allclose(np.take_along_axis(scores, ranked, axis=1), found, atol=1e-6)
