"""What each method does to masks and starts, on whole searches."""

import json
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pyg_lth import Callback, InputError, find_tickets
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery import evidence, rounds
from pyg_lth.lottery.gradients import loss_gradient
from pyg_lth.lottery.methods import METHODS
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning import selection
from pyg_lth.pruning.rotation import quartimax

NUM_USERS, NUM_ITEMS, DIM = 40, 30, 4


class Starts(Callback):
    """Keeps where each round starts and at what learning rates; and counts the other trainings."""

    def __init__(self):
        self.starts, self.benches, self.auxiliary = [], [], []

    def on_auxiliary_start(self, training, mask):
        self.auxiliary.append(training.progress.round)

    def on_round_start(self, training, mask):
        self.starts.append(training.model.embedding.weight.detach().clone())
        self.benches.append(training.problem)


def run(graph, config, folder, **more):
    heard = Starts()
    report = find_tickets(graph, config, run_dir=folder, callback=heard, **more)
    return report, heard


def mask_of(folder, round):
    return load_file(folder / f"round-{round:03d}" / "mask.safetensors")["mask"]


def best_of(folder, round):
    return load_file(folder / f"round-{round:03d}" / "best.safetensors")["embedding.weight"]


def theta0(folder):
    return load_file(folder / "theta0.safetensors")["embedding.weight"]


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_reinit_has_the_masks_of_imp_and_other_weights(small_graph, quick_config, tmp_path, model):
    imp, reinit = tmp_path / "imp", tmp_path / "reinit"
    run(small_graph, quick_config(model=model), imp)
    _, heard = run(small_graph, quick_config(model=model, method="reinit"), reinit)
    bound = math.sqrt(6 / (NUM_USERS + NUM_ITEMS + DIM))
    for round in range(1, 4):
        mask = mask_of(reinit, round)
        assert torch.equal(mask, mask_of(imp, round))
        start = heard.starts[round][mask]
        assert not torch.isin(start, theta0(reinit)).any()
        # Drawn as θ₀ is: uniform up to Xavier's bound.
        assert bound * 0.9 < start.abs().max() <= bound
    # The masks of rounds 2 and 3 take what imp trains in rounds 1 and 2.
    assert heard.auxiliary == [1, 2]


def test_narrow_keeps_the_first_columns_of_every_row(small_graph, quick_config, tmp_path):
    report, heard = run(small_graph, quick_config(method="narrow"), tmp_path)
    num_nodes = NUM_USERS + NUM_ITEMS
    for ticket in report.rounds:
        whole, rest = divmod(ticket.remaining, num_nodes)
        wanted = torch.zeros(num_nodes, DIM, dtype=torch.bool)
        wanted[:, :whole] = True
        wanted[num_nodes - rest :, whole] = rest > 0
        assert torch.equal(mask_of(tmp_path, ticket.round), wanted)
        assert torch.equal(heard.starts[ticket.round], theta0(tmp_path) * wanted)


def test_of_an_mf_that_ranks_by_cosine_rows_are_pruned_by_their_directions_and_how_often_they_come(
    small_graph, quick_config, tmp_path
):
    config = quick_config(method="oneshot", model="mf", loss="sampled-softmax", rounds=1)
    run(small_graph, config, tmp_path)
    split = InteractionSplit.from_data(small_graph).hold_out_validation(config.seed)
    of_users = torch.full((split.num_users,), split.train.size(1) / split.num_users)
    often = torch.cat([of_users, split.item_degree()]).sqrt()
    mask = mask_of(tmp_path, 1)
    share = F.normalize(best_of(tmp_path, 0), dim=1).abs() * often.unsqueeze(1)
    assert share[mask].min() >= share[~mask].max()


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_rotate_prunes_and_rewinds_in_another_basis(small_graph, quick_config, tmp_path, model):
    config = quick_config(method="rotate", model=model, max_epochs=2)
    _, heard = run(small_graph, config, tmp_path)
    basis = quartimax(best_of(tmp_path, 0))
    turned = (best_of(tmp_path, 0) @ basis).abs()
    for round in range(1, 4):
        mask = mask_of(tmp_path, round)
        assert turned[mask].min() >= turned[~mask].max()
        assert torch.equal(heard.starts[round], (theta0(tmp_path) @ basis) * mask)


