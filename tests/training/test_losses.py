import math

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn.models.lightgcn import BPRLoss

from pyg_lth import TrainConfig
from pyg_lth.registry import LOSSES
from pyg_lth.training import losses


def test_bpr_is_the_mean_negative_log_sigmoid_of_the_difference():
    positive, negative = [0.5, -1.0, 3.0, 0.0], [0.1, 2.0, 3.0, -4.0]
    expected = [
        -math.log(1 / (1 + math.exp(low - high)))
        for high, low in zip(positive, negative, strict=True)
    ]
    actual = losses.bpr(torch.tensor(positive), torch.tensor(negative))
    assert float(actual) == pytest.approx(sum(expected) / 4, rel=1e-6)


def test_bpr_averages_over_the_batch_and_the_negatives_of_each_positive():
    positive, negative = torch.randn(5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    total = sum(
        math.log1p(math.exp(float(negative[row, place] - positive[place])))
        for row in range(3)
        for place in range(5)
    )
    assert losses.bpr(positive, negative).item() == pytest.approx(total / 15, rel=1e-12)


def test_bpr_of_one_negative_is_the_same_bits_in_either_shape():
    positive, negative = torch.randn(2, 2048)
    assert torch.equal(losses.bpr(positive, negative), losses.bpr(positive, negative[None]))


def test_bpr_gradient_is_that_of_the_formula():
    positive = torch.randn(6, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(6, dtype=torch.float64, requires_grad=True)
    losses.bpr(positive, negative).backward()
    slope = torch.sigmoid(negative - positive).detach() / 6
    torch.testing.assert_close(positive.grad, -slope)
    torch.testing.assert_close(negative.grad, slope)


def test_bpr_stays_finite_for_scores_far_apart():
    far = torch.tensor([1000.0, -1000.0])
    assert losses.bpr(far, -far).item() == pytest.approx(1000.0)


def test_bpr_is_pyg_s_without_regularisation():
    positive, negative = torch.randn(2, 8)
    torch.testing.assert_close(
        losses.bpr(positive, negative), BPRLoss(lambda_reg=0)(positive, negative)
    )


def softmax_by_loops(user, item, item_index, temperature):
    def cosine(first, second):
        product = sum(a * b for a, b in zip(first, second, strict=True))
        return product / math.hypot(*first) / math.hypot(*second)

    total = 0.0
    for place, mine in enumerate(user):
        others = [j for j, index in enumerate(item_index) if index != item_index[place]]
        own = math.exp(cosine(mine, item[place]) / temperature)
        sum_others = sum(math.exp(cosine(mine, item[j]) / temperature) for j in others)
        total -= math.log(own / (own + sum_others))
    return total / len(user)


# Items without a repetition, with some, and of one kind only.
ITEMS = [[4, 0, 2, 7, 1, 3], [4, 0, 4, 4, 0, 3], [5, 5, 5, 5, 5, 5]]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("item_index", ITEMS)
def test_softmax_is_what_loops_over_the_batch_give(item_index, temperature):
    user, item = torch.randn(2, 6, 4, dtype=torch.float64)
    expected = softmax_by_loops(user.tolist(), item.tolist(), item_index, temperature)
    actual = losses.softmax(user, item, torch.tensor(item_index), temperature)
    assert actual.item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("item_index", ITEMS)
def test_softmax_gradient_is_that_of_finite_differences(item_index):
    user, item = torch.randn(2, 6, 4, dtype=torch.float64).requires_grad_()
    index = torch.tensor(item_index)
    assert torch.autograd.gradcheck(lambda *sides: losses.softmax(*sides, index, 0.5), (user, item))


def test_softmax_is_blind_to_the_lengths_of_the_embeddings():
    user, item = torch.randn(2, 6, 4)
    index, scale = torch.arange(6), torch.rand(6, 1) + 0.5
    expected = losses.softmax(user, item, index, 0.1)
    torch.testing.assert_close(losses.softmax(user * scale, item / scale, index, 0.1), expected)


def test_an_accidental_hit_is_neither_lowered_nor_counted():
    """Twice the same item: only what is elsewhere in the batch pushes its users away."""
    user, item = torch.randn(3, 4), torch.randn(2, 4)[[0, 0, 1]]
    index = torch.tensor([5, 5, 6])
    pairs = [
        losses.softmax(user[[first, other]], item[[first, other]], index[[first, other]], 0.2) * 2
        for first, other in [(0, 2), (1, 2)]
    ]
    # The user of the other item has it against both places of the item that comes twice.
    logits = F.cosine_similarity(user[2], item) / 0.2
    alone = [logits[[first, 2]].logsumexp(0) - logits[2] for first in (0, 1)]
    together = losses.softmax(user, item, index, 0.2) * 3
    expected = sum(pairs) - sum(alone) + logits.logsumexp(0) - logits[2]
    torch.testing.assert_close(together, expected)


def test_softmax_stays_finite_at_a_low_temperature():
    user = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = losses.softmax(user, -user, torch.arange(2), 1e-4)
    assert loss.item() == pytest.approx(1e4)


def test_a_row_of_zeros_has_cosine_zero_and_a_gradient_in_bounds():
    user, item = torch.randn(2, 6, 4)
    user[[1, 3]], item[[0, 3]] = 0, 0
    user.requires_grad_(), item.requires_grad_()
    loss = losses.softmax(user, item, torch.tensor([0, 1, 2, 3, 0, 5]), 0.1)
    loss.backward()
    assert loss.isfinite()
    for side in (user, item):
        # Cosines change by at most one with the row, over the temperature, of all places together.
        assert side.grad.norm(dim=1).max() < 2 / 0.1
    alone = losses.softmax(torch.zeros(3, 4), item[1:4].detach(), torch.arange(3), 0.1)
    assert alone.item() == pytest.approx(math.log(3))


def test_l2_is_half_the_squared_norm_over_the_batch_and_counts_repeats():
    weight = torch.tensor([[1.0, 2.0], [3.0, 0.0], [-1.0, 1.0]], requires_grad=True)
    user, positive, negative = torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([2, 2])
    term = losses.l2(weight[torch.stack([user, positive, negative])], batch_size=2)
    assert term.item() == ((5 + 5) + (9 + 2) + (2 + 2)) / 2 / 2
    term.backward()
    times = torch.tensor([[2.0], [1.0], [3.0]])
    torch.testing.assert_close(weight.grad, weight.detach() * times / 2)


@pytest.mark.parametrize("negatives", [0, 1, 2, 5])
def test_l2_averages_the_negatives_of_a_positive(negatives):
    batch_size, dim = 3, 4
    ego = torch.randn(2 + negatives, batch_size, dim)
    total = sum(
        float(ego[row, place].double().square().sum()) / (1 if row < 2 else negatives)
        for row in range(2 + negatives)
        for place in range(batch_size)
    )
    term = losses.l2(ego.view(-1, dim), batch_size, negatives)
    assert term.item() == pytest.approx(total / 2 / batch_size, rel=1e-6)


def settings_of(name):
    return TrainConfig(loss=name, temperature=0.3)


def test_bpr_of_a_batch_scores_each_negative_by_its_user():
    out, batch = torch.randn(5, 4, 3), torch.randint(9, (5, 4))
    user, positive, *negatives = out
    expected = sum(
        losses.bpr((user * positive).sum(dim=1), (user * negative).sum(dim=1)) / 3
        for negative in negatives
    )
    actual = LOSSES["bpr"].of_batch(out, batch, settings_of("bpr"))
    torch.testing.assert_close(actual, expected)


def test_softmax_of_a_batch_takes_the_settings_and_the_items():
    out, batch = torch.randn(2, 4, 3), torch.tensor([[0, 1, 2, 3], [7, 8, 7, 9]])
    actual = LOSSES["softmax"].of_batch(out, batch, settings_of("softmax"))
    assert torch.equal(actual, losses.softmax(out[0], out[1], batch[1], 0.3))


def test_only_a_loss_that_needs_them_has_negatives_drawn():
    assert LOSSES["bpr"].negatives(TrainConfig(negatives=4)) == 4
    assert LOSSES["softmax"].negatives(TrainConfig(loss="softmax")) == 0
