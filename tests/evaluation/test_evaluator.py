import math
import subprocess
import sys

import pytest
import torch
from torch_geometric.metrics import (
    LinkPredMetricCollection,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)

from pyg_lth import InputError
from pyg_lth.evaluation import ranking
from pyg_lth.evaluation.evaluator import Evaluator, popularity_embedding
from pyg_lth.interactions import InteractionSplit


def random_split(seed, num_users=25, num_items=14):
    """Users of all kinds: without truth, with nearly everything seen, with more truth than k."""
    torch.manual_seed(seed)
    chance = torch.rand(num_users, 1)
    part = torch.where(torch.rand(num_users, num_items) < chance, 0, 1)
    part[part == 1] = torch.randint(1, 4, (int((part == 1).sum()),))
    part[::5] = torch.where(part[::5] >= 2, 1, part[::5])
    train, valid, test = ((part == which).nonzero().t().contiguous() for which in (0, 2, 3))
    return InteractionSplit(num_users, num_items, train, valid, test)


def items_of(index, user):
    return set(index[1][index[0] == user].tolist())


def naive_per_user(split, part, k, embedding, among=None):
    """Rank for one user after the other in Python; the metrics of those with ground truth."""
    truth = {"valid": split.valid, "test": split.test}[part]
    metrics = {}
    for user in range(split.num_users):
        wanted = items_of(truth, user)
        if among is not None:
            wanted &= among
        if not wanted:
            continue
        seen = items_of(split.train, user)
        if part == "test" and split.valid is not None:
            seen |= items_of(split.valid, user)
        scores = {
            item: float(embedding[user] @ embedding[split.num_users + item])
            for item in range(split.num_items)
            if item not in seen
        }
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)[:k]
        hits = [rank for rank, item in enumerate(ranked) if item in wanted]
        gain = sum(1 / math.log2(rank + 2) for rank in hits)
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(len(wanted), k)))
        metrics[user] = (len(hits) / k, len(hits) / len(wanted), gain / ideal)
    return metrics


def names_at(k):
    return (f"precision@{k}", f"recall@{k}", f"ndcg@{k}")


def naive_metrics(split, part, k, embedding):
    """The mean over the users."""
    columns = zip(*naive_per_user(split, part, k, embedding).values(), strict=True)
    return {name: sum(v) / len(v) for name, v in zip(names_at(k), columns, strict=True)}


def random_embedding(split, dim=5):
    return torch.randn(split.num_users + split.num_items, dim)


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("k", [1, 5, 14, 20])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_a_naive_loop_over_the_users(part, k, seed):
    split = random_split(seed)
    embedding = random_embedding(split)
    expected = naive_metrics(split, part, k, embedding)
    assert Evaluator(split, part, k)(embedding) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("among", [None, {1, 2, 5, 9}], ids=["all", "some"])
def test_metrics_of_each_user_equal_a_naive_loop(part, k, among):
    split = random_split(5)
    embedding = random_embedding(split)
    evaluate = Evaluator(split, part, k)
    ranked = evaluate.rank(embedding)
    items = None
    if among is not None:
        items = torch.zeros(split.num_items, dtype=torch.bool)
        items[list(among)] = True
    values = evaluate.per_user(ranked, items)
    expected = naive_per_user(split, part, k, embedding, among)
    assert evaluate.users.tolist() == list(naive_per_user(split, part, k, embedding))
    assert list(values) == list(names_at(k))
    for name, column in zip(values, zip(*expected.values(), strict=True), strict=True):
        assert values[name].dtype == torch.float
        assert values[name].tolist() == pytest.approx(column, abs=1e-6)


@pytest.mark.parametrize("k", [3, 20])
def test_metrics_are_those_of_pyg_and_the_means_of_the_users(k):
    split = random_split(6)
    embedding = random_embedding(split)
    evaluate = Evaluator(split, "test", k)
    ranked = evaluate.rank(embedding)
    row = torch.searchsorted(evaluate.users, split.test[0])
    peers = LinkPredMetricCollection([LinkPredPrecision(k), LinkPredRecall(k), LinkPredNDCG(k)])
    peers.update(ranked, torch.stack([row, split.test[1]]))
    metrics = evaluate(embedding)
    assert list(metrics.values()) == [float(value) for value in peers.compute().values()]
    assert metrics == {name: float(v.mean()) for name, v in evaluate.per_user(ranked).items()}


def test_items_that_are_nobodys_ground_truth_leave_no_user():
    split = random_split(7)
    evaluate = Evaluator(split, "test", 5)
    ranked = evaluate.rank(random_embedding(split))
    among = torch.ones(split.num_items, dtype=torch.bool)
    among[split.test[1]] = False
    values = evaluate.per_user(ranked, among)
    assert [value.tolist() for value in values.values()] == [[], [], []]


def test_ranked_lists_are_no_longer_than_there_are_items():
    split = random_split(8)
    evaluate = Evaluator(split, "test", 20)
    ranked = evaluate.rank(random_embedding(split))
    assert ranked.shape == (evaluate.users.numel(), split.num_items)
    assert ranked.dtype == torch.long
    for user, line in zip(evaluate.users.tolist(), ranked.tolist(), strict=True):
        seen = items_of(split.train, user) | items_of(split.valid, user)
        unseen = set(range(split.num_items)) - seen
        assert set(line[: len(unseen)]) == unseen
        assert set(line[len(unseen) :]) <= {split.num_items}


