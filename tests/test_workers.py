"""Any number of workers gives what one gives: bit for bit where that is promised."""

import gc
import json
import os

import pytest
import torch

from pyg_lth import InputError, find_tickets, train
from pyg_lth.errors import WorkerLost
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.pruning import selection
from pyg_lth.pruning.masks import Mask, budgets
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training
from pyg_lth.workers import ALONE, Workers
from tests.crew import run_crew

SCOPES = ("joint", "user", "item", "user_item", "row")
LOSSES = ("bpr", "softmax", "corrected-softmax", "sampled-softmax", "ccl")
NUM_USERS, NUM_ITEMS, DIM, ROUNDS = 37, 23, 5, 2
CPU = torch.device("cpu")


def tied_scores():
    """Scores of which many are equal, some are zero, and the mask they are among."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(NUM_USERS + NUM_ITEMS, DIM, generator=generator)
    return (scores * 2).round() / 2, Mask(torch.rand(scores.shape, generator=generator) < 0.9)


def masks_of(workers):
    """What is kept of a table in many steps, under every scope."""
    scores, mask = tied_scores()
    own = workers.share(DIM)
    found = []
    for scope in SCOPES:
        for rounds in (2, 5, 9):
            kept = budgets(scope, NUM_USERS, scores.shape, 0.19, rounds)
            alive = torch.ones_like(mask.table) if scope == "row" else mask.table
            part = Mask(alive[:, own].contiguous())
            found.append(selection.prune(scores[:, own].contiguous(), part, kept, workers).table)
    return found


def losses_of(workers, split, quick_config):
    """Every loss, its gradient by the table, and the sum of both parts of the loss."""
    found = {}
    for loss in LOSSES:
        config = quick_config(dim=DIM, loss=loss, reg=0.1, lr=0.01)
        problem = Problem.prepare(split, config, CPU, workers)
        start = problem.initialize()
        # Rows as pruning leaves some, and one of the batch at zero.
        start["embedding.weight"][3:9] = 0
        training = Training(problem, start, Mask(start["embedding.weight"] != 0), round=1)
        source = torch.Generator().manual_seed(3)
        value = sum(training.step(batch) for batch in problem.sampler.epoch(source))
        state = training.tensors()
        found[loss] = float(value), state["weight"], state["optimizer.weight.exp_avg"]
    return found


def primitives_of(workers):
    table = torch.arange(24.0).view(6, 4)
    own = [torch.arange(2)[workers.share(2, rank)] for rank in range(workers.size)]
    rows, common = workers.rows(table[:, workers.share(4)], own, slice(4, 6))
    return rows, common, workers.texts("ä" * workers.rank), workers.first_first(lambda: 7)


def everything(workers, graph, split, quick_config, folder):
    gc.freeze()
    searches = {}
    for name, settings in searches_of(quick_config, folder).items():
        run = folder / f"{name}-{workers.size}"
        searches[name] = find_tickets(graph, settings, run_dir=run, workers=workers).to_json()
    problem = Problem.prepare(split, quick_config(dim=DIM), CPU, workers)
    return {
        "primitives": primitives_of(workers),
        "initial": problem.initialize()["embedding.weight"],
        "masks": masks_of(workers),
        "losses": losses_of(workers, split, quick_config),
        "searches": searches,
    }


def searches_of(quick_config, folder):
    few = {"dim": DIM, "rounds": ROUNDS, "batch_size": 128}
    # With one entry left in a row, its cosines do not depend on it: what is left of its gradient is
    # rounding, which Adam makes as large as any other. So fewer are pruned there.
    softmax = {**few, "loss": "sampled-softmax", "negatives": 16, "amount": 0.1}
    return {
        "lightgcn-bpr": quick_config(**few, distill=0.5),
        "mf-bpr": quick_config(**few, model="mf", select_by="ndcg", scope="user_item"),
        "lightgcn-softmax": quick_config(**softmax),
        "mf-softmax": quick_config(
            **softmax, model="mf", rewind_epoch=1, popularity=0.5, distill=0.9
        ),
        "mf-taught": quick_config(**few, model="mf", teacher=str(folder / "teacher")),
    }


NAMES = ["lightgcn-bpr", "mf-bpr", "lightgcn-softmax", "mf-softmax", "mf-taught"]


@pytest.fixture(scope="module")
def crews(small_graph, make_split, quick_config, tmp_path_factory):
    """What one worker finds, and what each of two, three and four does."""
    folder = tmp_path_factory.mktemp("runs")
    store = small_graph["user", "rates", "item"]
    split = make_split(40, 30, store.edge_index, store.edge_label_index, store.val_edge_label_index)
    given = (small_graph, split, quick_config, folder)
    train(small_graph, quick_config(dim=DIM + 3), run_dir=folder / "teacher")
    found = {size: run_crew(size, everything, *given) for size in (2, 3, 4)}
    return {1: [everything(ALONE, *given)], **found}, folder


def side_by_side(parts):
    return torch.cat(list(parts), dim=1)


SIZES = pytest.mark.parametrize("size", [2, 3, 4])


def test_columns_are_shared_out_nearly_evenly():
    for count in range(20):
        for size in range(1, 7):
            group = Workers(size=size)
            shares = [group.share(count, rank) for rank in range(size)]
            assert [i for s in shares for i in range(s.start, s.stop)] == list(range(count))
            widths = [share.stop - share.start for share in shares]
            assert max(widths) - min(widths) <= 1


@SIZES
def test_what_workers_tell_each_other_arrives(crews, size):
    table = torch.arange(24.0).view(6, 4)
    found = [worker["primitives"] for worker in crews[0][size]]
    assert torch.equal(torch.cat([rows for rows, *_ in found]), table[:2])
    for _, common, texts, seven in found:
        assert torch.equal(common, table[4:])
        assert texts == ["ä" * rank for rank in range(size)]
        assert seven == 7


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_theta_0_is_what_torch_draws_whoever_draws_it(crews, quick_config, size):
    from pyg_lth import seeding

    whole = torch.nn.init.xavier_uniform_(
        torch.empty(70, DIM), generator=seeding.generator(0, "initialization")
    )
    assert torch.equal(side_by_side(worker["initial"] for worker in crews[0][size]), whole)


@SIZES
def test_masks_are_those_of_one_worker_bit_for_bit(crews, size):
    (alone,), together = crews[0][1], crews[0][size]
    for number, expected in enumerate(alone["masks"]):
        assert torch.equal(side_by_side(w["masks"][number] for w in together), expected)


@SIZES
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_those_of_one_worker(crews, size, loss):
    value, weight, mean = crews[0][1][0]["losses"][loss]
    found = [worker["losses"][loss] for worker in crews[0][size]]
    assert sum(part for part, *_ in found) == pytest.approx(value, rel=1e-5)
    assert torch.allclose(side_by_side(w for _, w, _ in found), weight, atol=1e-5)
    assert torch.allclose(side_by_side(m for *_, m in found), mean, atol=1e-5)


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@SIZES
@pytest.mark.parametrize("name", NAMES)
def test_a_search_is_that_of_one_worker(crews, size, name):
    found, folder = crews
    alone, *reports = (
        without_times(json.loads(worker["searches"][name])) for worker in found[1] + found[size]
    )
    assert all(report == reports[0] for report in reports)
    assert reports[0]["config"] == alone["config"]
    for one, many in zip(
        [alone["dense"], *alone["rounds"]],
        [reports[0]["dense"], *reports[0]["rounds"]],
        strict=True,
    ):
        assert many["remaining"] == one["remaining"]
        assert many["density"] == one["density"]
        assert many["best_epoch"] == one["best_epoch"]
        assert many["test"] == pytest.approx(one["test"], abs=1e-5)
        assert many["valid"] == pytest.approx(one["valid"], abs=1e-5)
        assert many["beyond"] == pytest.approx(one["beyond"], abs=1e-5)
        for key, value in one["analysis"].items():
            if "density" in key:
                assert many["analysis"][key] == value
    # A single process reads the tables of several.
    one, many = RunFolder(folder / f"{name}-1"), RunFolder(folder / f"{name}-{size}")
    assert not many.check()
    for round in range(ROUNDS + 1):
        (mask, weight), (expected, table) = many.read_round(round), one.read_round(round)
        assert mask == expected
        assert torch.allclose(weight, table, atol=1e-5)
    losses = [[r.loss for r in folder.read_epochs(ROUNDS + 1)] for folder in (one, many)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


class Stop(Exception):
    pass


def leave_in_round_2(workers, graph, config, run):
    """Save the state in the middle of the second round, then fall over."""
    from pyg_lth import Callback

    class Stopper(Callback):
        def on_epoch(self, record):
            if (record.round, record.epoch) == (2, 3):
                raise Stop

    gc.freeze()
    with pytest.raises(Stop):
        find_tickets(
            graph, config, run_dir=run, workers=workers, callback=Stopper(), checkpoint_seconds=0
        )


def go_on(workers, graph, run):
    gc.freeze()
    return find_tickets(graph, run_dir=run, resume=True, workers=workers).to_json()


@pytest.mark.filterwarnings("ignore::pyg_lth.errors.RunWarning")
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_a_run_goes_on_with_another_number_of_workers(
    crews, small_graph, quick_config, tmp_path, model, before, after
):
    config = searches_of(quick_config, tmp_path)[f"{model}-bpr"]
    run = tmp_path / "run"
    for size, function, given in (
        (before, leave_in_round_2, (small_graph, config, run)),
        (after, go_on, (small_graph, run)),
    ):
        if size == 1:
            report = function(ALONE, *given)
        else:
            (report, *_) = run_crew(size, function, *given)
    expected, _ = crews[0][1][0]["searches"][f"{model}-bpr"], crews[1]
    one, many = json.loads(expected), json.loads(report)
    for ticket, other in zip(one["rounds"], many["rounds"], strict=True):
        assert other["test"] == pytest.approx(ticket["test"], abs=1e-5)
    alone = RunFolder(crews[1] / f"{model}-bpr-1")
    assert all(RunFolder(run).read_round(r)[0] == alone.read_round(r)[0] for r in range(ROUNDS + 1))
    assert not RunFolder(run).check()
    # Nothing is left of tables that were split otherwise.
    assert len(list(run.glob("round-002/best.*.safetensors"))) == (0 if after == 1 else after)


def lose_the_last(workers):
    if workers.rank == workers.size - 1:
        os._exit(9)
    with pytest.raises(WorkerLost, match="lost the connection"):
        workers.sum(torch.ones(1))
    return "noticed"


def test_a_worker_that_ends_is_noticed_by_the_others():
    with pytest.raises(AssertionError, match="ended without a word"):
        run_crew(3, lose_the_last)


def ask(workers):
    """The second worker wants to stop; all hear of it after the same step."""
    for step in range(10_000):
        if most := workers.most(2 * (workers.rank == 1 and step > 5)):
            return step, most
    return None


def test_all_stop_after_the_same_step():
    first, *others = run_crew(3, ask)
    assert first is not None
    assert first[1] == 2
    assert all(other == first for other in others)


def test_a_damaged_part_is_named(crews, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(crews[1] / "lightgcn-bpr-2", run)
    part = next((run / "round-002").glob("best.*.safetensors"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    (damaged,) = RunFolder(run).check()
    assert damaged.path.name == "best.safetensors"
    assert part.name in str(damaged)
    part.unlink()
    (damaged,) = RunFolder(run).check()
    assert part.name in str(damaged)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dim": 3}, "cannot share a table of 3 columns"),
        ({"method": "pep"}, "`method=pep` does not go with `workers=4`"),
        ({"method": "random"}, "imp, oneshot"),
    ],
)
def test_what_cannot_be_split_is_refused_before_anything_is_written(
    small_graph, quick_config, tmp_path, settings, reason
):
    group = Workers(size=4)
    with pytest.raises(InputError, match=reason):
        find_tickets(small_graph, quick_config(**settings), run_dir=tmp_path / "run", workers=group)
    assert not (tmp_path / "run").exists()


def test_fewer_users_than_workers_are_ranked(make_split):
    split = make_split(2, 6, [(0, 0), (1, 1)], [(0, 2), (1, 3)])
    embedding = torch.randn(8, 4)
    expected = Evaluator(split, "test", 3)(embedding)

    found = run_crew(3, rank_columns, split, embedding)
    assert all(metrics == expected for metrics in found)


def rank_columns(workers, split, embedding):
    return Evaluator(split, "test", 3, workers)(embedding[:, workers.share(4)])
