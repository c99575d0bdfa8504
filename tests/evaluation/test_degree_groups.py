import json
import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import hypergeom

from pyg_lth.errors import InputError
from pyg_lth.evaluation.degree_groups import NUM_GROUPS, Analysis, Analyst, degree_groups, overlap
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.pruning.masks import Mask


def naive_groups(degree, num_groups):
    """Try every place of every cut in the order of degree, then make room for empty groups."""
    num_groups = min(num_groups, len(degree))
    order = sorted(range(len(degree)), key=lambda node: (degree[node], node))
    below = [sum(degree[node] for node in order[:place]) for place in range(len(degree) + 1)]
    places = [0]
    for cut in range(1, num_groups):
        distance = [abs(mass * num_groups - cut * below[-1]) for mass in below]
        nearest = max(p for p, d in enumerate(distance) if d == min(distance))
        places.append(max(nearest, places[-1] + 1))
    places.append(len(degree))
    for cut in range(num_groups - 1, 0, -1):
        places[cut] = min(places[cut], places[cut + 1] - 1)
    group = [0] * len(degree)
    for number, (first, last) in enumerate(pairwise(places)):
        for node in order[first:last]:
            group[node] = number
    return group


def power_law(num_nodes):
    return (3 / torch.rand(num_nodes)).long()


DEGREES = {
    "even": lambda: torch.full((100,), 7),
    "power law": lambda: power_law(200),
    "nodes without interactions": lambda: power_law(60) * (torch.rand(60) < 0.5),
    "ties at the cuts": lambda: torch.randint(1, 3, (40,)),
    "a hub": lambda: torch.cat([torch.ones(30), torch.tensor([500.0])]).long(),
    "hubs": lambda: torch.tensor([1, 100, 1, 100, 1, 1, 100, 1, 1, 100, 1, 1, 1]),
    "no interactions": lambda: torch.zeros(20).long(),
    "as many nodes as groups": lambda: power_law(10),
    "fewer nodes than groups": lambda: power_law(7),
    "one node": lambda: torch.tensor([4]),
}


@pytest.mark.parametrize("num_groups", [1, 2, 10])
@pytest.mark.parametrize("kind", DEGREES)
def test_degree_groups_equal_a_naive_cut(kind, num_groups):
    for _ in range(5):
        degree = DEGREES[kind]()
        group = degree_groups(degree, num_groups)
        assert group.dtype == torch.long
        assert group.tolist() == naive_groups(degree.tolist(), num_groups)


@pytest.mark.parametrize("kind", DEGREES)
def test_degree_groups_rise_with_the_degree_and_none_below_the_last_is_empty(kind):
    degree = DEGREES[kind]()
    group = degree_groups(degree)
    for low in range(degree.numel()):
        for high in range(degree.numel()):
            if (degree[low], low) < (degree[high], high):
                assert group[low] <= group[high]
    assert group.unique().tolist() == list(range(min(NUM_GROUPS, degree.numel())))


def test_degree_groups_have_a_tenth_of_the_interactions_but_for_half_a_node_at_each_cut():
    degree = power_law(1000).clamp(max=100)
    group = degree_groups(degree)
    mass = torch.bincount(group, weights=degree.double())
    largest = torch.tensor([int(degree[group == number].max()) for number in range(10)])
    # A cut is off by half a node of the group above it or below it, at most.
    slack = largest / 2 + torch.cat([largest[1:], largest[-1:]]) / 2
    assert ((mass - degree.sum() / 10).abs() <= slack).all()


def test_degree_groups_of_cases_worked_by_hand():
    # In order: nodes 1, 4, 0, 3, 2, 5 with 1, 1, 2, 2, 3, 3 of 12 interactions; the cuts at 4 and 8
    # fall where there are 4 and 9 below.
    assert degree_groups(torch.tensor([2, 1, 3, 2, 1, 3]), 3).tolist() == [0, 0, 1, 1, 0, 2]
    # The cut at 3 is as far from 2 as from 4.
    assert degree_groups(torch.tensor([2, 2, 2]), 2).tolist() == [0, 0, 1]
    # The cuts are nearest to 4, 4 and 94, and leave a node to each group.
    assert degree_groups(torch.tensor([1, 90, 1, 1, 1]), 4).tolist() == [0, 3, 0, 1, 2]


