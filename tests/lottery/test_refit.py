import shutil

import pytest
import torch

from pyg_lth import Callback, find_tickets
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.pruning.masks import Mask
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.results.text import refit, to_markdown
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training


def settings(quick_config, **changes):
    return quick_config(rounds=2, tolerance=0.9, refit=True, **changes)


@pytest.fixture(scope="module")
def finished(small_graph, quick_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refit") / "run"
    return folder, find_tickets(small_graph, settings(quick_config), run_dir=folder)


def test_validation_given_back_makes_the_train_part_whole_and_sorted(small_graph):
    split = InteractionSplit.from_data(small_graph)
    whole = split.with_validation()
    pairs = [set(zip(*part.tolist(), strict=True)) for part in (split.train, split.valid)]
    assert set(zip(*whole.train.tolist(), strict=True)) == pairs[0] | pairs[1]
    keys = whole.train[0] * split.num_items + whole.train[1]
    assert (keys.diff() > 0).all()
    assert whole.valid is None
    assert torch.equal(whole.test, split.test)
    assert whole.with_validation() is whole


def test_dense_and_winner_train_on_all_for_the_epochs_that_validation_chose(
    small_graph, quick_config, finished
):
    folder, report = finished
    config = settings(quick_config)
    winner = report.ticket(report.winner)
    found = report.refit
    assert (found.dense.epochs, found.ticket.epochs) == (report.dense.best_epoch, winner.best_epoch)
    assert (found.ticket.round, found.ticket.remaining) == (winner.round, winner.remaining)
    split = InteractionSplit.from_data(small_graph)
    on_all = config.model_copy(update={"select_on": "test"})
    problem = Problem.prepare(split.with_validation(), on_all, torch.device("cpu"))
    for result, mask in (
        (found.dense, Mask.ones(70, 4)),
        (found.ticket, RunFolder(folder).read_round(winner.round)[0]),
    ):
        initial = RunFolder(folder).read_initial()
        training = Training(problem, initial, mask, result.round, epochs=result.epochs)
        training.run()
        # What was seen is left out of the lists, validation too.
        expected = Evaluator(split, "test", 5)(training.best_embedding())
        assert result.test == pytest.approx(expected, abs=1e-7)
        kept = RunFolder(folder).of_refit().read_round(result.round)
        assert torch.equal(kept[0].table, mask.table)
        assert torch.equal(kept[1], next(iter(training.best_weights.values())))
    assert found.dense.difference is None
    relative = found.ticket.test["recall@5"] / found.dense.test["recall@5"] - 1
    assert found.ticket.difference.relative == pytest.approx(relative, abs=1e-6)


def test_the_report_says_it(finished):
    folder, report = finished
    text = refit(report)
    assert text.startswith("Refit on train and validation, test: dense recall@5 ")
    assert text in to_markdown(report)
    assert RunFolder(folder).read_report() == report
    assert not list((folder / "refit").rglob("training.safetensors"))
    assert refit(report.model_copy(update={"refit": None})) == ""


class Stop(Exception):
    pass


class StopInRefit(Callback):
    """Breaks off in the middle of an epoch of the refit of a round."""

    def __init__(self, which):
        self._which = which

    def on_refit_start(self, training, mask):
        step = training.step

        def step_or_stop(batch):
            progress = training.progress
            if (progress.round > 0, progress.step) == (self._which, 3):
                raise Stop
            return step(batch)

        training.step = step_or_stop


@pytest.mark.parametrize("which", [False, True], ids=["dense", "winner"])
def test_a_run_killed_in_its_refit_goes_on_bit_for_bit(
    small_graph, quick_config, finished, tmp_path, which
):
    folder, report = finished
    config = settings(quick_config)
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "refit")
    run = {"run_dir": tmp_path / "run", "resume": True, "checkpoint_seconds": 0}
    with pytest.raises(Stop):
        find_tickets(small_graph, config, callback=StopInRefit(which), **run)
    again = find_tickets(small_graph, config, **run)
    assert again.refit.dense.test == report.refit.dense.test
    assert again.refit.ticket.test == report.refit.ticket.test
    for round in (0, report.refit.ticket.round):
        tables = [RunFolder(f).of_refit().read_round(round)[1] for f in (folder, tmp_path / "run")]
        assert torch.equal(*tables)


def test_of_several_seeds_the_common_winner_is_refit(small_graph, quick_config, tmp_path):
    report = find_tickets(small_graph, settings(quick_config, seeds=2), run_dir=tmp_path / "run")
    found = report.refit
    seeds = [RunFolder(tmp_path / "run" / f"seed-{seed}").of_refit() for seed in (0, 1)]
    results = [seed.read_result(0) for seed in seeds]
    mean = sum(result.test["recall@5"] for result in results) / 2
    assert found.dense.test["recall@5"] == pytest.approx(mean)
    if report.winner is None:
        assert found.ticket is None
        assert "no ticket, since none wins" in refit(report)
    else:
        assert found.ticket.round == report.winner.round


def test_without_tickets_dense_alone_is_refit(small_graph, quick_config):
    from pyg_lth import TrainConfig, train

    config = settings(quick_config)
    plain = TrainConfig(**config.model_dump(include=set(TrainConfig.model_fields)))
    report = train(small_graph, plain)
    assert report.refit.ticket is None
    assert refit(report).endswith(f"after {report.dense.best_epoch} epochs.")
