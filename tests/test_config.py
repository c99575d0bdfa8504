import subprocess
import sys
from typing import get_args

import pytest
from pydantic import ValidationError

import pyg_lth
from pyg_lth import config
from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.nn.propagation import BACKENDS


def test_the_defaults_are_the_paper_s():
    settings = PruneConfig()
    paper = {
        "model": "lightgcn",
        "dim": 32,
        "layers": 3,
        "lr": 1e-3,
        "batch_size": 2048,
        "reg": 1e-4,
        "loss": "bpr",
        "negatives": 1,
        "batch_by": "user",
        "max_epochs": 1000,
        "amount": 0.1,
        "method": "imp",
        "scope": "joint",
        "tolerance": 0.0,
    }
    assert settings.model_dump(include=set(paper)) == paper
    assert settings.propagation == "auto"
    assert settings.select_on == "valid"
    assert settings.select_by == "recall@20"
    assert TrainConfig(topk=50).select_by == "recall@50"


@pytest.mark.parametrize("kind", [TrainConfig, PruneConfig])
def test_an_unknown_key_is_refused(kind):
    with pytest.raises(ValidationError, match="epochs"):
        kind(epochs=3)


def test_a_training_has_no_settings_of_pruning():
    with pytest.raises(ValidationError, match="rounds"):
        TrainConfig(rounds=3)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        PruneConfig().dim = 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "ngcf"),
        ("model", ["mf"]),
        ("dim", 0),
        ("dim", 1.5),
        ("layers", -1),
        ("propagation", "coo"),
        ("lr", 0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr_decay", 0),
        ("lr_decay", 1.1),
        ("batch_size", 0),
        ("reg", -1e-9),
        ("loss", "bce"),
        ("temperature", 0),
        ("negatives", 0),
        ("batch_by", "item"),
        ("max_epochs", 0),
        ("patience", 0),
        ("eval_every", 0),
        ("select_on", "train"),
        ("topk", 0),
        ("device", "tpu"),
        ("seed", -1),
        ("seed", 2**32),
        ("rounds", -1),
        ("amount", 0),
        ("amount", 1),
        ("method", "magnitude"),
        ("scope", "column"),
        ("rewind_epoch", -1),
        ("threshold", "column"),
        ("seeds", 0),
        ("tolerance", -0.1),
        ("tolerance", 1),
    ],
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(ValidationError, match=key):
        PruneConfig(**{key: value})


@pytest.mark.parametrize(("model", "layers"), [("lightgcn", 3), ("mf", 0)])
@pytest.mark.parametrize("given", [{}, {"layers": None}], ids=["absent", "none"])
def test_layers_default_to_those_of_the_model(model, layers, given):
    assert TrainConfig(model=model, **given).layers == layers


def test_mf_with_layers_is_refused():
    with pytest.raises(ValidationError, match="mf has no propagation layers"):
        TrainConfig(model="mf", layers=2)


@pytest.mark.parametrize("loss", ["softmax", "corrected-softmax"])
def test_negatives_are_refused_with_softmax_over_the_batch(loss):
    with pytest.raises(ValidationError, match=f"{loss} takes its negatives from the batch"):
        TrainConfig(loss=loss, negatives=2)
    assert TrainConfig(loss=loss, negatives=1).negatives == 1


@pytest.mark.parametrize(
    ("loss", "score", "negatives"),
    [
        ("bpr", "dot", 1),
        ("softmax", "cosine", 1),
        ("corrected-softmax", "cosine", 1),
        ("sampled-softmax", "cosine", 1024),
        ("ccl", "cosine", 1024),
    ],
)
@pytest.mark.parametrize("given", [{}, {"score": None}], ids=["absent", "none"])
def test_a_loss_that_trains_cosines_ranks_by_them_unless_told(loss, score, negatives, given):
    settings = TrainConfig(loss=loss, **given)
    assert (settings.score, settings.negatives) == (score, negatives)
    assert TrainConfig(loss=loss, score="dot").score == "dot"


def test_what_selects_is_measured_at_the_length_of_the_list():
    assert TrainConfig(select_by="ndcg", topk=10).select_by == "ndcg@10"
    assert TrainConfig(select_by="ndcg@10", topk=10).select_by == "ndcg@10"
    for metric in ("ndcg@10", "precision@20", ""):
        with pytest.raises(ValidationError, match="recall@20 and ndcg@20"):
            TrainConfig(select_by=metric)