def uneven_split(num_users, num_items, seed):
    """Some items are far more popular; some users have no test truth, and some nodes nothing."""
    generator = torch.Generator().manual_seed(seed)
    chance = 0.9 / (1 + torch.arange(num_items) / 5)
    part = (torch.rand(num_users, num_items, generator=generator) < chance).long()
    part[part == 1] = torch.randint(1, 5, (int((part == 1).sum()),), generator=generator)
    part[3::7] = part[3::7].where(part[3::7] != 3, 1)
    part[5] = 0
    part[:, -1] = 0
    train, valid, test = (
        torch.cat([(part == which).nonzero() for which in kinds]) for kinds in ((1, 4), (2,), (3,))
    )
    train = train[(train[:, 0] * num_items + train[:, 1]).argsort()]
    return InteractionSplit(
        num_users, num_items, *(x.t().contiguous() for x in (train, valid, test))
    )


def ragged_mask(num_nodes, dim):
    """Rows of all densities, some of them empty, and an empty column."""
    table = torch.rand(num_nodes, dim) < torch.rand(num_nodes, 1)
    table[::4] = False
    table[:, 1] = False
    return Mask(table)


def mean(values):
    values = list(values)
    return pytest.approx(sum(values) / len(values), abs=1e-6) if values else None


def naive_metrics(line, wanted, k):
    hits = [place for place, item in enumerate(line) if item in wanted]
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
    return {
        f"precision@{k}": len(hits) / k,
        f"recall@{k}": len(hits) / len(wanted),
        f"ndcg@{k}": sum(1 / math.log2(place + 2) for place in hits) / ideal,
    }


def naive_analysis(split, mask, users, ranked, k):
    """Everything by loops over nodes, users and groups."""
    sizes = {"user": split.num_users, "item": split.num_items}
    groups, rows = {}, {}
    for row, (kind, size) in enumerate(sizes.items()):
        degree = [0] * size
        for node in split.train[row].tolist():
            degree[node] += 1
        groups[kind] = naive_groups(degree, 10)
        rows[kind] = mask.table.tolist()[row * split.num_users :][:size]
    wanted = {user: set() for user in users}
    for user, item in split.test.t().tolist():
        wanted[user].add(item)
    lines = dict(zip(users, ranked, strict=True))
    names = [f"{name}@{k}" for name in ("precision", "recall", "ndcg")]

    def density(kind, group):
        return mean(
            entry
            for node, row in enumerate(rows[kind])
            if groups[kind][node] == group
            for entry in row
        )

    def of_user_group(name, group):
        return mean(
            naive_metrics(lines[user], wanted[user], k)[name]
            for user in users
            if groups["user"][user] == group
        )

    def of_item_group(name, group):
        parts = {u: {i for i in wanted[u] if groups["item"][i] == group} for u in users}
        return mean(naive_metrics(lines[u], parts[u], k)[name] for u in users if parts[u])

    return {
        "density_by_user_group": [density("user", group) for group in range(10)],
        "density_by_item_group": [density("item", group) for group in range(10)],
        "density_by_column": [
            mean(row[column] for row in rows["user"] + rows["item"])
            for column in range(mask.table.size(1))
        ],
        "empty_users": mean(not any(row) for row in rows["user"]),
        "empty_items": mean(not any(row) for row in rows["item"]),
        "metrics_by_user_group": {
            name: [of_user_group(name, group) for group in range(10)] for name in names
        },
        "metrics_by_item_group": {
            name: [of_item_group(name, group) for group in range(10)] for name in names
        },
    }


@pytest.mark.parametrize(
    ("num_users", "num_items", "k"),
    [(60, 40, 5), (60, 40, 50), (30, 7, 3), (8, 25, 10)],
    ids=["usual", "k above the items", "fewer items than groups", "fewer users than groups"],
)
def test_an_analysis_equals_naive_loops(num_users, num_items, k):
    split = uneven_split(num_users, num_items, seed=num_users)
    mask = ragged_mask(num_users + num_items, dim=6)
    evaluator = Evaluator(split, "test", k)
    ranked = evaluator.rank(torch.randn(num_users + num_items, 4))
    users = evaluator.users.tolist()
    assert len(users) < num_users
    analysis = Analyst(split, evaluator)(mask, ranked)
    assert analysis.model_dump() == naive_analysis(split, mask, users, ranked.tolist(), k)
    assert Analysis.model_validate_json(analysis.model_dump_json()) == analysis


def test_group_sizes_count_nodes_and_interactions():
    split = uneven_split(60, 40, seed=1)
    groups = Analyst(split, Evaluator(split, "test", 5)).groups
    for row, size, found in ((0, 60, groups.users), (1, 40, groups.items)):
        degree = [split.train[row].tolist().count(node) for node in range(size)]
        group = naive_groups(degree, 10)
        assert found.nodes == [group.count(number) for number in range(10)]
        assert found.interactions == [
            sum(d for d, g in zip(degree, group, strict=True) if g == number)
            for number in range(10)
        ]


