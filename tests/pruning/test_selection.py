import pytest
import torch

from pyg_lth import InputError, Mask, seeding
from pyg_lth.pruning import criteria, selection
from pyg_lth.pruning.masks import Budget, budgets, survivors

SCOPES = ("joint", "user", "item", "user_item", "row")

# Two users, then two items.
WEIGHT = torch.tensor([[0.1, -0.8], [-0.3, 0.2], [0.5, 0.4], [0.9, -0.6]])
# A quarter pruned: eight entries to six, or four of a side to three. By hand:
BY_HAND = {
    "joint": [[0, 1], [1, 0], [1, 1], [1, 1]],  # .1 and .2 are the smallest of all
    "user": [[0, 1], [1, 1], [1, 1], [1, 1]],  # .1 of the users
    "item": [[1, 1], [1, 1], [1, 0], [1, 1]],  # .4 of the items
    "user_item": [[0, 1], [1, 1], [1, 0], [1, 1]],  # one of each
    "row": [[1, 1], [1, 1], [1, 0], [1, 0]],  # 2 + 2 + 1 + 1: .4 and .6, the smaller of theirs
}
# A quarter of what is left again: six entries to five; three of a side stay three.
BY_HAND_AGAIN = {
    "joint": [[0, 1], [0, 0], [1, 1], [1, 1]],
    "user": BY_HAND["user"],
    "item": BY_HAND["item"],
    "user_item": BY_HAND["user_item"],
    "row": [[1, 1], [1, 0], [1, 0], [1, 0]],  # now 2 + 1 + 1 + 1
}
NO_DRAWS = torch.Generator()


@pytest.mark.parametrize("scope", SCOPES)
def test_two_rounds_of_pruning_worked_by_hand(scope):
    scores = criteria.magnitude(WEIGHT, NO_DRAWS, torch.zeros_like)
    mask = selection.prune(scores, Mask.ones(4, 2), budgets(scope, 2, (4, 2), 0.25, 1))
    assert mask.table.int().tolist() == BY_HAND[scope]
    mask = selection.prune(scores, mask, budgets(scope, 2, (4, 2), 0.25, 2))
    assert mask.table.int().tolist() == BY_HAND_AGAIN[scope]


def naive_prune(scores, table, budget):
    """Drop the smallest living entries of the block by sorting (score, index) in Python."""
    out = table.clone()
    rows = range(table.size(0))[budget.rows]
    share, over = divmod(budget.keep, len(rows))
    blocks = (
        [([row], share + (place < over)) for place, row in enumerate(rows)]
        if budget.each_row
        else [(list(rows), budget.keep)]
    )
    for block, keep in blocks:
        living = sorted(
            (scores[row, column].item(), row, column)
            for row in block
            for column in range(table.size(1))
            if table[row, column]
        )
        for _, row, column in living[: len(living) - keep]:
            out[row, column] = False
    return out


SCORES = {
    "distinct": lambda shape: torch.rand(shape),
    "many ties": lambda shape: torch.randint(4, shape).float(),
    "signed": lambda shape: torch.randn(shape) * 10.0 ** torch.randint(-40, 38, shape),
    "both zeros": lambda shape: torch.randint(-1, 2, shape) * -0.0,
    "nearly equal": lambda shape: 1 + torch.randint(9, shape) * 2.0**-23,
}


@pytest.mark.parametrize("entries_at_once", [3, 10**6])
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(3))
def test_pruning_equals_a_naive_sort_over_many_nested_rounds(
    scope, seed, kind, entries_at_once, monkeypatch
):
    monkeypatch.setattr(selection, "ENTRIES_AT_ONCE", entries_at_once)
    torch.manual_seed(seed)
    num_users, shape = 4, (11, 5)
    mask = Mask.ones(*shape)
    for round in range(1, 12):
        scores = SCORES[kind](shape)
        plan = budgets(scope, num_users, shape, 0.29, round)
        expected = mask.table
        for budget in plan:
            expected = naive_prune(scores, expected, budget)
        pruned = selection.prune(scores, mask, plan)
        assert torch.equal(pruned.table, expected)
        assert pruned <= mask
        mask = pruned


