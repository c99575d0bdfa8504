import shutil

import pytest
import torch
from torch_geometric.nn import LightGCN

from pyg_lth import find_tickets, train
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.callbacks import Callback
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training

CPU = torch.device("cpu")


class Stopped(Exception):
    pass


class StopsIn(Callback):
    """Ends a run in a round, after its first epoch."""

    def __init__(self, round):
        self.round = round

    def on_epoch(self, record):
        if record.round == self.round:
            raise Stopped


@pytest.fixture(scope="module")
def other_run(small_graph, quick_config, tmp_path_factory):
    """A LightGCN of other dimensions than those it teaches, refit too."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(small_graph, quick_config(dim=6, layers=2, refit=True), run_dir=folder)
    return folder


def taught_config(quick_config, teacher, **changes):
    return quick_config(rounds=1, amount=0.5, model="mf", teacher=str(teacher), **changes)


def scores_of(split, weights):
    """What PyG's own LightGCN makes of a teacher's weights."""
    model = LightGCN(split.num_users + split.num_items, 6, num_layers=2)
    model.load_state_dict({**model.state_dict(), **weights})
    with torch.no_grad():
        return model.get_embedding(split.joint_edge_index())


def test_every_round_learns_from_the_teacher_and_refit_ones_from_the_refit(
    small_graph, quick_config, tmp_path, other_run
):
    config = taught_config(quick_config, other_run, tolerance=0.9, refit=True)
    report = find_tickets(small_graph, config, run_dir=tmp_path)
    folder, teacher = RunFolder(tmp_path), RunFolder(other_run)
    problem = Problem.prepare(InteractionSplit.from_data(small_graph), config, CPU)
    for kept, by, untaught in (
        (folder, teacher, problem),
        (folder.of_refit(), teacher.of_refit(), problem.with_validation()),
    ):
        taught = untaught.taught_by(by.read_weights(0), teacher.read_settings())
        expected = scores_of(taught.split, by.read_weights(0))
        assert torch.allclose(taught.teacher, expected, atol=1e-6)
        for round, refit in enumerate((report.refit.dense, report.refit.ticket)):
            epochs = refit.epochs if kept is not folder else None
            mask = folder.read_round(round)[0]
            training = Training(taught, folder.read_initial(), mask, round, epochs=epochs)
            training.run()
            for name, value in kept.read_weights(round).items():
                assert torch.equal(value, training.best_weights[name])


def test_without_a_refit_of_its_own_the_teacher_teaches_as_it_is(
    small_graph, quick_config, tmp_path, other_run
):
    bare = tmp_path / "bare"
    shutil.copytree(other_run, bare)
    shutil.rmtree(bare / "refit")
    found = {}
    for name, teacher in (("bare", bare), ("whole", other_run)):
        config = taught_config(quick_config, teacher, tolerance=0.9, refit=True)
        find_tickets(small_graph, config, run_dir=tmp_path / f"of-{name}")
        found[name] = RunFolder(tmp_path / f"of-{name}")
    table = "embedding.weight"
    assert torch.equal(found["bare"].read_weights(0)[table], found["whole"].read_weights(0)[table])
    refits = [folder.of_refit().read_weights(0)[table] for folder in found.values()]
    assert not torch.equal(*refits)


def test_what_is_learned_depends_on_the_share(small_graph, quick_config, tmp_path, other_run):
    tables = []
    for share in (0.5, 1.0):
        config = taught_config(quick_config, other_run, distill=share)
        run_dir = tmp_path / str(share)
        train(small_graph, config, run_dir=run_dir)
        tables.append(RunFolder(run_dir).read_weights(0)["embedding.weight"])
    assert not torch.equal(*tables)


def test_each_seed_has_the_teacher_of_its_own(small_graph, quick_config, tmp_path):
    teacher = tmp_path / "teacher"
    find_tickets(small_graph, quick_config(rounds=0, seeds=3), run_dir=teacher)
    config = taught_config(quick_config, teacher, seed=1)
    find_tickets(small_graph, config, run_dir=tmp_path / "one")
    both = config.model_copy(update={"seeds": 2})
    find_tickets(small_graph, both, run_dir=tmp_path / "two")
    name = "embedding.weight"
    alone = RunFolder(tmp_path / "one").read_weights(0)[name]
    first, second = (RunFolder(tmp_path / "two").of_seed(seed) for seed in (1, 2))
    assert torch.equal(first.read_weights(0)[name], alone)
    # The second learned from the third run of the teacher's.
    problem = Problem.prepare(
        InteractionSplit.from_data(small_graph), config.model_copy(update={"seed": 2}), CPU
    )
    own = RunFolder(teacher).of_seed(2)
    taught = problem.taught_by(own.read_weights(0), own.read_settings())
    training = Training(taught, second.read_initial(), second.read_round(0)[0], 0)
    training.run()
    assert torch.equal(training.best_weights[name], second.read_weights(0)[name])


def test_a_run_that_goes_on_finds_its_teacher_where_it_was_begun(
    small_graph, quick_config, tmp_path, monkeypatch, other_run
):
    shutil.copytree(other_run, tmp_path / "teacher")
    config = taught_config(quick_config, "teacher")
    monkeypatch.chdir(tmp_path)
    whole = find_tickets(small_graph, config, run_dir="whole")
    with pytest.raises(Stopped):
        find_tickets(small_graph, config, run_dir="cut", callback=StopsIn(1))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = find_tickets(run_dir="../cut", resume=True)
    assert resumed.rounds[0].test == whole.rounds[0].test


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "sampled-softmax"}, "trained with `loss=bpr`.*with `loss=sampled-softmax`"),
        ({"temperature": 0.2}, "trained with `temperature=0.1`"),
        ({"seed": 1}, "has no `seed=1`.*validates with: take the same seeds"),
        ({"seeds": 2}, "has no `seed=1`.*validates with: take the same seeds"),
        ({"loss": "softmax"}, "`distill=0.9` does not go with `loss=softmax`"),
        ({"teacher": "nowhere"}, "holds no run"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_clear_line(
    small_graph, quick_config, tmp_path, other_run, settings, message
):
    config = taught_config(quick_config, **{"teacher": other_run, **settings})
    with pytest.raises(InputError, match=message) as error:
        find_tickets(small_graph, config, run_dir=tmp_path / "own")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "own").exists()


def test_a_teacher_of_another_graph_is_refused(taste_graph, quick_config, other_run):
    with pytest.raises(InputError, match="of another graph: take a run on the same data set"):
        find_tickets(taste_graph, taught_config(quick_config, other_run))


def test_what_was_chosen_on_test_teaches_nobody_who_is_judged_on_it(
    small_graph, quick_config, tmp_path
):
    teacher = tmp_path / "teacher"
    train(small_graph, quick_config(select_on="test"), run_dir=teacher)
    with pytest.raises(InputError, match=r"chosen on test.*`select_on=valid`"):
        find_tickets(small_graph, taught_config(quick_config, teacher))
    find_tickets(small_graph, taught_config(quick_config, teacher, select_on="test"))


def test_a_teacher_that_is_not_done_is_waited_for(small_graph, quick_config, tmp_path):
    teacher = tmp_path / "teacher"
    with pytest.raises(Stopped):
        train(small_graph, quick_config(), run_dir=teacher, callback=StopsIn(0))
    with pytest.raises(InputError, match="has no dense model yet: wait for it, or `resume` it"):
        find_tickets(small_graph, taught_config(quick_config, teacher))
