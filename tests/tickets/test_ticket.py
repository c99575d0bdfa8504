import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

import pyg_lth
from pyg_lth.errors import InputError
from pyg_lth.tickets import CompactTable, IdTable, ItemLists, Ticket, native

LIGHT = """
import sys
from pyg_lth.tickets import Ticket
ticket = Ticket.load(sys.argv[1])
print(ticket.recommend([0], k=3)[0].items, ticket.similar(0, k=1)[0][0])
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "pandas", "torch_geometric", "pydantic", "scipy", "safetensors"}))
"""


def test_reading_and_answering_need_numpy_alone(make_ticket, tmp_path):
    ticket = make_ticket(layers=2)
    ticket.save(tmp_path / "a.ticket")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, tmp_path / "a.ticket"],
        check=True,
        capture_output=True,
        text=True,
    )
    answer = ticket.recommend([0], k=3)[0].items, ticket.similar(0, k=1)[0][0]
    assert done.stdout.splitlines() == [f"{answer[0]} {answer[1]}", "[]"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ids": True, "valid": True},
        {"layers": 2},
        {"bias": True},
        {"layers": 2, "score": "cosine", "bias": True},
    ],
)
@pytest.mark.parametrize("values", ["float32", "int4"])
def test_a_saved_ticket_is_the_ticket(make_ticket, tmp_path, given, values):
    ticket = make_ticket(values, notes={"metrics": {"recall@20": 0.5}}, **given)
    ticket.save(tmp_path / "a.ticket")
    found = Ticket.load(tmp_path / "a.ticket")
    np.testing.assert_array_equal(found.embedding(), ticket.embedding())
    assert found.recommend(["x", *ticket.user_ids.at(range(7))]) == ticket.recommend(
        ["x", *ticket.user_ids.at(range(7))]
    )
    for name in ("backbone", "layer_weights", "score", "fold_in", "notes"):
        assert getattr(found, name) == getattr(ticket, name)
    np.testing.assert_array_equal(found.bias, ticket.bias)
    assert found.nbytes() == ticket.nbytes()
    ticket.save(tmp_path / "b.ticket")
    assert (tmp_path / "a.ticket").read_bytes() == (tmp_path / "b.ticket").read_bytes()


def by_hand(ticket, user, k, out=()):
    """Score, sort and cut in pure Python, by index."""
    embedding = ticket.embedding()
    seen = set(ticket.train.of_users([user])[1].tolist())
    if ticket.valid is not None:
        seen |= set(ticket.valid.of_users([user])[1].tolist())
    scores = embedding[7:] @ embedding[user]
    left = [item for item in range(9) if item not in seen | set(out)]
    return sorted(left, key=lambda item: (-scores[item], item))[:k]


@pytest.mark.parametrize("bias", [False, True])
def test_known_users_get_the_best_unseen_items(make_ticket, bias):
    ticket = make_ticket(ids=True, valid=True, bias=bias)
    users = [f"user {index}" for index in (3, 0, 3)]
    answers = ticket.recommend(users, k=4)
    assert [answer.basis for answer in answers] == ["trained"] * 3
    for answer, index in zip(answers, (3, 0, 3), strict=True):
        assert answer.items == [100 - item for item in by_hand(ticket, index, 4)]
        assert answer.scores == sorted(answer.scores, reverse=True)
    everything = ticket.recommend(users[:1], k=50, exclude_seen=False)[0].items
    assert sorted(everything) == list(range(92, 101))


def test_items_to_leave_out_are_for_all_or_for_each(make_ticket):
    ticket = make_ticket()
    out = [0, "1", "no such item"]
    assert ticket.recommend([2], 9, exclude=out)[0].items == by_hand(ticket, 2, 9, [0, 1])
    one, other = ticket.recommend([2, 3], 9, exclude={2: [4, 5], "x": [0]})
    assert one.items == by_hand(ticket, 2, 9, [4, 5])
    assert other.items == by_hand(ticket, 3, 9)
    assert ticket.recommend(["x"], 9, exclude=range(9))[0].items == []


def test_an_unknown_user_gets_what_is_popular(make_ticket):
    ticket = make_ticket()
    degrees = ticket.train.degrees.tolist()
    (answer, known) = ticket.recommend(["nobody", 0], k=3, exclude=[3])
    assert answer.basis == "popularity"
    left = [item for item in range(9) if item != 3]
    assert answer.items == sorted(left, key=lambda item: (-degrees[item], item))[:3]
    assert answer.scores == [degrees[item] for item in answer.items]
    assert known.basis == "trained"


