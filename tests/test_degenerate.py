"""Graphs and masks at the edge of what there is: refused with a reason, or defined and computed."""

import pytest
import torch

import pyg_lth
from pyg_lth import InputError
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.tickets import Ticket
from pyg_lth.tickets.building import build_ticket

ALL_SEEN = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_one_user_and_two_items_are_enough(make_graph, quick_config):
    graph = make_graph(1, 3, [(0, 0)], [(0, 1)], [(0, 2)])
    report = pyg_lth.find_tickets(graph, quick_config(topk=1))
    assert 0 <= report.dense.test["recall@1"] <= 1


@pytest.mark.parametrize(
    ("counts", "train", "test", "words"),
    [
        ((1, 1), [(0, 0)], [], "no interactions in .* 'edge_label_index'"),
        ((1, 2), [(0, 0), (0, 1)], [(0, 0)], "stands twice"),
        ((1, 1), [], [(0, 0)], "no interactions in .* 'edge_index'"),
        ((2, 2), [(0, 0), (1, 0), (1, 1)], [(2, 0)], "user 2 is outside 0..1"),
        # Whoever has an item has them all but for the one of test, of whom there is nobody else.
        ((2, 2), [(0, 0), (0, 1)], [(1, 0)], "no user has both"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(
    make_graph, quick_config, counts, train, test, words
):
    with pytest.raises(InputError, match=words):
        pyg_lth.find_tickets(
            make_graph(*counts, train, test), quick_config(select_on="test", topk=1)
        )


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_who_has_seen_everything_trains_nobody_and_is_ranked_nothing(
    make_graph, quick_config, model
):
    """User 0 has all items in train; user 2 none at all, and is ranked as the model embeds them."""
    graph = make_graph(3, 3, ALL_SEEN, [(1, 2), (2, 0)])
    report = pyg_lth.find_tickets(graph, quick_config(model=model, select_on="test", topk=3))
    # Lists that are longer than what is unseen hold what is unseen: all of it is found.
    assert report.dense.test["recall@3"] == 1


@pytest.mark.parametrize("scope", ["joint", "user", "item", "user_item", "row"])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_a_table_of_which_next_to_nothing_is_left_is_trained_ranked_and_shipped(
    make_graph, quick_config, tmp_path, model, scope
):
    """Each round leaves one in a hundred, and at least one: rounds go on when none is left to drop.

    All users but one are ranked by the lower item then.
    """
    graph = make_graph(4, 6, [(u, i) for u in range(4) for i in range(3)], [(0, 4), (1, 5)])
    config = quick_config(
        model=model, scope=scope, select_on="test", amount=0.99, rounds=6, topk=2, max_epochs=2
    )
    report = pyg_lth.find_tickets(graph, config, run_dir=tmp_path / "run")
    left = [ticket.remaining for ticket in report.rounds]
    assert left == sorted(left, reverse=True) and left[-1] >= 1
    assert left[-1] == left[-2]
    folder = RunFolder(tmp_path / "run")
    weights = folder.read_weights(6)["embedding.weight"]
    assert int(weights.count_nonzero()) <= left[-1] and weights.isfinite().all()
    build_ticket(tmp_path / "run", round=6, data=graph).save(tmp_path / "last.ticket")
    shipped = Ticket.load(tmp_path / "last.ticket").recommend([0, 1, 2, 3], k=6)
    for user, answer in enumerate(shipped):
        if not weights[user].any() and model == "mf":
            assert answer.items == [3, 4, 5]


def test_a_mask_without_an_entry_trains_to_nothing_and_ranks_by_the_lower_item(
    make_split, quick_config
):
    from pyg_lth import Mask
    from pyg_lth.training.problem import Problem
    from pyg_lth.training.trainer import Training

    split = make_split(3, 4, [(0, 0), (0, 1), (1, 1), (2, 3)], [(0, 2), (1, 0)])
    for model in ("mf", "lightgcn"):
        for loss in ("bpr", "softmax", "sampled-softmax", "ccl"):
            config = quick_config(model=model, loss=loss, select_on="test", topk=3)
            problem = Problem.prepare(split, config, torch.device("cpu"))
            nothing = Mask(torch.zeros(7, config.dim, dtype=torch.bool))
            training = Training(problem, problem.initialize(), nothing, round=0)
            training.run()
            embedding = training.best_embedding()
            assert not embedding.any()
            assert problem.evaluator.rank(embedding).tolist() == [[2, 3, 4], [0, 2, 3]]


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_what_is_no_longer_finite_stops_the_round_and_names_it(small_graph, quick_config, model):
    words = r"in round 0, epoch \d+: .* diverged at the learning rate 1e\+30; lower `lr` \(no epoch"
    with pytest.raises(InputError, match=words):
        pyg_lth.find_tickets(small_graph, quick_config(model=model, lr=1e30))


def test_weights_that_are_not_finite_stop_the_round_even_if_the_loss_is(
    small_graph, quick_config, monkeypatch
):
    """Where no batch of the epoch has met the bad row, only the embeddings tell."""
    from pyg_lth.training.trainer import Training

    step = Training.step
    steps = 0

    def spoil(self, batch):
        nonlocal steps
        loss = step(self, batch)
        steps += 1
        if steps == 4 * self.problem.sampler.steps:
            with torch.no_grad():
                self._model.embedding.parametrizations.weight.original[0, 0] = torch.inf
        return loss

    monkeypatch.setattr(Training, "step", spoil)
    words = r"embeddings are not finite in round 0, epoch 4: .* is that of epoch 2\)"
    with pytest.raises(InputError, match=words):
        pyg_lth.find_tickets(small_graph, quick_config(model="lightgcn", lr=0.01))