def test_without_validation_the_test_ranking_hides_train_alone():
    split = random_split(0)
    split = InteractionSplit(split.num_users, split.num_items, split.train, None, split.test)
    embedding = random_embedding(split)
    expected = naive_metrics(split, "test", 5, embedding)
    assert Evaluator(split, "test", 5)(embedding) == pytest.approx(expected, abs=1e-6)


def one_hot_scores(scores):
    """Embeddings of as many dimensions as users, which give exactly these scores."""
    scores = torch.tensor(scores, dtype=torch.float)
    return torch.cat([torch.eye(scores.size(0)), scores.t()])


def test_a_case_worked_by_hand(make_split):
    split = make_split(
        3, 5, train=[(0, 0), (1, 1), (2, 2)], valid=[(0, 1)], test=[(0, 2), (0, 4), (1, 0)]
    )
    # User 0: items 0 and 1 are seen, so 3 then 2; item 2 is a hit at the second place.
    # User 1: item 1 is seen, so 4 then 3; no hit. User 2 has no ground truth.
    embedding = one_hot_scores([[9, 8, 6, 7, 1], [1, 9, 2, 7, 8], [0, 0, 0, 0, 0]])
    ndcg = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert Evaluator(split, "test", 2)(embedding) == pytest.approx(
        {"precision@2": (1 / 2 + 0) / 2, "recall@2": (1 / 2 + 0) / 2, "ndcg@2": (ndcg + 0) / 2}
    )
    # For validation item 1 is no longer seen, and user 0 alone has ground truth.
    assert Evaluator(split, "valid", 2)(embedding) == pytest.approx(
        {"precision@2": 1 / 2, "recall@2": 1.0, "ndcg@2": 1.0}
    )


def test_seen_items_are_never_recommended_however_high_they_score(monkeypatch):
    split = random_split(1)
    score = torch.zeros(split.num_users, split.num_items)
    score[split.test[0], split.test[1]] = 1.0
    for seen in (split.train, split.valid):
        score[seen[0], seen[1]] = 2.0
    embedding = one_hot_scores(score.tolist())
    k = split.num_items
    assert Evaluator(split, "test", k)(embedding)[f"ndcg@{k}"] == pytest.approx(1.0)


def test_an_evaluator_can_be_used_again():
    split = random_split(3)
    first, second = random_embedding(split), random_embedding(split)
    evaluate = Evaluator(split, "valid", 5)
    before = evaluate(first)
    evaluate(second)
    assert evaluate(first) == before


def test_evaluation_leaves_no_gradient_and_changes_no_embedding():
    split = random_split(3)
    embedding = random_embedding(split).requires_grad_()
    before = embedding.detach().clone()
    Evaluator(split, "valid", 5)(embedding)
    assert embedding.grad is None
    assert torch.equal(embedding, before)


@pytest.mark.parametrize("valid", [None, []], ids=["absent", "empty"])
def test_a_part_without_interactions_is_refused(make_split, valid):
    split = make_split(2, 3, train=[(0, 0)], test=[(0, 1)], valid=valid)
    with pytest.raises(InputError, match="no valid interactions"):
        Evaluator(split, "valid", 2)


def test_popularity_ranks_by_train_interactions_the_same_for_every_user(make_split):
    train = [(0, 2), (1, 2), (2, 2), (0, 0), (1, 0), (2, 3)]
    split = make_split(3, 4, train=train, test=[(2, 0), (0, 3), (1, 1)])
    embedding = popularity_embedding(split)
    scores = embedding[:3] @ embedding[3:].t()
    assert scores.tolist() == [[2, 0, 3, 1]] * 3
    # The most popular item that each has not seen: 3 for 0, 3 for 1, 0 for 2.
    assert Evaluator(split, "test", 1)(embedding)["recall@1"] == pytest.approx(2 / 3)


YELP2018_SIZED = """
import pathlib
import psutil
import sys
import torch
from pyg_lth import kernels
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit

if sys.argv[1] == "plain":
    kernels.usable = lambda device: False
num_users, num_items, dim = 31_668, 38_048, 64
key = torch.randint(num_users * num_items, (1_270_000,)).unique()
pairs = torch.stack([key // num_items, key % num_items])
is_test = torch.arange(key.numel()) % 95 == 0
split = InteractionSplit(num_users, num_items, pairs[:, ~is_test], None, pairs[:, is_test])
embedding = torch.randn(num_users + num_items, dim)
before = psutil.Process().memory_info().rss
Evaluator(split, "test", 20)(embedding)
# Of this program alone: what getrusage tells began with the size of the process that forked it.
status = pathlib.Path("/proc/self/status").read_text()
growth = int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before
print(split.test[0].unique().numel(), growth)
"""


@pytest.mark.parametrize("way", ["native", "plain"])
def test_evaluation_of_yelp2018_at_dimension_64_needs_a_part_of_all_scores(way):
    done = subprocess.run(
        [sys.executable, "-c", YELP2018_SIZED, way], capture_output=True, text=True, check=True
    )
    users, growth = map(int, done.stdout.split())
    limit = 8 * 4 * ranking.SCORES_AT_ONCE
    assert limit < users * 38_048 * 4 / 5  # all scores at once would not fit
    assert growth < limit
