import pytest
import torch

from pyg_lth import kernels
from pyg_lth.training import fused, losses

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="the kernels are not compiled")


def unit_rows(rows):
    length = rows.norm(dim=1, keepdim=True)
    return rows / length.where(length > 0, 1)


def sampled_softmax(user, positive, shared, temperature):
    items = torch.cat(
        [unit_rows(shared).expand(len(user), -1, -1), unit_rows(positive)[:, None]], 1
    )
    scores = torch.einsum("bd,bnd->bn", unit_rows(user), items) / temperature
    return -scores.log_softmax(dim=1)[:, -1].mean()


def ccl(user, positive, shared, margin, weight):
    own = (unit_rows(user) * unit_rows(positive)).sum(dim=1)
    others = (unit_rows(user) @ unit_rows(shared).t() - margin).clamp(min=0)
    return (1 - own + weight * others.mean(dim=1)).mean()


# Of each loss its two settings' values that make it differ most from case to case.
LOSSES = {
    "sampled softmax": (fused.sampled_softmax, sampled_softmax, (0.1,)),
    "sampled softmax, cold": (fused.sampled_softmax, sampled_softmax, (0.01,)),
    "sampled softmax, hot": (fused.sampled_softmax, sampled_softmax, (3.0,)),
    "ccl": (fused.ccl, ccl, (0.1, 150.0)),
    "ccl, all negatives": (fused.ccl, ccl, (-1.0, 2.0)),
    "ccl, hardly a negative": (fused.ccl, ccl, (0.9, 10.0)),
}
# Around a block of users, those whose scores are kept at once, and the lanes of a register.
SIZES = [(1, 1, 1), (5, 16, 3), (47, 33, 8), (48, 17, 20), (49, 15, 32), (300, 100, 7)]
SIZES += [(2064, 20, 6), (2065, 3, 17), (5000, 5, 4)]


def rows_of(size, shared, dim):
    user, positive, others = (torch.randn(n, dim) for n in (size, size, shared))
    user[0], positive[-1], others[0] = 0, 0, 0  # as pruning leaves some
    positive[: size // 3] = user[: size // 3]  # the best score there is
    others[-1] = -user[-1]
    return user, positive, others


def value_and_gradients(loss, rows, settings, factor=1.0):
    rows = [part.clone().requires_grad_() for part in rows]
    value = loss(*rows, *settings)
    return value.detach(), torch.autograd.grad(factor * value, rows)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_equal_those_of_autograd(name, sizes):
    quick, plain, settings = LOSSES[name]
    rows = rows_of(*sizes)
    value, gradients = value_and_gradients(quick, rows, settings, factor=0.3)
    expected, exact = value_and_gradients(plain, [r.double() for r in rows], settings, factor=0.3)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    for gradient, right in zip(gradients, exact, strict=True):
        # To the rounding of the scores, which a small temperature multiplies.
        bound = 1e-5 * max(float(right.abs().max()), 1e-3)
        torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=bound)


def test_what_is_looked_up_may_be_parts_of_one_table_and_come_twice():
    table = torch.randn(40, 6, requires_grad=True)
    nodes = torch.randint(40, (70,))

    def gradient(loss):
        rows = table[nodes]
        (found,) = torch.autograd.grad(loss(rows[:30], rows[30:60], rows[60:], 0.2), table)
        return found

    torch.testing.assert_close(gradient(fused.sampled_softmax), gradient(sampled_softmax))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_not_hidden(value):
    for place in range(3):
        rows = rows_of(20, 20, 4)
        rows[place][2, 1] = value
        assert not fused.sampled_softmax(*rows, 0.1).isfinite()


def test_scores_far_apart_keep_loss_and_gradient_finite():
    rows = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    value, gradients = value_and_gradients(fused.sampled_softmax, rows, (0.001,))
    assert value == pytest.approx(2000)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_they_apply_to_floats_on_a_cpu_only(monkeypatch):
    assert fused.applies(torch.zeros(2, 2))
    assert not fused.applies(torch.zeros(2, 2, dtype=torch.double))
    assert not fused.applies(torch.zeros(2, 2, device="meta"))
    monkeypatch.setattr(kernels, "usable", lambda device: False)
    assert not fused.applies(torch.zeros(2, 2))


@pytest.mark.parametrize("name", ["taught", *LOSSES])
def test_the_kernel_gives_the_same_bits_on_any_number_of_threads(name):
    found, before, rows = [], torch.get_num_threads(), rows_of(300, 70, 20)
    quick, settings = fused.sampled_softmax, (0.2, rows_of(300, 70, 5), 0.5)
    if name != "taught":
        quick, _, settings = LOSSES[name]
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            value, gradients = value_and_gradients(quick, rows, settings)
            found.append(torch.cat([value.view(1), *(part.flatten() for part in gradients)]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("length", [1e-25, 1e25])
def test_the_length_of_rows_does_not_matter(length):
    rows = [torch.randn(n, 10) for n in (60, 60, 20)]
    expected = value_and_gradients(fused.sampled_softmax, rows, (0.2,))
    value, gradients = value_and_gradients(
        fused.sampled_softmax, [part * length for part in rows], (0.2,)
    )
    found = value, tuple(gradient * length for gradient in gradients)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_what_a_teacher_says_is_learned_as_autograd_has_it(sizes, share):
    rows = rows_of(*sizes)
    teacher = tuple(part + torch.randn_like(part) for part in rows)
    found = value_and_gradients(fused.sampled_softmax, rows, (0.2, teacher, share))
    expected = value_and_gradients(losses.sampled_softmax, rows, (0.2, None, teacher, share))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