def test_each_item_group_has_an_ideal_list_of_its_own(make_split):
    # Items 0 to 9 have degrees 1 to 10; there are as many groups, so each is a group of its own.
    train = [(user, item) for item in range(10) for user in range(item + 1)]
    split = make_split(12, 10, train=train, test=[(11, 9), (11, 4), (10, 0)])
    # User 10 is shown items 9 and 8, user 11 items 4 and 9.
    ranked = torch.tensor([[9, 8], [4, 9]])
    analysis = Analyst(split, Evaluator(split, "test", 2))(Mask.ones(22, 3), ranked)
    metrics = analysis.metrics_by_item_group
    assert metrics["recall@2"] == [0, None, None, None, 1, None, None, None, None, 1]
    assert metrics["precision@2"] == [0, None, None, None, 0.5, None, None, None, None, 0.5]
    # User 11 wants one item of the last group, so the ideal list has it alone, and first.
    ndcg = pytest.approx(1 / math.log2(3))
    assert metrics["ndcg@2"] == [0, None, None, None, 1, None, None, None, None, ndcg]


def test_the_dense_mask_is_full_everywhere_and_an_empty_one_nowhere():
    split = uneven_split(60, 40, seed=2)
    evaluator = Evaluator(split, "test", 5)
    analyst = Analyst(split, evaluator)
    ranked = evaluator.rank(torch.randn(100, 4))
    for mask, value in ((Mask.ones(100, 3), 1.0), (Mask(torch.zeros(100, 3).bool()), 0.0)):
        analysis = analyst(mask, ranked)
        assert analysis.density_by_user_group == analysis.density_by_item_group == [value] * 10
        assert analysis.density_by_column == [value] * 3
        assert analysis.empty_users == analysis.empty_items == 1 - value


def test_a_report_has_null_where_a_group_has_nothing():
    split = uneven_split(8, 25, seed=0)
    evaluator = Evaluator(split, "test", 5)
    ranked = evaluator.rank(torch.randn(33, 4))
    text = Analyst(split, evaluator)(Mask.ones(33, 3), ranked).model_dump_json()
    read = json.loads(text, parse_constant=pytest.fail)
    assert read["density_by_user_group"] == [1.0] * 8 + [None] * 2
    assert read["metrics_by_user_group"]["recall@5"][8:] == [None] * 2


def random_mask(num_nodes, dim, remaining):
    table = torch.zeros(num_nodes * dim, dtype=torch.bool)
    table[torch.randperm(num_nodes * dim)[:remaining]] = True
    return Mask(table.view(num_nodes, dim))


@pytest.mark.parametrize(("first", "second"), [(100, 60), (200, 1), (7, 7), (0, 5)])
def test_jaccard_is_that_of_the_sets_of_living_entries(first, second):
    masks = random_mask(20, 10, first), random_mask(20, 10, second)
    a, b = ({tuple(entry) for entry in mask.table.nonzero().tolist()} for mask in masks)
    assert overlap(*masks).jaccard == overlap(*reversed(masks)).jaccard == len(a & b) / len(a | b)


def test_a_mask_overlaps_wholly_with_itself():
    for remaining in (0, 1, 77, 200):
        mask = random_mask(20, 10, remaining)
        assert overlap(mask, mask).jaccard == 1.0
    assert overlap(Mask.ones(20, 10), Mask.ones(20, 10)).chance == 1.0


@pytest.mark.parametrize(("first", "second"), [(300, 300), (500, 120), (40, 40)])
def test_chance_is_the_mean_jaccard_of_random_masks(first, second):
    drawn = [overlap(random_mask(100, 10, first), random_mask(100, 10, second)) for _ in range(300)]
    jaccard = torch.tensor([each.jaccard for each in drawn], dtype=torch.double)
    error = float(jaccard.std()) / math.sqrt(len(drawn))
    (chance,) = {each.chance for each in drawn}
    # Five standard errors, and what the ratio of the expectations leaves out.
    assert abs(float(jaccard.mean()) - chance) < 5 * error + chance / (2 * min(first, second))


@pytest.mark.parametrize("remaining", [20, 100, 500])
def test_chance_differs_from_the_exact_expectation_by_one_part_in_twice_the_living_entries(
    remaining,
):
    size = 100_000
    both = range(remaining + 1)
    weights = hypergeom(size, remaining, remaining).pmf(both)
    exact = sum(w * x / (2 * remaining - x) for w, x in zip(weights, both, strict=True))
    mask = random_mask(1000, 100, remaining)
    assert exact / overlap(mask, mask).chance - 1 == pytest.approx(0.5 / remaining, rel=0.05)


def test_masks_of_two_tables_have_no_overlap():
    with pytest.raises(InputError, match=r"\[20, 10\].*\[10, 20\].*one dimension"):
        overlap(Mask.ones(20, 10), Mask.ones(10, 20))
