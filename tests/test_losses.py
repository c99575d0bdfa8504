import math

import pytest
import torch
from torch_geometric.nn.models.lightgcn import BPRLoss

from pyg_lth import losses


def test_bpr_is_the_mean_negative_log_sigmoid_of_the_difference():
    positive, negative = [0.5, -1.0, 3.0, 0.0], [0.1, 2.0, 3.0, -4.0]
    expected = [
        -math.log(1 / (1 + math.exp(low - high)))
        for high, low in zip(positive, negative, strict=True)
    ]
    actual = losses.bpr(torch.tensor(positive), torch.tensor(negative))
    assert float(actual) == pytest.approx(sum(expected) / 4, rel=1e-6)


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


def test_l2_is_half_the_squared_norm_over_the_batch_and_counts_repeats():
    weight = torch.tensor([[1.0, 2.0], [3.0, 0.0], [-1.0, 1.0]], requires_grad=True)
    user, positive, negative = torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([2, 2])
    term = losses.l2(weight[torch.stack([user, positive, negative])], batch_size=2)
    assert term.item() == ((5 + 5) + (9 + 2) + (2 + 2)) / 2 / 2
    term.backward()
    times = torch.tensor([[2.0], [1.0], [3.0]])
    torch.testing.assert_close(weight.grad, weight.detach() * times / 2)
