import importlib.util

import numpy as np
import pytest
import torch

from pyg_lth import find_tickets
from pyg_lth.errors import InputError, RunWarning
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.evaluation.significance import Difference
from pyg_lth.interactions import InteractionSplit
from pyg_lth.reporting import frontier
from pyg_lth.reporting.frontier import Point, efficient, measure, read, simpler
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.tickets.building import build_ticket

METRIC = "recall@5"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_graph, quick_config):
    root = tmp_path_factory.mktemp("runs")
    popular = {"loss": "sampled-softmax", "negatives_by": "edge", "popularity": 1.0}
    for model in ("mf", "lightgcn"):
        for name, given in ((model, {}), (f"popular-{model}", popular)):
            config = quick_config(model=model, rounds=2, **given)
            find_tickets(small_graph, config, run_dir=root / name)
    return {path.name: RunFolder(path) for path in root.iterdir()}


@pytest.fixture(scope="module")
def measured(folders, small_graph):
    return {name: measure(folder, small_graph) for name, folder in folders.items()}


def of(found, way, values="float32", round=0):
    points = [p for p in found.points if (p.way, p.values, p.round) == (way, values, round)]
    assert points
    return points


@pytest.mark.parametrize("model", ["mf", "lightgcn", "popular-mf", "popular-lightgcn"])
def test_in_float32_a_ticket_and_dense_are_what_the_run_reported(folders, measured, model):
    report = folders[model].read_report()
    (dense,) = of(measured[model], "dense")
    assert dense.test == pytest.approx(report.dense.test)
    assert dense.difference.relative == pytest.approx(0)
    for result in report.rounds:
        (ticket,) = of(measured[model], "ticket", round=result.round)
        assert ticket.test == pytest.approx(result.test)
        assert ticket.difference.relative == pytest.approx(result.difference.relative)


@pytest.mark.parametrize("model", ["mf", "lightgcn", "popular-mf", "popular-lightgcn"])
@pytest.mark.parametrize("values", ["float32", "int4"])
def test_bytes_and_metrics_are_those_of_the_ticket_s_file(
    folders, measured, small_graph, tmp_path, model, values
):
    ticket = build_ticket(folders[model].path, small_graph, round=2, values=values)
    (point,) = of(measured[model], "ticket", values, round=2)
    assert point.bytes == ticket.nbytes()["to_answer"]
    evaluate = Evaluator(InteractionSplit.from_data(small_graph), "test", 5)
    assert point.test == pytest.approx(evaluate(torch.from_numpy(ticket.embedding())))


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_the_bias_is_kept_beside_every_way_and_counted(folders, measured, small_graph, model):
    with_bias, without = measured[f"popular-{model}"].points, measured[model].points
    of_bias = 2 * small_graph["item"].num_nodes
    for one, other in zip(with_bias, without, strict=True):
        assert (one.way, one.values) == (other.way, other.values)
        # Masks differ from run to run, and with them what places and scales take.
        if one.way not in ("ticket", "pruned propagated table"):
            assert one.bytes == other.bytes + of_bias
    for store, way in (("final", "propagated table"), ("pruned", "pruned propagated table")):
        given = {"store": store, "density": 0.5} if store == "pruned" else {"store": store}
        ticket = build_ticket(folders[f"popular-{model}"].path, small_graph, round=0, **given)
        if model == "lightgcn":
            point = of(measured["popular-lightgcn"], way)[0]
            assert point.bytes == ticket.nbytes()["to_answer"]
            assert point.test == pytest.approx(ticket.notes["metrics"]["test"])


def test_first_columns_do_not_cut_off_the_bias(folders, measured, small_graph):
    folder = folders["popular-mf"]
    weight = folder.read_round(0)[1]
    bias = torch.from_numpy(build_ticket(folder.path, small_graph, round=0).bias).float()
    column = torch.cat([torch.ones(len(weight) - len(bias)), bias])[:, None]
    evaluate = Evaluator(InteractionSplit.from_data(small_graph), "test", 5)
    for point, width in zip(of(measured["popular-mf"], "first columns"), (2, 1), strict=True):
        assert point.bytes == len(weight) * width * 4 + 2 * len(bias)
        rows = torch.nn.functional.normalize(weight[:, :width])
        assert point.test == pytest.approx(evaluate(torch.cat([rows, column], dim=1)))


def test_the_propagated_table_needs_no_graph(measured, small_graph):
    lightgcn = measured["lightgcn"]
    (table,), (dense,) = of(lightgcn, "propagated table"), of(lightgcn, "dense")
    rows = small_graph["user"].num_nodes + small_graph["item"].num_nodes
    assert table.bytes == rows * 4 * 4 < dense.bytes
    assert table.test == pytest.approx(dense.test)
    assert not [point for point in measured["mf"].points if point.way == "propagated table"]


