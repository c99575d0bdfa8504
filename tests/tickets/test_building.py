import numpy as np
import pytest
import torch

import pyg_lth
from pyg_lth.config import TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE, build_backbone
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.tickets import Ticket
from pyg_lth.tickets.building import build_ticket, stored_bias
from pyg_lth.tickets.places import FORMS
from pyg_lth.training.problem import Problem


@pytest.fixture(scope="module")
def runs(small_graph, quick_config, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for model in ("mf", "lightgcn"):
        config = quick_config(model=model, tolerance=0.9)
        pyg_lth.find_tickets(small_graph, config, run_dir=root / model)
    return root


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
@pytest.mark.parametrize("round", [0, 2])
def test_a_ticket_answers_as_the_run_was_evaluated(runs, small_graph, tmp_path, model, round):
    ticket = build_ticket(runs / model, small_graph, round=round)
    ticket.save(tmp_path / "a.ticket")
    ticket = Ticket.load(tmp_path / "a.ticket")
    result = RunFolder(runs / model).read_results()[round]
    metrics = ticket.notes["metrics"]
    assert metrics["test"] == pytest.approx(result.test) == metrics["test_of_run"]
    assert ticket.table.stored == result.remaining
    density = ticket.notes["density"]
    assert density["users_by_degree"] == pytest.approx(result.analysis.density_by_user_group)
    assert density["items_by_degree"] == pytest.approx(result.analysis.density_by_item_group)
    provenance = ticket.notes["provenance"]
    assert provenance["data"] == InteractionSplit.from_data(small_graph).fingerprint()
    assert (provenance["round"], provenance["seed"], provenance["run"]) == (round, 0, model)
    assert provenance["settings"]["dim"] == 4
    split = InteractionSplit.from_data(small_graph)
    ranked = Evaluator(split, "test", 5).rank(torch.from_numpy(ticket.embedding()))
    users = torch.unique(split.test[0]).numpy()
    np.testing.assert_array_equal(ticket.rank(users, 5)[0], ranked)


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_a_ticket_of_a_run_that_ranks_by_cosine_does_so_too(
    small_graph, quick_config, tmp_path, model
):
    config = quick_config(model=model, loss="softmax", rounds=1)
    assert config.score == "cosine"
    report = pyg_lth.find_tickets(small_graph, config, run_dir=tmp_path)
    ticket = build_ticket(tmp_path, small_graph, round=1)
    assert ticket.notes["metrics"]["test"] == pytest.approx(report.rounds[0].test)
    assert ticket.notes["store"] == ("ego" if model == "lightgcn" else "table")
    ticket.save(tmp_path / "a.ticket")
    assert Ticket.load(tmp_path / "a.ticket").score == ticket.score
    split = InteractionSplit.from_data(small_graph)
    by_torch = build_ticket(tmp_path, small_graph, round=1, store="final").embedding().copy()
    ranked = Evaluator(split, "test", 5).rank(torch.from_numpy(by_torch))
    np.testing.assert_array_equal(ticket.rank(np.unique(split.test[0]), 5)[0], ranked)
    lengths = np.linalg.norm(ticket.embedding(), axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-5)


STORES = [
    ("mf", {}),
    *(("mf", {"form": form}) for form in FORMS if form != "first-columns"),
    ("mf", {"values": "int8"}),
    ("mf", {"store": "pruned", "density": 0.2}),
    ("lightgcn", {}),
    ("lightgcn", {"store": "final"}),
    ("lightgcn", {"store": "final", "values": "int4"}),
    ("lightgcn", {"store": "pruned", "bytes": 500}),
]


@pytest.fixture(scope="module")
def popular_runs(small_graph, quick_config, tmp_path_factory):
    """Runs that rank by cosine and popularity, and what their evaluator ranks in round 1."""
    root, finals = tmp_path_factory.mktemp("popular"), {}
    for model in ("mf", "lightgcn"):
        config = quick_config(
            model=model, loss="sampled-softmax", negatives_by="edge", popularity=1.0, rounds=1
        )
        pyg_lth.find_tickets(small_graph, config, run_dir=root / model)
        split, folder = InteractionSplit.from_data(small_graph), RunFolder(root / model)
        weights = {**folder.read_weights(1), TABLE: folder.read_round(1)[1]}
        problem = Problem.prepare(split, config, torch.device("cpu"))
        finals[model] = problem.embed(build_backbone(config, weights, problem.device))
    return root, finals


@pytest.mark.parametrize(("model", "given"), STORES, ids=str)
def test_a_ticket_of_a_run_that_ranks_by_popularity_too_holds_it_in_float16(
    popular_runs, small_graph, tmp_path, model, given
):
    root, finals = popular_runs
    build_ticket(root / model, small_graph, round=1, **given).save(tmp_path / "a.ticket")
    ticket = Ticket.load(tmp_path / "a.ticket")
    split = InteractionSplit.from_data(small_graph)
    final = finals[model].clone()
    exact = final[split.num_users :, -1].clone()
    assert exact.unique().numel() > 2
    final[:, -1] = final[:, -1].half().float()
    assert ticket.bias.tolist() == exact.half().tolist()
    assert ticket.nbytes()["bias"] == 2 * split.num_items
    embedding = torch.from_numpy(ticket.embedding())
    assert torch.equal(embedding[:, -1], final[:, -1])
    changed = given.keys() & {"values", "density", "bytes"}
    if changed:
        # What is evaluated is what the file holds.
        assert torch.equal(embedding[:, :-1], torch.from_numpy(ticket.table.to_dense()))
        final = embedding
    users = torch.unique(split.test[0]).numpy()
    evaluator = Evaluator(split, "test", 5)
    np.testing.assert_array_equal(ticket.rank(users, 5)[0], evaluator.rank(final))
    assert ticket.notes["metrics"]["test"] == pytest.approx(evaluator(final))
    if not changed:
        assert ticket.notes["metrics"]["test_of_run"] == pytest.approx(evaluator(final))


def test_a_bias_beyond_float16_is_refused(popular_runs, small_graph):
    split = InteractionSplit.from_data(small_graph)
    config = TrainConfig(loss="sampled-softmax", popularity=10.0, temperature=1e5)
    with pytest.raises(InputError, match="is beyond float16: take a smaller popularity"):
        stored_bias(split, config)


def test_the_three_storages_of_lightgcn(runs, small_graph):
    ego, final, pruned, quantised = (
        build_ticket(runs / "lightgcn", small_graph, round=2, **given)
        for given in (
            {},
            {"store": "final"},
            {"store": "pruned", "bytes": 500},
            {"store": "final", "values": "int8"},
        )
    )
    np.testing.assert_allclose(ego.embedding(), final.embedding(), rtol=1e-5, atol=1e-7)
    assert len(ego.layer_weights) == 3 and final.layer_weights is None
    assert ego.nbytes()["to_answer"] > ego.table.nbytes
    assert pruned.table.nbytes <= 500 == pruned.nbytes()["to_answer"] + 500 - pruned.table.nbytes
    assert quantised.table.kind == "int8" and quantised.notes["store"] == "final"
    assert {t.fold_in for t in (ego, final, pruned)} == {"propagation"}
    kept = pruned.embedding() != 0
    np.testing.assert_array_equal(pruned.embedding()[kept], final.embedding()[kept])


def test_validation_that_was_held_out_is_left_out_of_lists(small_graph, quick_config, tmp_path):
    data = small_graph.clone()
    del data["user", "rates", "item"].val_edge_label_index
    pyg_lth.train(data, quick_config(model="mf"), run_dir=tmp_path / "run")
    ticket = build_ticket(tmp_path / "run", data)
    split = InteractionSplit.from_data(data).hold_out_validation(0)
    assert ticket.valid.degrees.sum() == split.valid.size(1) > 0
    for user, item in split.valid.t().tolist():
        assert item not in ticket.recommend([user], k=30)[0].items


def test_the_winner_is_the_default_and_ids_come_along(runs, small_graph):
    winner = RunFolder(runs / "mf").read_report().sparsest_winner
    ids = [f"item {index}" for index in range(30)]
    ticket = build_ticket(runs / "mf", small_graph, item_ids=ids)
    assert ticket.notes["provenance"]["round"] == winner.round
    assert ticket.recommend([0], k=1)[0].items[0] in ids


def test_a_run_of_several_seeds_gives_one_of_them(small_graph, quick_config, tmp_path):
    config = quick_config(model="mf", rounds=1, seeds=2, max_epochs=2)
    pyg_lth.find_tickets(small_graph, config, run_dir=tmp_path / "run")
    first, second = (
        build_ticket(tmp_path / "run", small_graph, round=1, seed=seed) for seed in (None, 1)
    )
    assert [t.notes["provenance"]["seed"] for t in (first, second)] == [0, 1]
    assert (first.embedding() != second.embedding()).any()
    with pytest.raises(InputError, match="no seed 5: it has 0, 1"):
        build_ticket(tmp_path / "run", small_graph, round=1, seed=5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"round": 9}, "no round 9: give one from 0 to 3"),
        ({"store": "dense"}, "'dense' is none of ego"),
        ({"store": "final", "bytes": 99}, "store pruned"),
        ({"store": "pruned"}, "needs a budget"),
        ({"user_ids": ["a"]}, "1 ids of users"),
    ],
)
def test_what_cannot_be_built_is_refused(runs, small_graph, given, message):
    with pytest.raises(InputError, match=message):
        build_ticket(runs / "lightgcn", small_graph, **{"round": 1, **given})


def test_another_graph_is_refused(runs, taste_graph):
    with pytest.raises(InputError, match="the graph is not the one"):
        build_ticket(runs / "mf", taste_graph, round=1)