def test_rotate_lr_rewind_goes_on_from_the_dense_table_in_another_basis(
    small_graph, quick_config, tmp_path
):
    _, heard = run(small_graph, quick_config(method="rotate-lr-rewind"), tmp_path)
    carried = best_of(tmp_path, 0) @ quartimax(best_of(tmp_path, 0))
    for round in range(1, 4):
        mask = mask_of(tmp_path, round)
        assert carried.abs()[mask].min() >= carried.abs()[~mask].max()
        assert torch.equal(heard.starts[round], carried * mask)
        carried = best_of(tmp_path, round)


@pytest.mark.parametrize("scope", ["joint", "user_item", "row"])
def test_shuffle_has_as_many_in_each_row_as_imp_elsewhere(
    small_graph, quick_config, tmp_path, scope
):
    imp, shuffle = tmp_path / "imp", tmp_path / "shuffle"
    run(small_graph, quick_config(scope=scope), imp)
    _, heard = run(small_graph, quick_config(scope=scope, method="shuffle"), shuffle)
    for round in range(1, 4):
        there, here = mask_of(imp, round), mask_of(shuffle, round)
        assert torch.equal(here.sum(dim=1), there.sum(dim=1))
        # Of all columns that it could be, about as often as chance has it.
        assert 0.3 < (here == there).float().mean() < 0.8
        assert torch.equal(heard.starts[round], theta0(shuffle) * here)
    assert heard.auxiliary == [1, 2]


@pytest.mark.parametrize("method", ["finetune", "lr-rewind"])
def test_weights_are_carried_on(small_graph, quick_config, tmp_path, method):
    _, heard = run(small_graph, quick_config(method=method), tmp_path)
    for round in range(1, 4):
        carried = best_of(tmp_path, round - 1) * mask_of(tmp_path, round)
        assert torch.equal(heard.starts[round], carried)


@pytest.mark.parametrize(("method", "goes_on"), [("finetune", True), ("lr-rewind", False)])
def test_the_learning_rate_goes_on_decaying_or_is_rewound(
    small_graph, quick_config, monkeypatch, method, goes_on
):
    rates = []
    build = rounds.Training._build_update

    def watched(training, mask):
        update = build(training, mask)
        set_rate = update.set_rate
        update.set_rate = lambda lr: rates.append((training.progress.round, lr)) or set_rate(lr)
        return update

    monkeypatch.setattr(rounds.Training, "_build_update", watched)
    config = quick_config(method=method, lr=0.1, lr_decay=0.5, rounds=2)
    report = find_tickets(small_graph, config)
    before = 0
    for result in [report.dense, *report.rounds]:
        of_round = [lr for round, lr in rates if round == result.round]
        first = before if goes_on else 0
        assert of_round == pytest.approx([0.1 * 0.5 ** (first + e) for e in range(result.epochs)])
        before += result.best_epoch


def test_without_decay_the_two_ways_to_carry_on_are_one(small_graph, quick_config):
    tickets = [
        [ticket.test for ticket in find_tickets(small_graph, quick_config(method=method)).rounds]
        for method in ("finetune", "lr-rewind")
    ]
    assert tickets[0] == tickets[1]


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_late_rewinding_restarts_from_that_epoch_of_the_dense_round(
    small_graph, quick_config, tmp_path, model, epoch
):
    seen = {}

    class Watch(Starts):
        def on_round_start(self, training, mask):
            super().on_round_start(training, mask)
            self.training = training

        def on_epoch(self, record):
            if record.round == 0:
                weight = self.training.model.embedding.weight
                seen[record.epoch] = weight.detach().clone()

    heard = Watch()
    config = quick_config(model=model, rewind_epoch=epoch)
    find_tickets(small_graph, config, run_dir=tmp_path, callback=heard)
    for round in range(1, 4):
        assert torch.equal(heard.starts[round], seen[epoch] * mask_of(tmp_path, round))