@pytest.mark.parametrize("score", [criteria.magnitude, criteria.random])
@pytest.mark.parametrize("scope", SCOPES)
def test_every_budget_is_met_exactly(entries_wanted, scope, score):
    num_users, num_items, dim = 13, 9, 8
    shape = (num_users + num_items, dim)
    mask, weight = Mask.ones(*shape), torch.randn(shape)
    for round in range(1, 15):
        scores = score(weight, seeding.generator(0, round), torch.zeros_like)
        mask = selection.prune(scores, mask, budgets(scope, num_users, shape, 0.29, round))
        assert mask.remaining == entries_wanted(scope, num_users, num_items, dim, round)
        if scope == "user":
            assert mask.table[num_users:].all()
        if scope == "item":
            assert mask.table[:num_users].all()
        if scope == "user_item":
            assert mask.table[:num_users].sum() == survivors(num_users * dim, 0.29, round)
        if scope == "row":
            of_row = mask.table.sum(dim=1)
            assert of_row.max() - of_row.min() <= 1
            assert torch.equal(of_row, of_row.sort(descending=True).values)


def test_equal_scores_fall_in_order_of_their_index():
    mask = selection.prune(torch.ones(2, 3), Mask.ones(2, 3), [Budget(slice(0, 2), 2)])
    assert mask.table.int().tolist() == [[0, 0, 0], [0, 1, 1]]
    mask = selection.prune(torch.ones(2, 3), Mask.ones(2, 3), [Budget(slice(0, 2), 3, True)])
    assert mask.table.int().tolist() == [[0, 1, 1], [0, 0, 1]]


def test_a_living_zero_falls_before_anything_else_and_a_dead_entry_never_counts():
    alive = Mask(torch.tensor([[True, True, False], [True, False, True]]))
    scores = torch.tensor([[0.0, 1.0, 9.0], [2.0, 9.0, 3.0]])
    mask = selection.prune(scores, alive, [Budget(slice(0, 2), 3)])
    assert mask.table.int().tolist() == [[0, 1, 0], [1, 0, 1]]


def test_a_budget_of_all_that_lives_changes_nothing():
    alive = Mask(torch.rand(4, 3) < 0.5)
    budget = Budget(slice(0, 4), alive.remaining)
    assert selection.prune(torch.rand(4, 3), alive, [budget]) == alive


def test_pruning_leaves_the_mask_it_started_from_alone():
    alive = Mask.ones(4, 3)
    selection.prune(torch.rand(4, 3), alive, [Budget(slice(0, 4), 5)])
    assert alive == Mask.ones(4, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value):
    scores = torch.rand(4, 3)
    scores[2, 1] = value
    with pytest.raises(InputError, match="not finite"):
        selection.prune(scores, Mask.ones(4, 3), [Budget(slice(0, 4), 5)])


@pytest.mark.parametrize("each_row", [False, True])
def test_a_budget_beyond_what_lives_is_refused(each_row):
    alive = Mask(torch.tensor([[True, True], [True, False]]))
    with pytest.raises(InputError, match="cannot be kept"):
        selection.prune(torch.rand(2, 2), alive, [Budget(slice(0, 2), 4, each_row)])


@pytest.mark.parametrize("scope", ["joint", "user_item", "row"])
def test_a_table_on_a_cuda_device_is_pruned_there(cuda, scope):
    scores, mask = torch.randint(9, (30, 8)).float(), Mask.ones(30, 8)
    kept = budgets(scope, 20, scores.shape, 0.3, 2)
    found = selection.prune(scores.cuda(), Mask(mask.table.cuda()), kept)
    assert found.table.is_cuda
    assert torch.equal(found.table.cpu(), selection.prune(scores, mask, kept).table)
