import dataclasses

import pytest
import torch

from pyg_lth import find_tickets
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import build_backbone
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training

KINDS = [
    {"model": "mf"},
    {"model": "lightgcn", "negatives": 2},
    {"model": "mf", "loss": "sampled-softmax", "popularity": 1.0, "negatives_by": "edge"},
    {
        **{"model": "lightgcn", "loss": "sampled-softmax", "disjoint_parts": 2},
        **{"batch_by": "edge", "first_layer": 1},
    },
]


def settings(quick_config, **changes):
    return quick_config(rounds=1, amount=0.6, tolerance=0.9, distill=0.7, **changes)


def trained(config, split, folder, round, of_dense):
    problem = Problem.prepare(split, config, torch.device("cpu"))
    if round:
        model = build_backbone(config, of_dense, torch.device("cpu"))
        teacher = model.get_embedding(problem.propagation).detach()
        problem = dataclasses.replace(problem, teacher=teacher)
    kept, mask = folder.read_initial(), folder.read_round(round)[0]
    training = Training(problem, kept, mask, round)
    training.run()
    return training.best_weights


@pytest.mark.parametrize("kind", KINDS, ids=["mf", "lightgcn", "mf-softmax", "parts"])
def test_a_ticket_learns_from_the_dense_round_and_dense_from_none(
    small_graph, quick_config, tmp_path, kind
):
    config = settings(quick_config, **kind)
    find_tickets(small_graph, config, run_dir=tmp_path / "run")
    folder, split = RunFolder(tmp_path / "run"), InteractionSplit.from_data(small_graph)
    of_dense = folder.read_weights(0)
    for round in (0, 1):
        expected = trained(config, split, folder, round, of_dense)
        for name, value in folder.read_weights(round).items():
            assert torch.equal(value, expected[name])
    # Without a teacher the ticket is another, and dense the same.
    alone = config.model_copy(update={"distill": 0.0})
    find_tickets(small_graph, alone, run_dir=tmp_path / "alone")
    other = RunFolder(tmp_path / "alone")
    name = "embedding.weight"
    assert torch.equal(other.read_weights(0)[name], of_dense[name])
    assert torch.equal(other.read_round(1)[0].table, folder.read_round(1)[0].table)
    assert not torch.equal(other.read_weights(1)[name], folder.read_weights(1)[name])


def test_a_refit_ticket_learns_from_the_refit_dense(small_graph, quick_config, tmp_path):
    config = settings(quick_config, model="mf", refit=True)
    report = find_tickets(small_graph, config, run_dir=tmp_path)
    folder = RunFolder(tmp_path)
    epochs = report.refit.ticket.epochs
    problem = Problem.prepare(
        InteractionSplit.from_data(small_graph), config, torch.device("cpu")
    ).with_validation()
    taught = problem.taught_by(folder.of_refit().read_weights(0))
    mask = folder.read_round(1)[0]
    training = Training(taught, folder.read_initial(), mask, 1, epochs=epochs)
    training.run()
    kept = folder.of_refit().read_weights(1)
    assert all(torch.equal(kept[name], value) for name, value in training.weights().items())


def test_what_cannot_be_distilled_is_refused_before_the_folder_is_begun(
    small_graph, quick_config, tmp_path
):
    config = settings(quick_config, model="mf", loss="ccl")
    with pytest.raises(InputError, match=r"distill=0.7.*loss=ccl.*bpr, sampled-softmax"):
        find_tickets(small_graph, config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
