import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pyg_lth import MF, LightGCN, Mask, Propagation, apply_mask, kernels
from pyg_lth.training import losses, optimizers
from pyg_lth.training.optimizers import (
    DenseUpdate,
    RowUpdate,
    TritonUpdate,
    build_update,
    caught_up,
)
from pyg_lth.training.sampling import Layout

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="the kernels are not compiled")

NUM_NODES = 40


def dense_and_rows(dim, density=0.7, lr=0.01):
    """The same masked table under both updates."""
    initial = torch.randn(NUM_NODES, dim) * 0.1
    mask = Mask(torch.rand(initial.shape) < density)
    pair = []
    for update in (
        lambda model: DenseUpdate(model, {"weight": apply_mask(model, mask)}, None, lr),
        lambda model: RowUpdate(model, mask, lr),
    ):
        model = MF(NUM_NODES, dim)
        with torch.no_grad():
            model.embedding.weight.copy_(initial)
        pair.append(update(model))
    return mask, *pair


def take_step(update, nodes, scale=1.0):
    out, ego = update.lookup(nodes)
    user, positive, negative = out.view(3, -1, out.size(1))
    loss = losses.bpr((user * positive).sum(dim=1), (user * negative).sum(dim=1))
    loss = scale * (loss + 0.1 * losses.l2(Layout(user.size(0)).split(ego)))
    update.apply(loss)
    return loss.item()


def draw(num_steps, seed=0, batch=4):
    """Batches that leave most rows out; the last rows are never looked up."""
    source = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        yield torch.randint(NUM_NODES - 3, (3 * batch,), generator=source)


def assert_equal(first, second, rtol=1e-6):
    first, second = caught_up(first.tensors()), caught_up(second.tensors())
    assert first.keys() == second.keys()
    for name in first:
        # The same operations in the same order; a compiler may still fuse two of them elsewhere.
        torch.testing.assert_close(first[name], second[name], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("steps_behind", [1, 2, 7, 1024])
@pytest.mark.parametrize("dim", [1, 5, 16, 20, 32, 50])
def test_adam_on_rows_equals_adam_on_the_table(dim, steps_behind, monkeypatch):
    monkeypatch.setattr(optimizers, "STEPS_BEHIND", steps_behind)
    mask, dense, rows = dense_and_rows(dim)
    for step, nodes in enumerate(draw(60)):
        # Gradients from large to so small that the epsilon of Adam decides.
        scale = 10.0 ** -(step % 9)
        assert take_step(rows, nodes, scale) == pytest.approx(take_step(dense, nodes, scale))
    assert_equal(rows, dense)
    weight = rows.tensors()["weight"]
    assert weight[~mask.table].abs().max() == 0


def whole_table(dense, rows):
    """How far two updates are apart in all, as a share of the weights."""
    first, second = dense.tensors()["weight"], caught_up(rows.tensors())["weight"]
    return float((first - second).norm() / first.norm())


@pytest.mark.parametrize("lr", [0.01, 0.0001])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e-8, 1e-10])
def test_steps_made_up_for_at_once_equal_those_made_up_for_one_by_one(scale, lr, monkeypatch):
    monkeypatch.setattr(optimizers, "EXACT_STEPS", 64)
    monkeypatch.setattr(optimizers, "LARGE_TABLE", 0)
    monkeypatch.setattr(optimizers, "STEPS_BEHIND", 100)
    mask, dense, rows = dense_and_rows(20, lr=lr)
    for nodes in draw(350):
        for update in (dense, rows):
            take_step(update, nodes, scale)
    assert whole_table(dense, rows) < 2e-6
    assert rows.tensors()["weight"][~mask.table].abs().max() == 0


