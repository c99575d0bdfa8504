import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pyg_lth import MF, Mask, apply_mask, kernels
from pyg_lth.training import losses, optimizers
from pyg_lth.training.optimizers import DenseUpdate, RowUpdate, build_update

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
    loss = scale * (loss + 0.1 * losses.l2(ego, user.size(0)))
    update.apply(loss)
    return loss.item()


def draw(num_steps, seed=0, batch=4):
    """Batches that leave most rows out; the last rows are never looked up."""
    source = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        yield torch.randint(NUM_NODES - 3, (3 * batch,), generator=source)


def assert_equal(first, second):
    first, second = first.tensors(), second.tensors()
    assert first.keys() == second.keys()
    for name in first:
        # The same operations in the same order; a compiler may still fuse two of them elsewhere.
        torch.testing.assert_close(first[name], second[name], rtol=1e-6, atol=1e-12)


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


def test_looking_on_at_any_time_changes_nothing():
    _, untouched, looked_at = dense_and_rows(16)
    for step, nodes in enumerate(draw(30)):
        take_step(untouched, nodes)
        take_step(looked_at, nodes)
        if step % 3 == 0:
            looked_at.catch_up()
            looked_at.catch_up()
    assert_equal(looked_at, untouched)


@pytest.mark.parametrize("kinds", list(itertools.product((0, 1), repeat=2)))
def test_either_update_continues_from_the_state_of_either(kinds):
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
    assert_equal(second[kinds[1]], first[0])


def test_only_the_rows_of_the_batch_are_given_to_the_kernel(monkeypatch):
    rows = dense_and_rows(8)[2]
    given = []
    call = kernels.call

    def spy(name, *arguments):
        if name == "adam_rows":
            given.append(arguments[7])
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
