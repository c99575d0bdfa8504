import itertools

import pytest
import torch
from torch import nn

from pyg_lth.config import PruneConfig
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.pep import START, SoftThreshold, ThresholdSearch
from pyg_lth.training import losses
from pyg_lth.training.problem import Problem


def search_on(graph, **settings):
    config = PruneConfig(
        **{
            **dict(model="mf", dim=4, batch_size=64, lr=0.05, reg=0.5, max_epochs=200),
            **settings,
        }
    )
    split = InteractionSplit.from_data(graph)
    problem = Problem.prepare(split, config, torch.device("cpu"))
    return ThresholdSearch(problem, problem.initialize())


@pytest.mark.parametrize(
    ("shares", "size"), [("table", (1, 1)), ("feature", (5, 1)), ("entry", (5, 3))]
)
def test_an_entry_is_drawn_towards_zero_by_its_threshold(shares, size):
    threshold = SoftThreshold(torch.Size((5, 3)), shares)
    assert threshold.s.shape == size
    assert (threshold.s == START).all()
    nn.init.normal_(threshold.s)
    weight = torch.randn(5, 3)
    expected = torch.zeros(5, 3)
    limit = torch.sigmoid(threshold.s.detach()).expand(5, 3)
    for row in range(5):
        for column in range(3):
            value, least = weight[row, column].item(), limit[row, column].item()
            if abs(value) > least:
                expected[row, column] = value - least if value > 0 else value + least
    torch.testing.assert_close(threshold(weight).detach(), expected)


def test_the_gradient_of_a_threshold_is_that_of_its_formula():
    threshold = SoftThreshold(torch.Size((4, 3)), "feature").double()
    with torch.no_grad():
        threshold.s.copy_(torch.tensor([[-1.0], [-2.0], [-3.0], [0.5]]))
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, s: _apply(threshold, w, s), (weight, threshold.s))


def _apply(threshold, weight, s):
    return torch.func.functional_call(threshold, {"s": s}, (weight,))


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
@pytest.mark.parametrize("shares", ["table", "feature", "entry"])
def test_thresholds_rise_and_entries_fall_below_them(small_graph, model, shares):
    search = search_on(small_graph, model=model, threshold=shares)
    survivors = []
    search.run(lambda record: survivors.append(int((search.margin() > 0).sum())))
    assert survivors[-1] < 0.5 * search.margin().numel()
    assert search.progress.best_epoch == 0  # No evaluation chose an epoch.
    # What it trains with is what lies above.
    weight = search.model.embedding.weight
    assert torch.equal(weight != 0, search.margin() > 0)


def test_a_search_ends_when_nothing_falls_any_more(small_graph, monkeypatch):
    monkeypatch.setattr("pyg_lth.lottery.pep.PATIENCE", 6)
    search = search_on(small_graph, max_epochs=500, reg=0.0)
    above = []
    search.run(lambda record: above.append(float((search.margin() > 0).double().mean())))
    assert 6 < search.progress.epoch < 500
    assert above[-1] <= 0.9  # The thresholds had begun to bite.
    assert min(above[-6:]) >= 0.99 * above[-7]


def test_a_search_waits_for_its_thresholds_to_bite(small_graph, monkeypatch):
    monkeypatch.setattr("pyg_lth.lottery.pep.PATIENCE", 3)
    search = search_on(small_graph, max_epochs=12, lr=1e-4)
    search.run()
    assert (search.margin() > 0).double().mean() > 0.9
    assert search.progress.epoch == 12


def thresholds_after(graph, steps, start, naive):
    """Thresholds after some steps of a search, or of loops with the decay of the reference."""
    search = search_on(graph, threshold="feature", lr=0.01)
    problem = search.problem
    table, s = search._table, search._threshold.s
    with torch.no_grad():
        table.mul_(40)
        s.fill_(start)
    batches = itertools.islice(problem.sampler.epoch(torch.Generator().manual_seed(0)), steps)
    if not naive:
        for batch in batches:
            search.step(batch)
        return s.detach()
    table, s = (value.detach().clone().requires_grad_() for value in (table, s))
    optimizer = torch.optim.Adam(
        [{"params": [table]}, {"params": [s], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.999)
    )
    for batch in batches:
        cut = table.sign() * (table.abs() - s.sigmoid()).clamp(min=0)
        rows = cut[problem.nodes(batch)]
        loss = problem.loss(rows, batch) + 0.5 * losses.l2(problem.sampler.layout.split(rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return s.detach()


def test_thresholds_rise_by_the_decay_of_the_reference(small_graph, monkeypatch):
    """Between loss and decay: both count where s starts, so another decay shows."""
    expected = thresholds_after(small_graph, 4, -0.5, naive=True)
    actual = thresholds_after(small_graph, 4, -0.5, naive=False)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    monkeypatch.setattr("pyg_lth.lottery.pep.DECAY", 0.2)
    other = thresholds_after(small_graph, 4, -0.5, naive=False)
    assert (other - expected).abs().max() > 1e-3


def test_a_search_is_continued_bit_for_bit(small_graph):
    whole = search_on(small_graph, max_epochs=6)
    whole.run()
    first = search_on(small_graph, max_epochs=6)

    def stop(record):
        if record.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop)
    kept = {name: value.clone() for name, value in first.tensors().items()}
    second = search_on(small_graph, max_epochs=6)
    second.restore(kept, first.progress)
    second.run()
    assert torch.equal(second.margin(), whole.margin())
    assert second.progress.epoch == 6