def test_all_users_are_answered_as_each_is(make_ticket, monkeypatch):
    monkeypatch.setattr("pyg_lth.tickets.ticket.USERS_AT_ONCE", 3)
    ticket = make_ticket(ids=True)
    answers = list(ticket.recommend_all(k=4))
    assert answers == ticket.recommend([f"user {index}" for index in range(7)], k=4)


def test_history_is_folded_in_by_ridge_regression(make_ticket):
    ticket = make_ticket()
    items = ticket.embedding()[7:][[2, 4]].astype(float)
    penalty = (items**2).sum(axis=1).mean()
    user = items.T @ np.linalg.inv(items @ items.T + penalty * np.eye(2)) @ np.ones(2)
    answer = ticket.recommend_for([4, "2", "unknown", 4], k=3, exclude=[0])
    scores = ticket.embedding()[7:] @ user
    left = [item for item in range(9) if item not in (0, 2, 4)]
    assert answer.basis == "history" and answer.user is None
    assert answer.items == sorted(left, key=lambda item: -scores[item])[:3]
    np.testing.assert_allclose(answer.scores, scores[answer.items], rtol=1e-5)


def test_history_is_folded_in_by_propagation(make_ticket):
    ticket = make_ticket(layers=2, fold_in="propagation")
    degrees = np.maximum(ticket.train.degrees, 1)
    items = ticket.embedding()[7:].astype(float)
    scores = items @ (items[1] / degrees[1] ** 0.5 + items[5] / degrees[5] ** 0.5)
    answer = ticket.recommend_for([5, 1], k=7)
    np.testing.assert_allclose(answer.scores, scores[answer.items], rtol=1e-5)


def test_a_history_of_unknown_items_gets_what_is_popular(make_ticket):
    ticket = make_ticket()
    answer = ticket.recommend_for(["unknown"], k=3)
    assert answer.basis == "popularity"
    assert answer.items == ticket.recommend(["nobody"], k=3)[0].items
    assert ticket.recommend_for([], k=3) == answer


