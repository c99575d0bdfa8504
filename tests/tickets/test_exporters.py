"""Each format is read back by the library that its users would read it with."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from pyg_lth.errors import InputError
from pyg_lth.tickets import IdTable, Ticket
from pyg_lth.tickets.exporters import EXPORTERS, export

KINDS = [
    {},
    {"ids": True, "valid": True, "seed": 1},
    {"layers": 2, "valid": True},
    {"values": "int8", "form": "columns"},
    {"values": "int4", "form": "bitmap", "ids": True},
    {"bias": True},
    {"layers": 2, "score": "cosine", "bias": True, "ids": True},
]


@pytest.fixture(params=KINDS, ids=str)
def ticket(request, make_ticket):
    return make_ticket(**request.param)


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_file_appears_whole_and_alone(ticket, tmp_path, name):
    if name == "usearch" and ticket.item_keys().min() < 0:
        pytest.skip("usearch has no such ids")
    path = tmp_path / f"any{EXPORTERS[name].suffix}"
    export(ticket, path, name)
    assert list(tmp_path.iterdir()) == [path]
    once = path.read_bytes() if path.is_file() else None
    export(ticket, path, name)
    if name in ("ticket", "onnx", "faiss"):
        assert path.read_bytes() == once


def test_scipy_reads_the_table_and_numpy_the_rest(ticket, tmp_path):
    import scipy.sparse

    export(ticket, tmp_path / "table", "npz")
    csr = scipy.sparse.load_npz(tmp_path / "table")
    assert csr.format == "csr"
    assert csr.dtype == np.float32
    assert csr.nnz == ticket.table.stored
    np.testing.assert_array_equal(csr.toarray(), ticket.table.to_dense())
    with np.load(tmp_path / "table", allow_pickle=False) as more:
        assert more["user_ids"].tolist() == ticket.user_ids.at(range(7))
        assert more["item_ids"].tolist() == ticket.item_ids.at(range(9))
        for name, part in zip(("indptr", "indices"), ticket.seen(slice(0, 7)), strict=True):
            np.testing.assert_array_equal(more[f"seen_{name}"], part)
        weights = more["layer_weights"]
        assert weights.size == len(ticket.layer_weights or ())
        if weights.size:
            shape = (16, 16)
            user = np.repeat(np.arange(7), np.diff(more["train_indptr"]))
            item = more["train_indices"] + 7
            graph = scipy.sparse.coo_array((np.ones(len(user)), (user, item)), shape).tocsr()
            graph = graph + graph.T
            degree = np.maximum(graph.sum(axis=0), 1)
            layer = csr.toarray().astype(float)
            final = weights[0] * layer
            for weight in weights[1:]:
                layer = graph @ (layer / np.sqrt(degree)[:, None]) / np.sqrt(degree)[:, None]
                final += weight * layer
            if more["score"] == "cosine":
                final = final / np.maximum(np.linalg.norm(final, axis=1, keepdims=True), 1e-30)
        else:
            final = csr.toarray()
        scores = final[:7] @ final[7:].T
        if more["item_bias"].size:
            scores += more["item_bias"].astype(float)
        embedding = ticket.embedding()
        np.testing.assert_allclose(scores, embedding[:7] @ embedding[7:].T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4, 30])
def test_onnxruntime_ranks_as_the_ticket_does(ticket, tmp_path, k):
    import onnxruntime

    export(ticket, tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    users = np.array([3, 0, 6, 3])
    items, scores = session.run(["item", "score"], {"user": users, "k": np.array([k])})
    ranked, wanted = ticket.rank(users, k)
    there = ranked < ticket.num_items
    assert items.shape == ranked.shape
    np.testing.assert_array_equal(scores > -np.inf, there)
    assert items[there].tolist() == ticket.item_ids.at(ranked[there])
    np.testing.assert_allclose(scores[there], wanted[there], rtol=1e-6)
    nobody, _ = session.run(None, {"user": users[:0], "k": np.array([k])})
    assert nobody.shape == (0, min(k, 9))


def test_a_sparse_table_stays_sparse_in_onnx(make_ticket):
    from pyg_lth.tickets.exporters.onnx import build_model

    names = {array.name for array in build_model(make_ticket(seed=1)).graph.initializer}
    dense = make_ticket(values="int8", form="dense")
    assert {"values", "places"} <= names
    assert "table" in {array.name for array in build_model(dense).graph.initializer}


def test_a_model_too_large_for_onnx_is_refused(make_ticket, monkeypatch, tmp_path):
    from pyg_lth.tickets.exporters import onnx

    monkeypatch.setattr(onnx, "BYTES_AT_MOST", 100)
    with pytest.raises(InputError, match="ends at 2 GB"):
        export(make_ticket(), tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def best_items(ticket):
    """For each user the items by score, those that they have seen too."""
    ranked, scores = ticket.rank(slice(0, 7), 9, exclude_seen=False)
    return ticket.item_keys()[ranked], scores


def test_faiss_finds_the_items_of_highest_score(ticket, tmp_path):
    import faiss

    export(ticket, tmp_path / "items.faiss", "faiss")
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    scores, items = index.search(ticket.embedding()[:7], 9)
    wanted, wanted_scores = best_items(ticket)
    np.testing.assert_allclose(scores, wanted_scores, rtol=1e-5, atol=1e-6)
    distinct = np.diff(wanted_scores, axis=1, prepend=np.inf, append=-np.inf) < -1e-5
    alone = distinct[:, 1:] & distinct[:, :-1]
    assert alone.any()
    np.testing.assert_array_equal(items[alone], wanted[alone])


def test_usearch_finds_the_items_of_highest_score(ticket, tmp_path):
    from usearch.index import Index

    export(ticket, tmp_path / "items.usearch", "usearch")
    index = Index.restore(str(tmp_path / "items.usearch"))
    found = index.search(ticket.embedding()[:7], 9, exact=True)
    _, scores = best_items(ticket)
    np.testing.assert_allclose(1 - found.distances, scores, rtol=1e-5, atol=1e-5)
    for user, keys in enumerate(found.keys):
        assert sorted(keys.tolist()) == sorted(ticket.item_keys().tolist())
        place = {key: index for index, key in enumerate(ticket.item_keys().tolist())}
        rows = ticket.embedding()[7:][[place[key] for key in keys.tolist()]]
        np.testing.assert_allclose(rows @ ticket.embedding()[user], scores[user], rtol=1e-5)


def test_usearch_refuses_negative_ids(make_ticket, tmp_path):
    ticket = dataclasses.replace(make_ticket(), item_ids=IdTable.of(range(-9, 0)))
    with pytest.raises(InputError, match=r"-9.*take the format faiss"):
        export(ticket, tmp_path / "items", "usearch")


NOTES = {
    "metrics": {
        "test": {"recall@20": 0.125, "ndcg@20": 0.0625},
        "test_of_dense": {"recall@20": 0.25, "ndcg@20": 0.125},
        "selected_on": "valid",
    },
    "provenance": {"round": 3, "seed": 0, "settings": {"dataset": "/home/ann/secret/log.csv"}},
}


def test_the_hub_reads_the_card_and_numpy_the_weights(make_ticket, tmp_path):
    from huggingface_hub import ModelCard
    from safetensors import safe_open

    ticket = make_ticket(ids=True, notes=NOTES, bias=True)
    folder = tmp_path / "a" / "folder"
    export(ticket, folder, "hf")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "pyg-lth"
    assert card.data.license is None
    assert "lottery-ticket" in card.data.tags
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured == NOTES["metrics"]["test"]
    assert {result.dataset_name for result in card.data.eval_results} == {"log.csv"}
    assert "secret" not in (folder / "README.md").read_text()
    assert "| the dense model | 0.2500 | 0.1250 |" in card.text
    assert f"{(folder / 'model.safetensors').stat().st_size:,} bytes" in card.text
    settings = json.loads((folder / "config.json").read_text())
    assert settings["density"] == ticket.table.density
    assert settings["item_bias"] is True
    assert "| of it bias | 18 bytes |" in card.text
    again = Ticket.load(folder / settings["weights"])
    assert again.recommend(["user 3"], 5) == ticket.recommend(["user 3"], 5)
    with safe_open(folder / settings["weights"], "numpy") as file:
        assert file.metadata()["format"] == "pyg-lth-ticket"


def test_a_card_without_metrics_says_so(make_ticket, tmp_path):
    from huggingface_hub import ModelCard

    export(make_ticket(), tmp_path, "hf")
    card = ModelCard.load(tmp_path / "README.md")
    assert not card.data.eval_results
    assert "Not measured." in card.text


def test_a_folder_that_is_a_file_is_refused(make_ticket, tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(InputError, match="cannot be a folder"):
        export(make_ticket(), path, "hf")


def test_an_unknown_format_is_refused(make_ticket, tmp_path):
    with pytest.raises(InputError, match=r"'pickle' is no format: take one of ticket, npz, "):
        export(make_ticket(), tmp_path / "any", "pickle")


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_folder_that_is_missing_is_one_line(make_ticket, tmp_path, name):
    if name == "hf":
        pytest.skip("it makes its folder")
    with pytest.raises(InputError, match="cannot be written"):
        export(make_ticket(), tmp_path / "missing" / "any", name)


@pytest.mark.parametrize("name", [name for name, found in EXPORTERS.items() if found.needs])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    make_ticket, tmp_path, monkeypatch, name
):
    for package in EXPORTERS[name].needs:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'pip install "pyg-lth\[{name}\]"') as refused:
        export(make_ticket(), tmp_path / "any", name)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_formats_that_need_nothing_import_nothing_of_the_others():
    script = (
        "import sys; from pyg_lth.tickets.exporters import EXPORTERS;"
        "print({'torch', 'onnx', 'faiss', 'usearch', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
