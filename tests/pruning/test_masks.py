import copy

import pytest
import torch
from torch import nn

from pyg_lth import MF, InputError, LightGCN, Mask, apply_mask
from pyg_lth.pruning.masks import Budget, budgets, survivors
from pyg_lth.training import losses
from pyg_lth.training.sampling import Layout

NUM_NODES, DIM = 6, 4

MODULES = {
    "lightgcn": lambda: LightGCN(NUM_NODES, DIM, num_layers=2),
    "mf": lambda: MF(NUM_NODES, DIM),
    "embedding": lambda: nn.Embedding(NUM_NODES, DIM),
    "sequential": lambda: nn.Sequential(nn.Embedding(NUM_NODES, DIM), nn.Linear(DIM, 2)),
}
OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "fused adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "adam with decay": lambda parameters: torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
}


def mask_of(*rows):
    return Mask(torch.tensor(rows, dtype=torch.bool))


@pytest.fixture
def mask():
    return Mask(torch.rand(NUM_NODES, DIM) < 0.5)


def embedding_of(module):
    return next(part for part in module.modules() if isinstance(part, nn.Embedding))


def train(module, optimizer, steps=60):
    """Pull every entry of the table towards one, which moves whatever can move."""
    embedding = embedding_of(module)
    for _ in range(steps):
        optimizer.zero_grad()
        (embedding(torch.arange(NUM_NODES)) - 1).square().sum().backward()
        optimizer.step()
    return embedding.weight.detach()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("module", MODULES)
def test_masked_entries_stay_exactly_zero(module, optimizer, mask):
    model = MODULES[module]()
    parameter = apply_mask(model, mask)
    weight = train(model, OPTIMIZERS[optimizer](model.parameters()))
    assert weight[~mask.table].abs().max() == 0
    assert parameter[~mask.table].abs().max() == 0
    assert parameter.grad[~mask.table].abs().max() == 0
    assert parameter.grad[mask.table].abs().min() > 0
    assert weight[mask.table].abs().min() > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("module", MODULES)
def test_without_the_mask_the_same_entries_move(module, optimizer, mask):
    model = MODULES[module]()
    with torch.no_grad():
        embedding_of(model).weight.mul_(mask.table)
    weight = train(model, OPTIMIZERS[optimizer](model.parameters()))
    assert weight[~mask.table].abs().min() > 0


def test_the_masked_weight_is_mask_times_weight_bit_for_bit(mask):
    embedding = nn.Embedding(NUM_NODES, DIM)
    weight = embedding.weight.detach().clone()
    parameter = apply_mask(embedding, mask)
    assert torch.equal(embedding.weight, weight * mask.table)
    assert torch.equal(parameter, weight * mask.table)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_masked_weight_keeps_its_type(mask, dtype):
    embedding = nn.Embedding(NUM_NODES, DIM, dtype=dtype)
    weight = embedding.weight.detach().clone()
    parameter = apply_mask(embedding, mask)
    (buffer,) = embedding.buffers()
    # A product with booleans takes three times as long as one with the type of the weight.
    assert buffer.dtype == parameter.dtype == embedding.weight.dtype == dtype
    assert torch.equal(buffer.bool(), mask.table)
    assert torch.equal(embedding.weight, weight * mask.table)
    assert list(embedding.state_dict()) == ["parametrizations.weight.original"]


def test_a_weight_that_is_assigned_is_masked_too(mask):
    embedding = nn.Embedding(NUM_NODES, DIM)
    apply_mask(embedding, mask)
    embedding.weight = torch.ones(NUM_NODES, DIM)
    assert torch.equal(embedding.weight, mask.table.float())


def test_the_parameter_returned_is_the_only_one_of_the_embedding(mask):
    embedding = nn.Embedding(NUM_NODES, DIM)
    parameter = apply_mask(embedding, mask)
    (only,) = embedding.parameters()
    assert only is parameter


def test_the_l2_term_sees_masked_weights(mask):
    embedding = nn.Embedding(NUM_NODES, DIM)
    dense = embedding.weight.detach().clone()
    parameter = apply_mask(embedding, mask)
    with torch.no_grad():
        parameter.copy_(dense)
    nodes = torch.tensor([0, 1, 5, 0])
    term = losses.l2(Layout(2, negatives=0).split(embedding(nodes)))
    expected = sum(
        dense[node, column].item() ** 2 * mask.table[node, column].item()
        for node in nodes.tolist()
        for column in range(DIM)
    )
    assert term.item() == pytest.approx(expected / 4, rel=1e-6)


