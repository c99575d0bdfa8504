import math

import pytest
import torch

from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE, build_backbone
from pyg_lth.training.problem import Problem

CPU = torch.device("cpu")


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_popularity_ranks_beside_cosines_as_a_loop_does(small_graph, quick_config, model):
    split = InteractionSplit.from_data(small_graph)
    config = quick_config(
        model=model, dim=4, loss="sampled-softmax", temperature=0.3, popularity=0.7
    )
    problem = Problem.prepare(split, config, CPU)
    weights = problem.initialize()
    weights[TABLE][split.num_users] = 0  # An item of which pruning has left nothing.
    network = build_backbone(config, weights, CPU)
    final = network.get_embedding(problem.propagation).detach()
    embedding = problem.embed(network)
    assert embedding.shape == (split.num_users + split.num_items, 5)
    scores = embedding[: split.num_users] @ embedding[split.num_users :].t()
    liked = split.train[1].tolist()
    for user in range(split.num_users):
        for item in range(split.num_items):
            one, other = final[user], final[split.num_users + item]
            length = float(one.norm() * other.norm())
            cosine = float(one @ other) / length if length else 0.0
            bias = 0.7 * 0.3 * math.log(max(1, liked.count(item)))
            assert float(scores[user, item]) == pytest.approx(cosine + bias, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "blind"),
    [
        ({"model": "mf", "loss": "sampled-softmax"}, True),
        ({"model": "mf"}, False),
        ({"model": "lightgcn", "loss": "sampled-softmax"}, False),
        ({"model": "lightgcn", "loss": "sampled-softmax", "layers": 0}, True),
    ],
)
def test_lengths_that_no_score_sees_are_not_shown(small_graph, quick_config, settings, blind):
    config = quick_config(**settings)
    problem = Problem.prepare(InteractionSplit.from_data(small_graph), config, CPU)
    table = problem.initialize()[TABLE] * torch.arange(1.0, 71).unsqueeze(1)
    table[3] = 0
    seen, weighed = problem.as_scored(table), problem.as_weighed(table)
    if not blind:
        assert seen is table and weighed is table
        return
    train, num_users = problem.split.train, problem.split.num_users
    counts = [train.size(1) / num_users] * num_users
    counts += [int((train[1] == item).sum()) for item in range(problem.split.num_items)]
    for row, heavy, expected, count in zip(seen, weighed, table, counts, strict=True):
        length = float(expected.norm()) or 1.0
        assert torch.allclose(row, expected / length, atol=1e-6)
        assert torch.allclose(heavy, count**0.5 * expected / length, atol=1e-5)