def test_a_learning_rate_that_falls_is_made_up_for_as_it_fell(monkeypatch):
    monkeypatch.setattr(optimizers, "EXACT_STEPS", 64)
    monkeypatch.setattr(optimizers, "LARGE_TABLE", 0)
    _, dense, rows = dense_and_rows(16)
    for step, nodes in enumerate(draw(300)):
        for update in (dense, rows):
            update.set_rate(0.01 * 0.7 ** (step // 10))
            take_step(update, nodes)
    assert whole_table(dense, rows) < 2e-6


@pytest.mark.parametrize(("dim", "negatives"), [(1, 1), (16, 1), (20, 3), (32, 1), (50, 2)])
@pytest.mark.parametrize("reg", [0, 0.1])
def test_bpr_in_one_kernel_equals_the_plain_step(dim, negatives, reg, monkeypatch):
    monkeypatch.setattr(optimizers, "EXACT_STEPS", 64)
    monkeypatch.setattr(optimizers, "LARGE_TABLE", 0)
    mask, plain, fused = dense_and_rows(dim, lr=0.001)
    source = torch.Generator().manual_seed(0)
    for _ in range(120):
        # Users, items and negatives of few nodes, so that each comes often; some rows never do.
        nodes = torch.randint(NUM_NODES - 3, (2 + negatives, 6), generator=source)
        out, ego = plain.lookup(nodes.flatten())
        user, positive, negative = out.view(*nodes.shape, dim).split([1, 1, negatives])
        loss = losses.bpr((user * positive).sum(dim=2), (user * negative).sum(dim=2))
        squares = ego.view(*nodes.shape, dim).square().sum(dim=(1, 2))
        loss = loss + reg * (squares[0] + squares[1] + squares[2:].mean()) / 12
        plain.apply(loss)
        assert fused.bpr_step(nodes, reg).item() == pytest.approx(loss.item(), rel=1e-5)
    # A gradient that is nothing but rounding becomes a step of Adam, and some here are.
    assert whole_table(plain, fused) < 1e-4
    assert fused.tensors()["weight"][~mask.table].abs().max() == 0
    fused.catch_up()
    assert fused.tensors()["optimizer.weight.step"] == 120


def test_scores_far_from_zero_keep_the_loss_of_bpr_finite():
    for sign in (1, -1):
        model = MF(3, 1)
        with torch.no_grad():
            model.embedding.weight.copy_(torch.tensor([[100.0], [10.0 * sign], [-10.0 * sign]]))
        update = RowUpdate(model, Mask.ones(3, 1), 0.1)
        loss = update.bpr_step(torch.tensor([[0], [1], [2]]), 0.0).item()
        assert loss == (0 if sign > 0 else 2000)
        assert update.tensors()["weight"].isfinite().all()


def test_bpr_in_one_kernel_is_the_same_bits_on_any_number_of_threads():
    source = torch.Generator().manual_seed(0)
    batches = [torch.randint(4000, (3, 1000), generator=source) for _ in range(20)]
    found, before = [], torch.get_num_threads()
    initial = torch.randn(4000, 24)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            model = MF(*initial.shape)
            with torch.no_grad():
                model.embedding.weight.copy_(initial)
            update = RowUpdate(model, Mask.ones(*initial.shape), 0.01)
            lost = [update.bpr_step(nodes, 0.1).item() for nodes in batches]
            update.catch_up()
            found.append((lost, update.tensors()["weight"].clone()))
    finally:
        torch.set_num_threads(before)
    for lost, weight in found[1:]:
        assert lost == found[0][0]
        assert torch.equal(weight, found[0][1])


def test_looking_on_at_any_time_changes_nothing():
    _, untouched, looked_at = dense_and_rows(16)
    for step, nodes in enumerate(draw(30)):
        take_step(untouched, nodes)
        take_step(looked_at, nodes)
        if step % 3 == 0:
            looked_at.catch_up()
            looked_at.catch_up()
    assert_equal(looked_at, untouched)


@pytest.mark.parametrize("large", [1, 10**9])
@pytest.mark.parametrize("kinds", list(itertools.product((0, 1), repeat=2)))
def test_either_update_continues_from_the_state_of_either(kinds, large, monkeypatch):
    monkeypatch.setattr(optimizers, "LARGE_TABLE", large)
    _, *first = dense_and_rows(8)
    for nodes in draw(12):
        for update in first:
            take_step(update, nodes)
    torch.manual_seed(0)
    _, *second = dense_and_rows(8)
    kept = {name: value.clone() for name, value in first[kinds[0]].tensors().items()}
    second[kinds[1]].restore(kept)
    for nodes in draw(12, seed=1):
        take_step(second[kinds[1]], nodes)
        take_step(first[0], nodes)
    # The steps that torch makes up for round otherwise.
    assert_equal(second[kinds[1]], first[0], rtol=1e-6 if large > 1 else 1e-4)


@pytest.mark.parametrize("large", [1, 10**9])
def test_a_state_kept_after_any_step_is_continued_bit_for_bit(large, monkeypatch):
    monkeypatch.setattr(optimizers, "EXACT_STEPS", 3)
    monkeypatch.setattr(optimizers, "LARGE_TABLE", large)
    monkeypatch.setattr(optimizers, "STEPS_BEHIND", 16)
    batches = list(draw(40, batch=2))
    whole = dense_and_rows(8)[2]
    for nodes in batches:
        whole.bpr_step(nodes.view(3, -1), 0.1)
    for stop in (0, 1, 15, 16, 17, 39):
        torch.manual_seed(0)
        _, _, part = dense_and_rows(8)
        for nodes in batches[:stop]:
            part.bpr_step(nodes.view(3, -1), 0.1)
            part.tensors()
        kept = {name: value.clone() for name, value in part.tensors().items()}
        torch.manual_seed(0)
        _, _, part = dense_and_rows(8)
        part.restore(kept)
        for nodes in batches[stop:]:
            part.bpr_step(nodes.view(3, -1), 0.1)
        for update in (whole, part):
            update.catch_up()
        for name, value in whole.tensors().items():
            assert torch.equal(part.tensors()[name], value)


def test_only_the_rows_of_the_batch_are_given_to_the_kernel(monkeypatch):
    rows = dense_and_rows(8)[2]
    given = []
    call = kernels.call

    def spy(name, *arguments):
        if name == "adam_rows":
            given.append(arguments[8])
        call(name, *arguments)

    monkeypatch.setattr(kernels, "call", spy)
    nodes = torch.tensor([3, 1, 3, 7, 7, 2])
    take_step(rows, nodes)
    assert given == [4, 4]
    rows.catch_up()
    assert given == [4, 4, NUM_NODES]


def test_a_graph_or_missing_kernels_ask_for_the_whole_table(monkeypatch):
    def chosen(propagation):
        model = MF(NUM_NODES, 4)
        return type(build_update(model, Mask.ones(NUM_NODES, 4), propagation, 0.01))

    assert chosen(None) is RowUpdate
    assert chosen(object()) is DenseUpdate
    monkeypatch.setattr(kernels, "usable", lambda device: False)
    assert chosen(None) is DenseUpdate


@pytest.mark.parametrize("layers", [1, 3])
def test_steps_by_triton_are_the_plain_ones_and_either_goes_on_from_the_other(layers, monkeypatch):
    on_cuda = pytest.importorskip("pyg_lth.kernels.on_cuda", exc_type=ImportError)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_PROGRAM", 3)
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_LISTED", 2)
    edges = torch.tensor([[0, 0, 0, 0, 1, 2, 3], [4, 5, 6, 7, 4, 7, 7]])
    edges, num_nodes, dim = torch.cat([edges, edges.flip(0)], dim=1), 9, 5
    initial = torch.randn(num_nodes, dim) * 0.1
    mask = Mask(torch.rand(initial.shape) < 0.6)
    updates = []
    for backend in ("csr", "triton"):
        model = LightGCN(num_nodes, dim, layers).to(device)
        with torch.no_grad():
            model.embedding.weight.copy_(initial)
        propagation = Propagation(edges.to(device), num_nodes, backend)
        updates.append(build_update(model, mask, propagation, 0.01))
    plain, triton = updates
    assert type(plain) is DenseUpdate and type(triton) is TritonUpdate
    for number in range(4):
        if number == 2:
            kept = [
                {name: value.clone() for name, value in update.tensors().items()}
                for update in updates
            ]
            triton.restore(kept[0])
            plain.restore(kept[1])
        for update in updates:
            update.set_rate(0.01 / (1 + number))
        nodes = torch.randint(num_nodes, (12,), device=device)
        loss = triton.bpr_step(nodes.view(3, -1), 0.1)
        assert loss.item() == pytest.approx(take_step(plain, nodes), rel=1e-5)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(triton.tensors()[name], value, rtol=1e-4, atol=1e-7)
    assert not triton.tensors()["weight"].cpu()[~mask.table].any()


def test_threads_look_up_the_same_rows_in_one_update():
    table = torch.randn(30_000, 8)
    updates_of_rows = []
    for _ in range(2):
        model = MF(*table.shape)
        with torch.no_grad():
            model.embedding.weight.copy_(table)
        updates_of_rows.append(RowUpdate(model, Mask.ones(*table.shape), 0.01))
    shared, alone = updates_of_rows
    everything = torch.randint(30_000, (3 * 10_000,))
    for turn in range(20):
        for update in updates_of_rows:
            take_step(update, everything if turn == 0 else torch.tensor([0, 1, 2]))
    expected = alone.tensors()["weight"]

    def right(seed):
        nodes = torch.randint(30_000, (30_000,), generator=torch.Generator().manual_seed(seed))
        return torch.equal(shared.lookup(nodes)[0], expected[nodes])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(right, range(40)))


def test_threads_that_take_steps_lose_none():
    _, _, rows = dense_and_rows(8)

    def run(seed):
        for nodes in draw(50, seed):
            take_step(rows, nodes)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    assert rows.tensors()["optimizer.weight.step"] == 200