def test_refit_needs_a_validation_split():
    with pytest.raises(ValidationError, match="refit trains for the epochs that validation chose"):
        TrainConfig(refit=True, select_on="test")


def test_a_run_begun_before_there_was_a_choice_ranks_by_dot_product():
    kept = TrainConfig(loss="softmax", topk=5).model_dump()
    for name in ("score", "select_by", "refit", "margin", "negative_weight"):
        del kept[name]
    assert config.completed(kept) == TrainConfig(loss="softmax", topk=5, score="dot").model_dump()
    pruned = PruneConfig(rounds=3).model_dump()
    assert config.completed({**pruned, "dataset": "own"}) == {**pruned, "dataset": "own"}


@pytest.mark.parametrize("settings", [{"max_epochs": 9}, {"patience": 1, "eval_every": 4}])
def test_an_epoch_that_the_dense_round_may_not_reach_is_no_epoch_to_rewind_to(settings):
    with pytest.raises(ValidationError, match="the dense round may stop at epoch"):
        PruneConfig(rewind_epoch=10, **settings)
    assert PruneConfig(rewind_epoch=8, **settings).rewind_epoch == 8


def test_presets_change_defaults_of_settings_there_are():
    assert set(config.PRESETS) == set(get_args(config.PresetName))
    assert config.PRESETS["honest"] == {}
    paper = PruneConfig(**config.PRESETS["paper"])
    assert (paper.select_on, paper.patience, paper.eval_every, paper.rounds) == ("test", 100, 1, 30)


def test_lightgcn_may_have_no_layers():
    assert TrainConfig(layers=0).layers == 0


def test_the_hash_is_the_same_on_every_machine():
    settings = {
        "model": "mf",
        "dim": 16,
        "layers": 0,
        "first_layer": 0,
        "propagation": "csr",
        "lr": 0.001,
        "lr_decay": 1.0,
        "batch_size": 512,
        "reg": 1e-4,
        "loss": "bpr",
        "score": "dot",
        "popularity": 0.0,
        "temperature": 0.1,
        "negatives": 1,
        "negatives_by": "item",
        "margin": 0.9,
        "negative_weight": 150.0,
        "batch_by": "user",
        "disjoint_parts": 1,
        "teacher": None,
        "distill": 0.0,
        "max_epochs": 100,
        "patience": 10,
        "eval_every": 5,
        "select_on": "valid",
        "select_by": "recall@20",
        "topk": 20,
        "refit": False,
        "device": "cpu",
        "seed": 7,
    }
    assert set(settings) == set(TrainConfig.model_fields)
    assert TrainConfig(**settings).stable_hash() == "b5d40dc43ac9"


def test_the_mean_over_layers_begins_with_one_that_there_is():
    assert TrainConfig(layers=2, first_layer=2).first_layer == 2
    for settings in ({"layers": 2, "first_layer": 3}, {"model": "mf", "first_layer": 1}):
        with pytest.raises(ValidationError, match="the last of the layers is"):
            TrainConfig(**settings)


def test_disjoint_parts_are_of_interactions_that_are_propagated_through():
    assert TrainConfig(disjoint_parts=2, batch_by="edge").disjoint_parts == 2
    for settings, reason in (
        ({"model": "mf", "batch_by": "edge"}, "there are no layers: leave it out"),
        ({"layers": 0, "batch_by": "edge"}, "there are no layers: leave it out"),
        ({}, "take batch_by edge"),
    ):
        with pytest.raises(ValidationError, match=reason):
            TrainConfig(disjoint_parts=2, **settings)


def test_a_teacher_has_a_share_unless_given_none():
    assert TrainConfig(teacher="runs/other").distill == 0.9
    assert TrainConfig(teacher="runs/other", distill=0.5).distill == 0.5
    with pytest.raises(ValidationError, match="a teacher with a share of 0 teaches nothing"):
        TrainConfig(teacher="runs/other", distill=0)