@pytest.mark.parametrize("method", ["reinit", "finetune", "lr-rewind"])
def test_late_rewinding_is_refused_where_nothing_is_rewound(small_graph, quick_config, method):
    with pytest.raises(InputError, match=f"`rewind_epoch` does not go with `method={method}`"):
        find_tickets(small_graph, quick_config(method=method, rewind_epoch=1))


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_snip_keeps_what_the_loss_would_miss_most(small_graph, quick_config, tmp_path, model):
    _, heard = run(small_graph, quick_config(model=model, method="snip", rounds=1), tmp_path)
    problem, weight = heard.benches[0], theta0(tmp_path)
    source = rounds.seeding.generator(0, "gradient", 1)
    scores = (weight * loss_gradient(problem, {TABLE: weight}, source)).abs()
    mask = mask_of(tmp_path, 1)
    assert scores[mask].min() >= scores[~mask].max()


def test_pep_keeps_what_lies_furthest_above_its_threshold(small_graph, quick_config, tmp_path):
    config = quick_config(method="pep", max_epochs=300, reg=0.5)
    report, heard = run(small_graph, config, tmp_path)
    assert heard.auxiliary == [0]  # One search finds the masks of all rounds.
    for ticket in report.rounds:
        kept = load_file(tmp_path / f"round-{ticket.round:03d}" / "auxiliary.safetensors")
        margin, mask = kept["embedding.weight"], mask_of(tmp_path, ticket.round)
        # The thresholds themselves had let no more live than the round keeps.
        assert (margin > 0).sum() <= ticket.remaining
        assert margin[mask].min() >= margin[~mask].max()


def test_pep_reaches_the_densities_that_its_thresholds_do_not(small_graph, quick_config, tmp_path):
    config = quick_config(method="pep", amount=0.1, rounds=4, max_epochs=100)
    report, heard = run(small_graph, config, tmp_path)
    assert heard.auxiliary == [0]
    assert report.ended is None
    assert [ticket.round for ticket in report.rounds] == list(range(1, 5))
    margins = [
        load_file(tmp_path / f"round-{round:03d}" / "auxiliary.safetensors")["embedding.weight"]
        for round in range(1, 5)
    ]
    above = [int((margin > 0).sum()) for margin in margins]
    reached = [count <= r.remaining for count, r in zip(above, report.rounds, strict=True)]
    # Both happened: thresholds that got there, and a ranking of what is above them at last.
    assert reached == sorted(reached, reverse=True)
    assert True in reached and False in reached
    last = margins[reached.index(False)]
    for ticket, margin in zip(report.rounds, margins, strict=True):
        mask = mask_of(tmp_path, ticket.round)
        assert margin[mask].min() >= margin[~mask].max()
        assert reached[ticket.round - 1] or torch.equal(margin, last)


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_dynamic_training_moves_its_mask_and_keeps_its_budget(
    small_graph, quick_config, tmp_path, model
):
    config = quick_config(model=model, method="dynamic", max_epochs=12, patience=6)
    report, heard = run(small_graph, config, tmp_path)
    for ticket in report.rounds:
        mask, start = mask_of(tmp_path, ticket.round), heard.starts[ticket.round]
        assert int(mask.sum()) == int(start.count_nonzero()) == ticket.remaining
        assert ticket.best_epoch == 1 or not torch.equal(mask, start != 0)
        assert best_of(tmp_path, ticket.round)[~mask].count_nonzero() == 0


def test_costs_count_the_trainings_that_a_ticket_needs(small_graph, quick_config):
    def costs(method):
        report = find_tickets(small_graph, quick_config(method=method))
        own = [result.seconds for result in [report.dense, *report.rounds]]
        return own, [ticket.cost_seconds for ticket in report.rounds]

    own, cost = costs("imp")
    assert cost == pytest.approx([sum(own[: round + 1]) for round in (1, 2, 3)])
    own, cost = costs("oneshot")
    assert cost == pytest.approx([own[0] + own[round] for round in (1, 2, 3)])
    own, cost = costs("random")
    assert cost == pytest.approx(own[1:])
    # What imp trains for its masks is counted, and is no round of reinit's own.
    own, cost = costs("reinit")
    assert cost[0] == pytest.approx(own[0] + own[1])
    assert cost[2] > own[0] + own[3]


