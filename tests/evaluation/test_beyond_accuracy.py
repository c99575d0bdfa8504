import pytest
import torch

from pyg_lth.evaluation.beyond_accuracy import HEAD, BeyondAccuracy, gini
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit

K = 5


def naive(split, ranked):
    """The same by loops over users, lists and pairs of items."""
    degree = [int((split.train[1] == item).sum()) for item in range(split.num_items)]
    by_degree = sorted(range(split.num_items), key=lambda item: -degree[item])
    head = set(by_degree[: int(HEAD * split.num_items)])
    listed = [item for row in ranked.tolist() for item in row]
    counts = [listed.count(item) for item in range(split.num_items)]
    apart = sum(abs(a - b) for a in counts for b in counts)
    recalls = []
    for user, row in zip(split.test[0].unique().tolist(), ranked.tolist(), strict=True):
        wanted = {*split.test[1, split.test[0] == user].tolist()} - head
        if wanted:
            recalls.append(len(wanted & {*row}) / len(wanted))
    return {
        f"coverage@{K}": len({*listed}) / split.num_items,
        f"popularity@{K}": sum(degree[item] for item in listed) / len(listed),
        f"gini@{K}": apart / (2 * split.num_items * len(listed)),
        f"tail_recall@{K}": sum(recalls) / len(recalls),
    }


@pytest.fixture
def look(small_graph):
    split = InteractionSplit.from_data(small_graph)
    return split, BeyondAccuracy(split, Evaluator(split, "test", K), K)


def test_every_figure_is_that_of_a_naive_loop(look):
    split, beyond = look
    users = split.test[0].unique().numel()
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # Nothing of one ranking is left for the next.
        order = torch.rand(users, split.num_items, generator=generator).argsort(dim=1)
        assert beyond(order[:, :K]) == pytest.approx(naive(split, order[:, :K]))


def test_lists_with_an_empty_place_count_for_recall_only(look):
    split, beyond = look
    users = split.test[0].unique().numel()
    ranked = torch.arange(K).repeat(users, 1)
    whole = beyond(ranked)
    ranked[0, -1] = split.num_items
    assert beyond(ranked)[f"coverage@{K}"] == whole[f"coverage@{K}"]
    ranked[:, -1] = split.num_items
    assert list(beyond(ranked)) == [f"tail_recall@{K}"]


def test_gini_knows_its_ends():
    assert gini(torch.full((7,), 4)) == 0
    assert gini(torch.tensor([0] * 99 + [5])) == pytest.approx(0.99)