def test_dense_alone_is_taught_by_another_run_only():
    assert not TrainConfig(distill=0.9).is_taught
    assert not PruneConfig().is_taught
    assert PruneConfig(distill=0.9).is_taught
    assert TrainConfig(teacher="runs/other").is_taught


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
@pytest.mark.parametrize("name", config.PRESETS)
def test_presets_are_settings_of_every_backbone(name, model):
    found = PruneConfig(**config.of_preset(name, {"model": model}), model=model)
    assert found.refit == (name == "strong")
    assert found.select_on == ("test" if name == "paper" else "valid")
    assert (found.first_layer > 0) == (name == "strong" and model == "lightgcn")


@pytest.mark.parametrize(
    "chosen",
    [
        *({"loss": "bpr"}, {"layers": 2}, {"layers": None}, {"layers": 0}, {"model": "mf"}),
        {"batch_by": "user"},
    ],
)
def test_a_preset_leaves_out_what_does_not_go_with_what_is_chosen(chosen):
    found = PruneConfig(**{**config.of_preset("strong", chosen), **chosen})
    assert found.dim == 64
    assert found.popularity == (found.loss == "sampled-softmax")
    assert (found.distill > 0) == (found.loss == "sampled-softmax")
    assert found.first_layer == (1 if found.layers == 3 else 0)
    assert found.disjoint_parts == (8 if found.layers and found.batch_by == "edge" else 1)


def test_who_has_a_teacher_takes_its_temperature():
    of_lightgcn = TrainConfig(**config.of_preset("strong", {})).temperature
    for chosen in ({"model": "mf"}, {"model": "mf", "teacher": "runs/other"}):
        found = TrainConfig(**{**config.of_preset("strong", chosen), **chosen})
        assert (found.temperature == of_lightgcn) == (found.teacher is not None)


def test_popularity_is_added_to_cosines_alone():
    assert TrainConfig(loss="ccl", popularity=0.5).score == "cosine"
    with pytest.raises(ValidationError, match="score is dot: leave it out, or take score cosine"):
        TrainConfig(popularity=0.5)


def test_equal_settings_share_a_hash_however_they_are_written():
    plain = PruneConfig(model="mf", lr=1, amount=0.5)
    written_out = PruneConfig(amount=5e-1, layers=0, lr=1.0, model="mf", topk=20)
    assert plain == written_out
    assert plain.stable_hash() == written_out.stable_hash()


def test_different_settings_differ_in_their_hash():
    changes = {
        "model": "mf",
        "dim": 33,
        "layers": 2,
        "first_layer": 1,
        "propagation": "scatter",
        "lr": 2e-3,
        "lr_decay": 0.9,
        "batch_size": 2049,
        "reg": 0.0,
        "loss": "softmax",
        "score": "cosine",
        "popularity": 0.5,
        "temperature": 0.2,
        "negatives": 2,
        "negatives_by": "edge",
        "margin": 0.8,
        "negative_weight": 20.0,
        "batch_by": "edge",
        "disjoint_parts": 4,
        "max_epochs": 999,
        "patience": 9,
        "eval_every": 4,
        "select_on": "test",
        "select_by": "ndcg",
        "topk": 10,
        "refit": True,
        "device": "cpu",
        "seed": 1,
        "rounds": 19,
        "amount": 0.2,
        "method": "random",
        "scope": "row",
        "rewind_epoch": 3,
        "teacher": "runs/other",
        "distill": 0.5,
        "threshold": "entry",
        "mask_from": "runs/other",
        "seeds": 2,
        "tolerance": 0.01,
    }
    assert set(changes) == set(PruneConfig.model_fields)
    needed = {"popularity": {"score": "cosine"}, "disjoint_parts": {"batch_by": "edge"}}
    hashes = {
        PruneConfig(**{key: value, **needed.get(key, {})}).stable_hash()
        for key, value in changes.items()
    }
    assert len(hashes | {PruneConfig().stable_hash()}) == len(changes) + 1


def test_names_in_the_settings_are_those_implemented():
    assert set(get_args(config.PropagationName)) == {"auto", *BACKENDS}


def test_settings_are_read_without_importing_torch():
    code = "import sys, pyg_lth.config, pyg_lth; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", pyg_lth.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(pyg_lth, name).__name__ == name


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_such"):
        pyg_lth.nothing_such  # noqa: B018