@pytest.mark.parametrize("given", [{}, {"layers": 2, "score": "cosine", "fold_in": "propagation"}])
def test_of_a_ticket_with_a_bias_history_is_as_long_as_users_are(make_ticket, given):
    ticket = make_ticket(bias=True, **given)
    embedding = ticket.embedding().astype(float)
    np.testing.assert_array_equal(embedding[:, 4], [*[1] * 7, *ticket.bias.astype(float)])
    users, items = embedding[:7, :4], embedding[7:, :4]
    if given:
        degrees = np.maximum(ticket.train.degrees, 1)
        user = items[1] / degrees[1] ** 0.5 + items[5] / degrees[5] ** 0.5
    else:
        liked = items[[1, 5]]
        penalty = (liked**2).sum(axis=1).mean()
        user = liked.T @ np.linalg.inv(liked @ liked.T + penalty * np.eye(2)) @ np.ones(2)
    lengths = np.linalg.norm(users, axis=1)
    user *= lengths[lengths > 0].mean() / np.linalg.norm(user)
    assert not given or np.linalg.norm(user) == pytest.approx(1)
    scores = items @ user + embedding[7:, 4]
    answer = ticket.recommend_for([5, 1], k=7)
    assert answer.items == sorted({*range(9)} - {1, 5}, key=lambda item: -scores[item])
    np.testing.assert_allclose(answer.scores, scores[answer.items], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_similar_items_are_those_of_the_largest_cosine(make_ticket, bias):
    ticket = make_ticket(ids=True, bias=bias)
    items = ticket.embedding()[7:, :4]
    norm = np.linalg.norm(items, axis=1)
    cosine = items @ items[2] / np.where(norm * norm[2] > 0, norm * norm[2], 1)
    found = ticket.similar(98, k=20)
    assert [item for item, _ in found] == [
        100 - item for item in np.argsort(-cosine, kind="stable") if item != 2
    ]
    np.testing.assert_allclose(
        [value for _, value in found], sorted(np.delete(cosine, 2), reverse=True), atol=1e-6
    )
    with pytest.raises(InputError, match="item 5 is not in the ticket"):
        ticket.similar(5)


def test_no_list_is_shorter_than_one(make_ticket):
    for ask in (
        lambda ticket: ticket.recommend([0], k=0),
        lambda ticket: next(ticket.recommend_all(k=-1)),
        lambda ticket: ticket.recommend_for([0], k=0),
        lambda ticket: ticket.similar(0, k=0),
    ):
        with pytest.raises(InputError, match="ask for 1 at least"):
            ask(make_ticket())


def test_bytes_are_counted_with_and_without_what_was_seen(make_ticket):
    plain, propagated = make_ticket(valid=True).nbytes(), make_ticket(layers=1).nbytes()
    assert plain["to_answer"] == plain["table"]
    assert plain["to_answer_unseen"] == plain["table"] + plain["graph"] + plain["held_out"]
    assert propagated["to_answer"] == propagated["table"] + propagated["graph"]
    assert plain["bias"] == 0
    biased = make_ticket(valid=True, bias=True).nbytes()
    assert biased["bias"] == 2 * 9
    assert {name: biased[name] - plain[name] for name in plain if biased[name] != plain[name]} == {
        "bias": 18,
        "to_answer": 18,
        "to_answer_unseen": 18,
    }


def test_parts_that_do_not_fit_are_refused(make_ticket):
    ticket = make_ticket()
    with pytest.raises(InputError, match="16 rows for 7 users and 8 items"):
        Ticket(
            "mf",
            ticket.table,
            ItemLists.from_pairs(np.zeros((2, 0), np.int64), 7, 8),
            IdTable.of(range(7)),
            IdTable.of(range(8)),
        )
    with pytest.raises(InputError, match="6 ids of users"):
        Ticket("mf", ticket.table, ticket.train, IdTable.of(range(6)), IdTable.of(range(9)))
    for bias, message in (
        (np.zeros(9), "its bias is not one float16 for each of 9 items"),
        (np.full(9, np.nan, np.float16), "its bias is not finite"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(ticket, bias=bias)


@pytest.mark.parametrize("way", ["native", "numpy"])
@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_lists_equal_the_evaluators_index_for_index(taste_graph, way, layers, biased, monkeypatch):
    from pyg_lth.evaluation.evaluator import Evaluator
    from pyg_lth.interactions import InteractionSplit
    from pyg_lth.nn.backbones import LightGCN

    if way == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    split = InteractionSplit.from_data(taste_graph)
    weight = torch.randn(350, 16)
    weight[torch.rand(350, 16) < 0.8] = 0
    weight[:3] = 0  # Of whom pruning has left nothing.
    bias = torch.rand(150).half() if biased else None
    ticket = Ticket(
        "lightgcn" if layers else "mf",
        CompactTable.from_dense(weight.numpy()),
        ItemLists.from_pairs(split.train.numpy(), 200, 150),
        IdTable.of(range(200)),
        IdTable.of(range(150)),
        ItemLists.from_pairs(split.valid.numpy(), 200, 150),
        (1 / (layers + 1),) * (layers + 1) if layers else None,
        bias=bias.numpy() if biased else None,
    )
    model = LightGCN(350, 16, layers)
    model.embedding.weight.data = weight
    propagation = pyg_lth.Propagation(split.joint_edge_index(), 350) if layers else None
    final = model.get_embedding(propagation).detach() if layers else weight
    if biased:
        final = torch.cat([final, torch.cat([torch.ones(200), bias.float()])[:, None]], dim=1)
    np.testing.assert_allclose(ticket.embedding(), final, rtol=1e-5, atol=1e-6)
    evaluator = Evaluator(split, "test", 20)
    wanted = evaluator.rank(final).numpy()
    users = evaluator.users.numpy()
    assert (ticket.rank(users, 20)[0] == wanted).all()
    # Few at a time are multiplied with the items as they are stored.
    assert (ticket.rank(users[:3], 20)[0] == wanted[:3]).all()


@pytest.mark.parametrize("given", [{}, {"score": "cosine", "bias": True}])
def test_a_propagated_ticket_gives_the_same_answers_without_its_graph(make_ticket, given):
    ticket = make_ticket(layers=2, valid=True, **given)
    propagated = ticket.propagated()
    assert propagated.layer_weights is None
    assert propagated.recommend([3, 5, "nobody"], 4) == ticket.recommend([3, 5, "nobody"], 4)
    assert propagated.recommend_for([2, 7], 4) == ticket.recommend_for([2, 7], 4)
    assert propagated.propagated() is propagated
