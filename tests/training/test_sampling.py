import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from pyg_lth import InputError, TrainConfig, kernels
from pyg_lth.interactions import InteractionSplit
from pyg_lth.training import sampling
from pyg_lth.training.losses import LOSSES
from pyg_lth.training.sampling import Layout, TripletSampler

NUM_ITEMS = 9
# Users without a train item, with all of them, and with runs at either end among them.
LIKED = {
    0: [0, 1, 2],
    1: [],
    2: [8],
    3: list(range(NUM_ITEMS)),
    4: [0, 2, 4, 6, 8],
    5: [6, 7, 8],
    6: [0, 1, 2, 3, 5, 6, 7, 8],
    7: [],
}
ELIGIBLE = [0, 2, 4, 5, 6]
# The users that each way of drawing chooses from uniformly.
POOLS = {"user": ELIGIBLE, "edge": [user for user in ELIGIBLE for _ in LIKED[user]]}
# Users, positives and negatives of the first default draw at seed 0.
GOLDEN = [[6, 5, 4, 6, 5], [7, 6, 2, 5, 6], [4, 1, 3, 4, 2]]
LACKED = {user: [i for i in range(NUM_ITEMS) if i not in items] for user, items in LIKED.items()}


@pytest.fixture(params=["native", "plain"], autouse=True)
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(kernels, "usable", lambda device: False)
    elif kernels.library() is None:
        pytest.skip("the kernels are not compiled")