def test_first_columns_are_those_of_the_dense_table(folders, measured, small_graph):
    _, weight = folders["mf"].read_round(0)
    evaluate = Evaluator(InteractionSplit.from_data(small_graph), "test", 5)
    points = of(measured["mf"], "first columns")
    assert [point.density for point in points] == [0.5, 0.25]
    for point, width in zip(points, (2, 1), strict=True):
        assert point.bytes == len(weight) * width * 4
        assert point.test == pytest.approx(evaluate(weight[:, :width]))


def test_what_was_measured_is_kept(folders, measured):
    folder = folders["mf"]
    assert read(folder) == measured["mf"]


def test_what_is_damaged_or_of_another_run_is_not_used(folders, measured, small_graph):
    folder = folders["mf"]
    for text in (b"{", measured["lightgcn"].model_dump_json().encode()):
        folder.write_file(frontier.FILE, text)
        assert read(folder) is None
    (folder.path / frontier.FILE).write_bytes(b"never written")
    with pytest.warns(RunWarning, match="frontier.json is damaged"):
        assert read(folder) is None
    assert measure(folder, small_graph) == measured["mf"] == read(folder)


def test_another_graph_is_refused(folders, taste_graph, tmp_path):
    (folders["mf"].path / frontier.FILE).unlink(missing_ok=True)
    with pytest.raises(InputError, match="graph is not the one"):
        measure(folders["mf"], taste_graph)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
def test_product_quantisation_decodes_to_what_faiss_encodes(tmp_path, taste_graph, quick_config):
    import faiss

    find_tickets(taste_graph, quick_config(model="mf", rounds=0), run_dir=tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    points = of(measure(folder, taste_graph), "product quantisation", "codes")
    _, weight = folder.read_round(0)
    evaluate = Evaluator(InteractionSplit.from_data(taste_graph), "test", 5)
    for point, parts in zip(points, (4, 2, 1), strict=True):
        assert point.bytes == len(weight) * parts + 256 * 4 * 4
        coder = faiss.ProductQuantizer(4, parts, 8)
        coder.train(weight.numpy())
        decoded = coder.decode(coder.compute_codes(weight.numpy()))
        assert point.test == pytest.approx(evaluate(torch.from_numpy(decoded)))


def test_without_faiss_it_is_said_that_one_way_was_not_measured(
    tmp_path, small_graph, quick_config, monkeypatch
):
    monkeypatch.setattr(frontier, "_has_faiss", lambda: False)
    find_tickets(small_graph, quick_config(model="mf", rounds=0), run_dir=tmp_path / "run")
    found = measure(RunFolder(tmp_path / "run"), small_graph)
    assert not [point for point in found.points if point.way == "product quantisation"]
    (note,) = found.notes
    assert "not measured" in note


def point(size, recall, way="dense"):
    none = Difference(relative=None, low=None, high=None, p_value=1.0)
    return Point(
        way=way,
        values="int8",
        round=0,
        density=1.0,
        bytes=size,
        test={METRIC: recall},
        difference=none,
    )


def test_a_simpler_way_is_as_good_in_no_more_bytes():
    ways = [point(100, 0.5), point(50, 0.4), point(40, 0.4), point(30, 0.1)]
    assert simpler(point(100, 0.45), ways, METRIC) == ways[0]
    assert simpler(point(60, 0.4), ways, METRIC) == ways[2]
    assert simpler(point(60, 0.41), ways, METRIC) is None
    # The same in both is no better.
    assert simpler(point(100, 0.5), ways[:1], METRIC) is None
    assert simpler(point(20, 0.1), ways, METRIC) is None


def test_the_efficient_points_equal_a_naive_loop():
    generator = np.random.default_rng(0)
    points = [
        point(int(size), float(recall) / 10)
        for size, recall in zip(
            generator.integers(1, 20, 60), generator.integers(0, 20, 60), strict=True
        )
    ]

    def beaten(one):
        return any(
            other.bytes <= one.bytes
            and other.test[METRIC] >= one.test[METRIC]
            and (other.bytes < one.bytes or other.test[METRIC] > one.test[METRIC])
            for other in points
        )

    expected = {(p.bytes, p.test[METRIC]) for p in points if not beaten(p)}
    found = efficient(points, METRIC)
    assert [p.bytes for p in found] == sorted(p.bytes for p in found)
    assert {(p.bytes, p.test[METRIC]) for p in found} == expected
