import math

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn.models.lightgcn import BPRLoss

from pyg_lth import TrainConfig, kernels
from pyg_lth.training import losses
from pyg_lth.training.losses import LOSSES
from pyg_lth.training.sampling import Layout, Parts


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
    batch = torch.tensor([0, 0, 1, 2, 2, 2])
    term = losses.l2(Layout(2).split(weight[batch]))
    assert term.item() == ((5 + 5) + (9 + 2) + (2 + 2)) / 2 / 2
    term.backward()
    times = torch.tensor([[2.0], [1.0], [3.0]])
    torch.testing.assert_close(weight.grad, weight.detach() * times / 2)


@pytest.mark.parametrize(("negatives", "shared"), [(0, 0), (1, 0), (2, 0), (5, 0), (0, 7), (2, 1)])
def test_l2_averages_the_negatives_be_they_a_positive_s_own_or_shared(negatives, shared):
    layout, dim = Layout(3, negatives, shared), 4
    ego = torch.randn(layout.size, dim)
    norms = ego.double().square().sum(dim=1).tolist()
    pairs, own, common = norms[:6], norms[6 : 6 + 3 * negatives], norms[6 + 3 * negatives :]
    expected = sum(pairs) / 3
    expected += sum(own) / 3 / negatives if negatives else 0
    expected += sum(common) / shared if shared else 0
    assert losses.l2(layout.split(ego)).item() == pytest.approx(expected / 2, rel=1e-6)


def cosine(first, second):
    return F.cosine_similarity(first, second, dim=0).item()


def test_sampled_softmax_is_what_loops_give():
    user, positive = torch.randn(2, 4, 3, dtype=torch.float64)
    shared = torch.randn(5, 3, dtype=torch.float64)
    total = 0.0
    for mine, own in zip(user, positive, strict=True):
        scores = [math.exp(cosine(mine, item) / 0.3) for item in (own, *shared)]
        total -= math.log(scores[0] / sum(scores))
    actual = losses.sampled_softmax(user, positive, shared, 0.3)
    assert actual.item() == pytest.approx(total / 4, rel=1e-12)


def test_ccl_is_what_loops_give():
    user, positive = torch.randn(2, 4, 3, dtype=torch.float64)
    shared = torch.randn(5, 3, dtype=torch.float64)
    total = 0.0
    for mine, own in zip(user, positive, strict=True):
        above = [max(0.0, cosine(mine, item) - 0.2) for item in shared]
        total += 1 - cosine(mine, own) + 30 * sum(above) / 5
    actual = losses.ccl(user, positive, shared, 0.2, 30)
    assert actual.item() == pytest.approx(total / 4, rel=1e-12)


@pytest.mark.parametrize("loss", [losses.sampled_softmax, losses.ccl])
def test_gradients_of_losses_on_shared_negatives_are_those_of_finite_differences(loss):
    rows = [torch.randn(size, 3, dtype=torch.float64, requires_grad=True) for size in (4, 4, 5)]
    settings = (0.2, 30.0) if loss is losses.ccl else (0.5,)
    assert torch.autograd.gradcheck(lambda *parts: loss(*parts, *settings), rows)


def test_sampled_softmax_stays_finite_at_a_low_temperature():
    user = torch.tensor([[1.0, 0.0]])
    assert losses.sampled_softmax(user, -user, user, 1e-4).item() == pytest.approx(2e4)


def test_the_correction_takes_the_logarithm_of_its_popularity_from_each_score():
    user, item = torch.randn(2, 4, 3, dtype=torch.float64)
    index, degree = torch.tensor([2, 0, 1, 2]), torch.tensor([5, 1, 8])
    total = 0.0
    for place, mine in enumerate(user):
        scores = [math.exp(cosine(mine, row) / 0.3) for row in item]
        weighted = [score / int(degree[i]) for score, i in zip(scores, index, strict=True)]
        others = [j for j in range(4) if index[j] != index[place]]
        rest = sum(weighted[j] for j in others)
        total -= math.log(weighted[place] / (weighted[place] + rest))
    actual = losses.softmax(user, item, index, 0.3, degree)
    assert actual.item() == pytest.approx(total / 4, rel=1e-12)


def parts(negatives=0, shared=0):
    layout = Layout(4, negatives, shared)
    batch = torch.randint(9, (layout.size,))
    return layout.split(torch.randn(layout.size, 3)), layout.split(batch)