@pytest.fixture
def split():
    pairs = [(user, item) for user, items in LIKED.items() for item in items]
    train = torch.tensor(pairs).t().contiguous()
    return InteractionSplit(len(LIKED), NUM_ITEMS, train, None, train[:, :0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def middle(position, count):
    """The uniform number in the middle of the share of [0, 1) that stands for ``position``."""
    return (position + 0.5) / count


@pytest.mark.parametrize("by", POOLS)
def test_every_rank_gives_the_item_that_a_naive_loop_gives(split, monkeypatch, by):
    uniform, expected = [], []
    for position, user in enumerate(POOLS[by]):
        for place, positive in enumerate(LIKED[user]):
            for rank, negative in enumerate(LACKED[user]):
                uniform.append(
                    (
                        middle(position, len(POOLS[by])),
                        middle(place, len(LIKED[user])),
                        middle(rank, len(LACKED[user])),
                    )
                )
                expected.append((user, positive, negative))
    fixed = torch.tensor(uniform, dtype=torch.float64).t().contiguous()
    sampler = TripletSampler(split, Layout(4), by)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: fixed)
    drawn = sampler.sample(len(uniform), generator()).t().tolist()
    assert [tuple(triplet) for triplet in drawn] == expected


def test_each_negative_has_a_number_of_its_own(split, monkeypatch):
    """The batch of three negatives is made of the triplets that each row alone would give."""
    uniform = torch.rand(5, 200, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: uniform)
    together = TripletSampler(split, Layout(4, 3)).sample(200, generator())
    for row in range(2, 5):
        one = uniform[[0, 1, row]].contiguous()
        monkeypatch.setattr(torch, "rand", lambda *args, one=one, **kwargs: one)
        alone = TripletSampler(split, Layout(4)).sample(200, generator())
        assert torch.equal(together[[0, 1, row]], alone)


@pytest.mark.parametrize("by", POOLS)
def test_without_negatives_users_and_positives_are_drawn_alike(split, monkeypatch, by):
    uniform = torch.rand(3, 200, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda num_rows, *args, **kwargs: uniform[:num_rows])
    pairs = TripletSampler(split, Layout(4, 0), by).sample(200, generator())
    triplets = TripletSampler(split, Layout(4), by).sample(200, generator())
    assert torch.equal(pairs, triplets[:2])


def test_the_default_draws_the_triplets_that_it_always_drew(split):
    triplets = TripletSampler(split, Layout(4)).sample(5, torch.Generator().manual_seed(0))
    assert triplets.tolist() == GOLDEN


@pytest.mark.parametrize("end", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_stay_in_range(split, monkeypatch, end):
    sampler = TripletSampler(split, Layout(4))
    monkeypatch.setattr(
        torch, "rand", lambda *args, **kwargs: torch.full((3, 1), end, dtype=torch.float64)
    )
    user, positive, negative = (int(part) for part in sampler.sample(1, generator()))
    position = -1 if end else 0
    assert user == ELIGIBLE[position]
    assert positive == LIKED[user][position]
    assert negative == LACKED[user][position]


def random_split(seed):
    source = generator(seed)
    num_users, num_items = torch.randint(2, 40, (2,), generator=source).tolist()
    liked = torch.rand(num_users, num_items, generator=source) < torch.rand(
        num_users, 1, generator=source
    )
    train = liked.nonzero().t().contiguous()
    return InteractionSplit(num_users, num_items, train, None, train[:, :0]), liked


@pytest.mark.parametrize(("negatives", "by"), [(1, "user"), (1, "edge"), (4, "user"), (0, "edge")])
@pytest.mark.parametrize("seed", range(10))
def test_positives_are_train_items_and_negatives_never(seed, negatives, by):
    split, liked = random_split(seed)
    sampler = TripletSampler(split, Layout(8, negatives), by)
    user, positive, *negative = sampler.sample(5000, generator(seed))
    assert liked[user, positive].all()
    assert len(negative) == negatives
    for row in negative:
        assert not liked[user, row].any()
        assert row.min() >= 0
        assert row.max() < split.num_items


@pytest.mark.parametrize("by", POOLS)
def test_users_with_no_items_or_with_all_are_never_drawn(split, by):
    user, _, _ = TripletSampler(split, Layout(8), by).sample(5000, generator())
    assert sorted(set(user.tolist())) == ELIGIBLE


@pytest.mark.parametrize("by", POOLS)
@pytest.mark.parametrize("pairs", [[(0, 0), (0, 1)], []], ids=["has all", "has none"])
def test_nobody_to_draw_is_an_error(pairs, by):
    train = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t()
    with pytest.raises(InputError, match="no user has both"):
        TripletSampler(InteractionSplit(2, 2, train, None, train[:, :0]), Layout(8), by)


def uniformity(drawn, among):
    """The p-value of the hypothesis that ``drawn`` is uniform among ``among``."""
    count = Counter(drawn)
    assert set(count) <= set(among)
    return chisquare([count[value] for value in among]).pvalue


def test_users_positives_and_negatives_are_uniform(split):
    triplets = TripletSampler(split, Layout(8)).sample(60_000, generator(1)).t().tolist()
    assert uniformity([user for user, _, _ in triplets], ELIGIBLE) > 0.001
    for eligible in ELIGIBLE:
        own = [triplet for triplet in triplets if triplet[0] == eligible]
        if len(LIKED[eligible]) > 1:
            assert uniformity([positive for _, positive, _ in own], LIKED[eligible]) > 0.001
        if len(LACKED[eligible]) > 1:
            assert uniformity([negative for _, _, negative in own], LACKED[eligible]) > 0.001


def test_positives_and_negatives_are_independent(split):
    triplets = TripletSampler(split, Layout(8)).sample(60_000, generator(2)).t().tolist()
    own = [(positive, negative) for user, positive, negative in triplets if user == 4]
    among = [(positive, negative) for positive in LIKED[4] for negative in LACKED[4]]
    assert uniformity(own, among) > 0.001


def test_by_edge_interactions_are_uniform_and_so_are_the_negatives_of_each(split):
    triplets = TripletSampler(split, Layout(8), "edge").sample(60_000, generator(3)).t().tolist()
    edges = [(user, item) for user in ELIGIBLE for item in LIKED[user]]
    assert uniformity([(user, positive) for user, positive, _ in triplets], edges) > 0.001
    own = [(positive, negative) for user, positive, negative in triplets if user == 4]
    among = [(positive, negative) for positive in LIKED[4] for negative in LACKED[4]]
    assert uniformity(own, among) > 0.001


def test_by_user_and_by_edge_differ(split):
    """Each is far from uniform in what the other draws uniformly."""
    user, positive, _ = TripletSampler(split, Layout(8)).sample(60_000, generator(4))
    edges = [(user, item) for user in ELIGIBLE for item in LIKED[user]]
    drawn = list(zip(user.tolist(), positive.tolist(), strict=True))
    assert uniformity(drawn, edges) < 0.001
    user, _, _ = TripletSampler(split, Layout(8), "edge").sample(60_000, generator(4))
    assert uniformity(user.tolist(), ELIGIBLE) < 0.001


@pytest.mark.parametrize("by", POOLS)
def test_several_negatives_are_uniform_and_independent(split, by):
    user, _, *negatives = TripletSampler(split, Layout(8, 3), by).sample(60_000, generator(5))
    triples = torch.stack(negatives)[:, user == 4].t().tolist()
    among = list(itertools.product(LACKED[4], repeat=3))
    assert uniformity([tuple(triple) for triple in triples], among) > 0.001


@pytest.mark.parametrize("by", ["item", "edge"])
def test_shared_negatives_are_uniform_over_items_or_interactions(split, by):
    layout = Layout(8, negatives=0, shared=20_000)
    batches = TripletSampler(split, layout, negatives_by=by).epoch(generator(2))
    drawn = torch.cat([layout.split(batch).shared for batch in batches]).tolist()
    edges = [item for items in LIKED.values() for item in items]
    if by == "item":
        assert uniformity(drawn, list(range(NUM_ITEMS))) > 0.001
        return
    count, expected = Counter(drawn), Counter(edges)
    share = len(drawn) / len(edges)
    found = [count[item] for item in range(NUM_ITEMS)]
    assert chisquare(found, [expected[item] * share for item in range(NUM_ITEMS)]).pvalue > 0.001
    assert uniformity(drawn, list(range(NUM_ITEMS))) < 0.001


def test_how_shared_negatives_are_drawn_is_refused_where_there_are_none(split):
    with pytest.raises(InputError, match="`loss=bpr` has none: leave it out, or take sampled-soft"):
        LOSSES["bpr"].layout(TrainConfig(negatives_by="edge"))
    assert LOSSES["ccl"].layout(TrainConfig(loss="ccl", negatives_by="edge")).shared == 1024


def test_the_uniformity_test_notices_a_biased_negative(split, monkeypatch):
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: draw(*args, **kwargs) ** 1.1)
    user, _, negative = TripletSampler(split, Layout(8)).sample(60_000, generator(1))
    assert uniformity(negative[user == 0].tolist(), LACKED[0]) < 0.001


@pytest.mark.parametrize("negatives", [0, 1, 5])
@pytest.mark.parametrize("by", POOLS)
@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 1000])
def test_an_epoch_has_as_many_full_batches_as_cover_the_train_edges(
    split, batch_size, by, negatives
):
    layout = Layout(batch_size, negatives)
    batches = list(TripletSampler(split, layout, by).epoch(generator()))
    assert len(batches) == -(-split.train.size(1) // batch_size)
    for batch in batches:
        assert batch.shape == ((2 + negatives) * batch_size,)
        assert batch.dtype == torch.int64


def epoch_triplets(split, seed):
    return torch.cat(list(TripletSampler(split, Layout(4)).epoch(generator(seed))))


def test_an_epoch_repeats_with_its_seed_and_only_with_it(split):
    assert torch.equal(epoch_triplets(split, 5), epoch_triplets(split, 5))
    assert not torch.equal(epoch_triplets(split, 5), epoch_triplets(split, 6))


@pytest.mark.parametrize("block", [1, 12, 23, 24, 25, 10_000])
def test_drawing_in_blocks_leaves_the_batches_as_many_and_as_large(split, monkeypatch, block):
    sampler = TripletSampler(split, Layout(4))
    monkeypatch.setattr(sampling, "BLOCK", block)
    batches = list(sampler.epoch(generator()))
    assert len(batches) == sampler.steps
    assert all(batch.shape == (12,) for batch in batches)


@pytest.mark.parametrize("negatives", [0, 1, 2])
def test_a_block_is_all_that_is_drawn_at_once(split, monkeypatch, negatives):
    sampler = TripletSampler(split, Layout(4, negatives))
    draw, sizes = sampler.sample, []
    monkeypatch.setattr(sampling, "BLOCK", 9 * (2 + negatives))
    monkeypatch.setattr(
        sampler, "sample", lambda size, *rest: sizes.append(size) or draw(size, *rest)
    )
    list(sampler.epoch(generator()))
    assert sizes == [8, 8, 8, 8]


def test_a_graph_too_large_for_a_dense_matrix_is_sampled():
    num_users = num_items = 200_000
    user = torch.arange(num_users).repeat_interleave(2)
    item = (user * 7919 + torch.tensor([0, 1]).repeat(num_users)) % num_items
    train = torch.stack([user, item])[:, (user * num_items + item).argsort()]
    split = InteractionSplit(num_users, num_items, train, None, train[:, :0])
    user, positive, negative = TripletSampler(split, Layout(8)).sample(10_000, generator())
    known = train[0] * num_items + train[1]
    assert torch.isin(user * num_items + positive, known).all()
    assert not torch.isin(user * num_items + negative, known).any()


@pytest.mark.skipif(kernels.library() is None, reason="the kernels are not compiled")
@pytest.mark.parametrize("negatives", [0, 1, 4])
@pytest.mark.parametrize("by", POOLS)
@pytest.mark.parametrize("seed", range(3))
def test_both_ways_draw_the_same_batches(seed, by, negatives):
    sampler = TripletSampler(random_split(seed)[0], Layout(1, negatives), by)
    uniform = torch.rand(2 + negatives, 5000, dtype=torch.float64)
    assert torch.equal(sampler._native(uniform), sampler._plain(uniform))


@pytest.mark.parametrize("block", [1, 10_000])
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_an_epoch_of_disjoint_parts_has_every_interaction_once(split, parts, block, monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK", block)
    sampler = TripletSampler(split, Layout(2), "edge", parts=parts)
    source, user = generator(), split.train[0]
    found, steps = sampler.parts(source), 0
    able = [edge for edge in range(user.numel()) if int(user[edge]) in ELIGIBLE]
    assert sorted(torch.cat(found).tolist()) == able
    assert torch.cat(found).tolist() != able
    sizes = [edges.numel() for edges in found]
    assert max(sizes) - min(sizes) <= 1
    for edges in found:
        batches = torch.stack(list(sampler.epoch(source, edges))).view(-1, 3, 2).transpose(0, 1)
        users, positives, negatives = batches.flatten(1).tolist()
        pairs = split.train[:, edges].t().tolist()
        pairs += pairs[: -len(pairs) % 2]
        assert [list(pair) for pair in zip(users, positives, strict=True)] == pairs
        assert all(no in LACKED[user] for user, no in zip(users, negatives, strict=True))
        steps += len(users) // 2
    assert steps == sampler.steps
    again = sampler.parts(generator(1))
    assert [edges.tolist() for edges in again] != [edges.tolist() for edges in found]


def test_more_parts_than_interactions_are_an_error(split):
    with pytest.raises(InputError, match=r"`disjoint_parts=21`: there are 20 train interactions"):
        TripletSampler(split, Layout(2), "edge", parts=21)


@pytest.mark.parametrize(("negatives", "shared"), [(0, 5), (2, 3), (1, 0)])
def test_a_layout_splits_a_batch_into_the_parts_that_it_was_made_of(negatives, shared):
    layout = Layout(4, negatives, shared)
    rows = torch.randn(layout.size, 3)
    parts = layout.split(rows)
    assert parts.user.shape == parts.positive.shape == (4, 3)
    assert parts.negative.shape == (negatives, 4, 3)
    assert parts.shared.shape == (shared, 3)
    assert torch.equal(torch.cat([part.reshape(-1, 3) for part in parts]), rows)


def test_the_pairs_of_a_batch_are_those_of_the_draw(split, monkeypatch):
    drawn = TripletSampler(split, Layout(4, 2)).sample(4 * 3, generator())
    monkeypatch.setattr(sampling, "BLOCK", 3 * 16)  # so that the first three are drawn together
    batches = TripletSampler(split, Layout(4, 2)).epoch(generator())
    for place, batch in zip(range(0, 12, 4), batches, strict=False):
        assert torch.equal(batch.view(4, 4), drawn[:, place : place + 4])


def test_shared_negatives_are_uniform_over_all_items_and_new_in_every_batch(split):
    layout = Layout(2, 0, 5)
    sampler = TripletSampler(split, layout)
    batches = [batch for seed in range(500) for batch in sampler.epoch(generator(seed))]
    shared = [layout.split(batch).shared for batch in batches]
    assert uniformity(torch.cat(shared).tolist(), range(NUM_ITEMS)) > 0.001
    assert len({tuple(row.tolist()) for row in shared[: sampler.steps]}) > sampler.steps / 2


def test_shared_negatives_change_no_pair(split):
    """What is drawn for the pairs of the first block is the same with them and without."""
    alone = TripletSampler(split, Layout(4, 0)).epoch(generator())
    layout = Layout(4, 0, 6)
    for pairs, batch in zip(alone, TripletSampler(split, layout).epoch(generator()), strict=True):
        assert torch.equal(batch[:8], pairs)