@pytest.mark.parametrize("module", MODULES)
def test_a_parameter_that_stays_masked_is_trained_alike(module, mask):
    model = MODULES[module]()
    other = copy.deepcopy(model)
    parameters = [apply_mask(each, mask) for each in (model, other)]
    embedding_of(other).parametrizations.weight[0].stays_masked = True
    for each, parameter in zip((model, other), parameters, strict=True):
        train(each, OPTIMIZERS["adam"]([parameter]))
    assert torch.equal(*parameters)
    assert torch.equal(parameters[0].grad, parameters[1].grad)


@pytest.mark.parametrize("module", MODULES)
def test_a_dense_mask_changes_nothing(module):
    model = MODULES[module]()
    other = copy.deepcopy(model)
    apply_mask(model, Mask.ones(NUM_NODES, DIM))
    make = OPTIMIZERS["adam"]
    assert torch.equal(
        train(model, make(model.parameters())), train(other, make(other.parameters()))
    )


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (nn.Sequential(nn.Embedding(NUM_NODES, DIM), nn.Embedding(NUM_NODES, DIM)), 2),
        (nn.Linear(DIM, NUM_NODES), 0),
    ],
    ids=["two", "none"],
)
def test_a_module_without_exactly_one_embedding_is_refused(module, count, mask):
    with pytest.raises(InputError, match=f"this one has {count}"):
        apply_mask(module, mask)


@pytest.mark.parametrize("shape", [(NUM_NODES, DIM + 1), (DIM, NUM_NODES), (NUM_NODES - 1, DIM)])
def test_a_mask_of_another_shape_is_refused(shape):
    embedding = nn.Embedding(NUM_NODES, DIM)
    with pytest.raises(InputError, match="shape"):
        apply_mask(embedding, Mask.ones(*shape))
    assert not hasattr(embedding, "parametrizations")


def test_remaining_and_density_count_living_entries():
    mask = mask_of([1, 0, 0], [0, 1, 1])
    assert mask.remaining == 3
    assert mask.density == 0.5
    assert Mask.ones(2, 3).remaining == 6
    assert Mask.ones(2, 3).density == 1.0


def test_set_operations_act_on_living_entries():
    first, second = mask_of([1, 1, 0], [0, 0, 1]), mask_of([1, 0, 0], [0, 1, 1])
    assert first & second == mask_of([1, 0, 0], [0, 0, 1])
    assert first | second == mask_of([1, 1, 0], [0, 1, 1])
    assert first & second <= first
    assert first <= first
    assert first <= first | second
    assert not first <= second
    assert first != second
    assert first != first.table


@pytest.mark.parametrize(
    ("size", "amount", "rounds", "left"),
    [
        (100, 0.29, 1, 71),  # 0.29 * 100 is 28.999999999999996 in binary floating point
        (100, 0.29, 2, 51),  # 71 - floor(20.59)
        (1000, 0.057, 1, 943),
        (10, 0.1, 0, 10),
        (10, 0.1, 1, 9),
        (9, 0.1, 1, 9),
        (7, 0.999, 5, 1),
        (1, 0.5, 3, 1),
        (10_000_000, 1e-5, 1, 9_999_900),
        (2_230_912, 0.1, 3, 1_626_336),
    ],
)
def test_survivors_are_counted_exactly(size, amount, rounds, left):
    assert survivors(size, amount, rounds) == left


@pytest.mark.parametrize("percent", range(1, 100))
def test_every_whole_percentage_drops_the_floor_of_the_decimal(percent):
    for size in (1, 7, 99, 100, 1000, 12_345):
        assert survivors(size, percent / 100, 1) == size - size * percent // 100


@pytest.mark.parametrize("amount", [0.1, 0.29, 0.5])
def test_rounds_of_survivors_follow_on_from_each_other(amount):
    for rounds in range(30):
        before = survivors(6400, amount, rounds)
        assert survivors(6400, amount, rounds + 1) == survivors(before, amount, 1)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("joint", [Budget(slice(0, 5), 11)]),
        ("user", [Budget(slice(0, 2), 5)]),
        ("item", [Budget(slice(2, 5), 7)]),
        ("user_item", [Budget(slice(0, 2), 5), Budget(slice(2, 5), 7)]),
        ("row", [Budget(slice(0, 5), 11, each_row=True)]),
    ],
)
def test_budgets_of_every_scope(scope, expected):
    # 15 entries of 5 rows: joint 15 -> 11; users 6 -> 5; items 9 -> 7.
    assert budgets(scope, num_users=2, shape=(5, 3), amount=0.29, rounds=1) == expected