DEGREE = torch.arange(1, 10)


def of_batch(name, out, batch, **settings):
    config = TrainConfig(loss=name, temperature=0.3, **settings)
    return LOSSES[name].of_batch(out, batch, config, DEGREE)


def test_bpr_of_a_batch_scores_each_negative_by_its_user():
    out, batch = parts(negatives=3)
    expected = sum(
        losses.bpr((out.user * out.positive).sum(dim=1), (out.user * negative).sum(dim=1)) / 3
        for negative in out.negative
    )
    torch.testing.assert_close(of_batch("bpr", out, batch), expected)


def test_losses_of_a_batch_take_the_settings_and_what_they_need_of_it():
    out, batch = parts(shared=5)
    # In double precision no loss takes the kernels, which round otherwise.
    out = Parts(*(rows.double() for rows in out))
    pairs = out.user, out.positive
    expected = {
        "softmax": losses.softmax(*pairs, batch.positive, 0.3),
        "corrected-softmax": losses.softmax(*pairs, batch.positive, 0.3, DEGREE),
        "sampled-softmax": losses.sampled_softmax(*pairs, out.shared, 0.3),
    }
    for name, value in expected.items():
        assert torch.equal(of_batch(name, out, batch), value)
    expected_ccl = losses.ccl(*pairs, out.shared, 0.1, 7)
    assert torch.equal(of_batch("ccl", out, batch, margin=0.1, negative_weight=7), expected_ccl)


@pytest.mark.skipif(kernels.library() is None, reason="the kernels are not compiled")
@pytest.mark.parametrize("name", ["sampled-softmax", "ccl"])
def test_shared_negatives_take_the_quick_way_on_a_cpu(name):
    out, batch = parts(shared=5)
    loss = of_batch(name, out._replace(user=out.user.requires_grad_()), batch)
    assert type(loss.grad_fn).__name__ == "_SharedNegativesBackward"


@pytest.mark.parametrize(
    ("name", "own", "shared"),
    [
        ("bpr", 4, 0),
        ("softmax", 0, 0),
        ("corrected-softmax", 0, 0),
        ("sampled-softmax", 0, 4),
        ("ccl", 0, 4),
    ],
)
def test_only_a_loss_that_needs_them_has_negatives_drawn(name, own, shared):
    given = {"negatives": 4} if own or shared else {}
    config = TrainConfig(loss=name, batch_size=16, **given)
    assert LOSSES[name].layout(config) == Layout(16, own, shared)


def test_a_row_that_can_only_change_its_length_has_no_gradient():
    rows = torch.randn(50, 4)
    rows[:, 1:] = 0
    rows.requires_grad_()
    torch.autograd.backward((losses.unit_rows(rows) * torch.randn(50, 4)).sum())
    assert not rows.grad[:, 0].any()


def test_the_gradient_of_unit_rows_is_that_of_finite_differences():
    rows = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.unit_rows, rows)


def test_a_teacher_s_distribution_is_learned_beside_the_item():
    scores, taught = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = 0.0
    for own, theirs in zip(scores.tolist(), taught.tolist(), strict=True):
        total = math.log(sum(map(math.exp, own)))
        for place, score in enumerate(own):
            probability = math.exp(theirs[place]) / sum(map(math.exp, theirs))
            expected -= (0.7 * (place == 0) + 0.3 * probability) * (score - total) / 3
    assert losses.distilled(scores, taught, 0.3).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if LOSSES[name].distills])
def test_a_teacher_without_a_share_changes_no_loss(name):
    drawn = {"shared": 5} if LOSSES[name].draws == "shared" else {"negatives": 2}
    out, batch = parts(**drawn)
    taught, _ = parts(**drawn)
    plain = of_batch(name, out, batch)
    read = LOSSES[name].of_batch
    config = TrainConfig(loss=name, temperature=0.3)
    torch.testing.assert_close(read(out, batch, config, DEGREE, taught=taught, share=0.0), plain)
    # A model that is its own teacher is where it shall be: nothing pulls it elsewhere.
    leaf = Parts(*(rows.clone().requires_grad_(rows.numel() > 0) for rows in out))
    torch.autograd.backward(read(leaf, batch, config, DEGREE, taught=out, share=1.0))
    for rows in leaf:
        if rows.grad is not None:
            torch.testing.assert_close(rows.grad, torch.zeros_like(rows), atol=1e-6, rtol=0)