def test_epochs_to_dense_are_those_until_as_good_on_validation(small_graph, quick_config, tmp_path):
    report, _ = run(small_graph, quick_config(max_epochs=8, eval_every=1, patience=9), tmp_path)
    epochs = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    for ticket in report.rounds:
        reached = [
            epoch["epoch"]
            for epoch in epochs
            if epoch["round"] == ticket.round
            and epoch["valid"]["recall@5"] >= report.dense.valid["recall@5"]
        ]
        assert ticket.epochs_to_dense == (reached[0] if reached else None)


@pytest.fixture
def other_run(small_graph, quick_config, tmp_path):
    folder = tmp_path / "other"
    find_tickets(small_graph, quick_config(rounds=2, seed=7), run_dir=folder)
    return folder


@pytest.mark.parametrize("settings", [{"model": "mf"}, {"loss": "softmax"}, {"method": "reinit"}])
def test_masks_are_taken_from_another_run(small_graph, quick_config, tmp_path, other_run, settings):
    folder = tmp_path / "own"
    config = quick_config(rounds=2, mask_from=str(other_run), **settings)
    report, heard = run(small_graph, config, folder)
    for round in (1, 2):
        assert torch.equal(mask_of(folder, round), mask_of(other_run, round))
    if "method" not in settings:
        assert torch.equal(heard.starts[2], theta0(folder) * mask_of(other_run, 2))
    assert report.rounds[1].cost_seconds > report.rounds[1].seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 3}, "has masks of 2 rounds"),
        ({"dim": 5}, "of another dimension; take `dim=4`, or another run"),
        ({"method": "dynamic"}, "does not go with `method=dynamic`"),
        ({"mask_from": "nowhere"}, "holds no run"),
    ],
)
def test_masks_that_do_not_fit_are_one_clear_line(
    small_graph, quick_config, tmp_path, other_run, settings, message
):
    config = quick_config(**{"rounds": 2, "mask_from": str(other_run), **settings})
    with pytest.raises(InputError, match=message) as error:
        find_tickets(small_graph, config, run_dir=tmp_path / "own")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "own" / "config.json").exists()


def test_masks_of_another_graph_are_refused(taste_graph, quick_config, other_run):
    with pytest.raises(InputError, match="of another graph"):
        find_tickets(taste_graph, quick_config(rounds=2, mask_from=str(other_run)))


@pytest.mark.parametrize("method", ["imp", "oneshot", "random", "snip", "reinit", "finetune"])
def test_every_round_prunes_once_from_where_its_method_says(
    small_graph, quick_config, monkeypatch, method
):
    living = []
    prune = selection.prune
    monkeypatch.setattr(
        selection,
        "prune",
        lambda scores, mask, *rest: living.append(mask.remaining) or prune(scores, mask, *rest),
    )
    report = find_tickets(small_graph, quick_config(method=method, rounds=2))
    source = METHODS[method].evidence
    cut = report.rounds[0].remaining if source in (evidence.previous, evidence.rewound) else 280
    # imp's first round, which is trained beside reinit's, is pruned beside it too.
    beside = [280] if source is evidence.rewound else []
    assert living == [280, *beside, cut]


def test_what_a_round_leaves_is_freed(small_graph, quick_config):
    class Watch(Callback):
        def __init__(self):
            self.tables = []

        def on_round_start(self, training, mask):
            assert [table() for table in self.tables] == [None] * len(self.tables)
            self.tables.append(weakref.ref(training.model.embedding))

    watch = Watch()
    find_tickets(small_graph, quick_config(), callback=watch)
    assert len(watch.tables) == 4
