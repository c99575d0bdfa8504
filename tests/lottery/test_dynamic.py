import math

import pytest
import torch

from pyg_lth import Mask
from pyg_lth.config import PruneConfig
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery import dynamic
from pyg_lth.lottery.dynamic import FIRST_SHARE, Regrowth
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning import selection
from pyg_lth.pruning.masks import budgets
from pyg_lth.training.problem import Problem

NUM_USERS, NUM_NODES, DIM = 40, 70, 8


def exchange(graph, monkeypatch, gradient, scope="joint", epoch=1, max_epochs=50):
    """One exchange on a table of random weights, with a gradient that is known."""
    config = PruneConfig(dim=DIM, scope=scope, max_epochs=max_epochs)
    problem = Problem.prepare(InteractionSplit.from_data(graph), config, torch.device("cpu"))
    monkeypatch.setattr(dynamic, "loss_gradient", lambda *args: gradient)
    kept = budgets(scope, NUM_USERS, (NUM_NODES, DIM), 0.3, 2)
    torch.manual_seed(1)
    scores = torch.rand(NUM_NODES, DIM)
    before = selection.prune(scores, Mask.ones(NUM_NODES, DIM), kept)
    weight = torch.randn(NUM_NODES, DIM) * before.table
    return weight, before, Regrowth(problem, 1, kept)({TABLE: weight}, before, epoch)


def by_loops(weight, mask, gradient, count):
    """Drop the smallest, then grow the steepest of all that are dead, in Python."""
    living = sorted(mask.flatten().nonzero().flatten().tolist(), key=lambda i: abs(weight[i]))
    alive = set(living[count:])
    dead = [i for i in range(len(weight)) if i not in alive]
    alive |= set(sorted(dead, key=lambda i: abs(gradient[i]))[len(dead) - count :])
    return alive


@pytest.mark.parametrize("epoch", [1, 20, 49])
def test_the_smallest_make_room_for_the_steepest(small_graph, monkeypatch, epoch):
    gradient = torch.randn(NUM_NODES, DIM)
    weight, before, after = exchange(small_graph, monkeypatch, gradient, epoch=epoch)
    share = FIRST_SHARE / 2 * (1 + math.cos(math.pi * epoch / 50))
    count = int(before.remaining * share)
    expected = by_loops(weight.flatten().tolist(), before.table, gradient.flatten().tolist(), count)
    assert set(after.table.flatten().nonzero().flatten().tolist()) == expected
    assert (count > 0) == (epoch < 49)


@pytest.mark.parametrize("scope", ["joint", "user", "item", "user_item", "row"])
def test_every_part_keeps_its_budget(small_graph, monkeypatch, scope):
    gradient = torch.randn(NUM_NODES, DIM)
    _, before, after = exchange(small_graph, monkeypatch, gradient, scope)
    assert after != before
    for rows in (slice(0, NUM_USERS), slice(NUM_USERS, None)):
        if scope != "joint":
            assert after.table[rows].sum() == before.table[rows].sum()
    assert after.remaining == before.remaining
    if scope == "row":
        assert torch.equal(after.table.sum(dim=1), before.table.sum(dim=1))


def test_the_last_epochs_leave_the_mask_alone(small_graph, monkeypatch):
    gradient = torch.randn(NUM_NODES, DIM)
    for epoch, max_epochs in ((50, 50), (100, 1000), (400, 1000)):
        _, before, after = exchange(
            small_graph, monkeypatch, gradient, epoch=epoch, max_epochs=max_epochs
        )
        assert after == before
