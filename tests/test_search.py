import json
import tempfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch_geometric import nn

from pyg_lth import Callback, InputError, Mask, find_tickets, kernels, train
from pyg_lth.config import PropagationName, ScopeName, TrainConfig
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import EDGE_TYPE, InteractionSplit
from pyg_lth.lottery.methods import METHODS
from pyg_lth.nn.backbones import TABLE

NAMES, SCOPES = METHODS.names(), get_args(ScopeName)
NUM_USERS, NUM_ITEMS, DIM = 40, 30, 4


class Recorder(Callback):
    """Keeps what a search tells: the split, and of each round its mask and its start."""

    def __init__(self):
        self.masks, self.starts, self.trained, self.calls, self.auxiliary = [], [], [], [], 0

    def on_start(self, config, split):
        self.calls.append("start")
        self.split = split

    def on_popularity(self, popularity):
        self.calls.append("popularity")

    def on_auxiliary_start(self, training, mask):
        self.auxiliary += 1

    def on_round_start(self, training, mask):
        self.calls.append("round start")
        self.problem = training.problem
        self.training = training
        self.masks.append(mask)
        self.starts.append(training.model.embedding.weight.detach().clone())

    def on_epoch(self, record):
        self.calls.append("epoch")

    def on_round_end(self, result):
        self.calls.append("round end")
        self.trained.append(self.training.best_weights[TABLE])


def search(graph, config, folder=None):
    recorder = Recorder()
    report = find_tickets(graph, config, run_dir=folder, callback=recorder)
    return report, recorder


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(v) for key, v in value.items() if not key.endswith("seconds")}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def bits(weight):
    return weight.view(torch.int32)


@pytest.fixture(scope="session")
def config_of(quick_config):
    """Quick settings of any method; thresholds take their time to rise above the weights."""

    def build(method, **settings):
        long = {"max_epochs": 300, "reg": 0.5} if method == "pep" else {}
        return quick_config(method=method, **{**settings, **long})

    return build


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", NAMES)
def test_every_round_keeps_exactly_what_its_budget_says(
    small_graph, config_of, entries_wanted, method, scope
):
    report, recorder = search(small_graph, config_of(method, scope=scope, max_epochs=2, rounds=4))
    results = [report.dense, *report.rounds]
    wanted = [entries_wanted(scope, NUM_USERS, NUM_ITEMS, DIM, round) for round in range(5)]
    assert [result.round for result in results] == list(range(5))
    assert [result.remaining for result in results] == wanted
    assert [mask.remaining for mask in recorder.masks] == wanted
    entries = (NUM_USERS + NUM_ITEMS) * DIM
    assert [result.density for result in results] == [count / entries for count in wanted]
    for mask in recorder.masks:
        if scope == "user":
            assert mask.table[NUM_USERS:].all()
        if scope == "item":
            assert mask.table[:NUM_USERS].all()
        if scope == "row":
            of_row = mask.table.sum(dim=1)
            assert of_row.max() - of_row.min() <= 1


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_masks_of_imp_are_nested(small_graph, quick_config, model, scope):
    _, recorder = search(small_graph, quick_config(model=model, scope=scope))
    assert recorder.masks[0] == Mask.ones(NUM_USERS + NUM_ITEMS, DIM)
    for before, after in zip(recorder.masks, recorder.masks[1:], strict=False):
        assert after <= before
        assert after != before


@pytest.mark.parametrize(
    "method",
    sorted(set(NAMES) - {"reinit", "finetune", "lr-rewind", "rotate", "rotate-lr-rewind"}),
)
def test_every_round_starts_at_mask_times_theta_0_bit_for_bit(
    small_graph, config_of, tmp_path, method
):
    _, recorder = search(small_graph, config_of(method), tmp_path)
    theta0 = load_file(tmp_path / "theta0.safetensors")["embedding.weight"]
    assert len(recorder.starts) == 4
    for mask, start in zip(recorder.masks, recorder.starts, strict=True):
        assert torch.equal(bits(start), bits(theta0 * mask.table))


@pytest.mark.parametrize("method", NAMES)
def test_what_a_round_keeps_is_its_mask_and_its_best_weight(
    small_graph, config_of, tmp_path, method
):
    """The weights, propagated by stock PyG, rank as the report says; masked ones are zero."""
    report, recorder = search(small_graph, config_of(method), tmp_path)
    split = InteractionSplit.from_data(small_graph)
    for result in [report.dense, *report.rounds]:
        folder = tmp_path / f"round-{result.round:03d}"
        mask = load_file(folder / "mask.safetensors")["mask"]
        model = nn.LightGCN(NUM_USERS + NUM_ITEMS, DIM, num_layers=2)
        best = load_file(folder / "best.safetensors")
        model.load_state_dict(best, strict=False)
        # A mask that moves during training is kept as it was at the best evaluation.
        assert method == "dynamic" or torch.equal(mask, recorder.masks[result.round].table)
        assert best["embedding.weight"][~mask].count_nonzero() == 0
        embedding = model.get_embedding(split.joint_edge_index())
        for part in ("valid", "test"):
            metrics = Evaluator(split, part, 5)(embedding)
            assert metrics == pytest.approx(getattr(result, part), abs=1e-6)


def largest(weight, mask, count):
    """The ``count`` living entries of largest magnitude, by a Python sort."""
    flat = weight.abs().flatten().tolist()
    living = mask.flatten().nonzero().view(-1).tolist()
    kept = sorted(living, key=lambda index: (flat[index], index))[len(living) - count :]
    out = torch.zeros(mask.numel(), dtype=torch.bool)
    out[kept] = True
    return out.view_as(mask)


@pytest.mark.parametrize(("method", "steps_back"), [("imp", 1), ("oneshot", None)])
def test_masks_are_read_from_the_best_weights(
    small_graph, quick_config, tmp_path, method, steps_back
):
    _, recorder = search(small_graph, quick_config(method=method), tmp_path)
    for round, mask in enumerate(recorder.masks[1:], start=1):
        source = round - steps_back if steps_back else 0
        weight = load_file(tmp_path / f"round-{source:03d}" / "best.safetensors")
        expected = largest(weight["embedding.weight"], recorder.masks[source].table, mask.remaining)
        assert torch.equal(mask.table, expected)


def test_random_masks_differ_by_round_and_repeat_by_seed(small_graph, quick_config):
    first, again, other = (
        search(small_graph, quick_config(method="random", seed=seed, max_epochs=2))[1].masks
        for seed in (0, 0, 1)
    )
    assert first == again
    for round in range(1, 4):
        assert first[round] != other[round]
        # Masks drawn anew, not cut from each other.
        assert round == 1 or not first[round] <= first[round - 1]


def test_random_masks_do_not_depend_on_the_weights(small_graph, quick_config):
    short, long = (
        search(small_graph, quick_config(method="random", max_epochs=epochs))[1].masks
        for epochs in (1, 3)
    )
    assert short == long


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_a_search_repeats_with_its_seed_and_only_with_it(small_graph, quick_config, model):
    first, again, other = (
        without_seconds(
            find_tickets(small_graph, quick_config(model=model, seed=seed)).model_dump()
        )
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["dense"] != other["dense"]


def test_methods_share_the_dense_round(small_graph, quick_config):
    dense = [
        without_seconds(
            find_tickets(small_graph, quick_config(method=m, rounds=0)).dense.model_dump()
        )
        for m in NAMES
    ]
    assert dense[1:] == dense[:-1]


@pytest.mark.parametrize("propagation", get_args(PropagationName))
def test_the_propagation_is_the_one_asked_for(make_graph, quick_config, propagation):
    if propagation == "scatter":
        pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    usable = kernels.usable(torch.device("cpu"))
    if propagation == "native" and not usable:
        pytest.skip("the kernels are not compiled")
    # Triton's interpreter takes its time.
    graph = make_graph(2, 3, [(0, 0), (0, 1), (1, 1)], [(0, 2)], [(1, 0)])
    quick = quick_config(propagation=propagation, rounds=0, batch_size=3, max_epochs=2)
    if propagation.startswith("triton") and torch.cuda.is_available():
        quick = quick.model_copy(update={"device": "cuda"})
    _, recorder = search(graph, quick)
    automatic = "native" if usable else "csr"
    wanted = automatic if propagation == "auto" else propagation
    assert recorder.problem.propagation.backend == wanted


def test_without_a_folder_no_files_are_left(small_graph, quick_config, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    report = find_tickets(small_graph, quick_config())
    assert len(report.rounds) == 3
    assert list(tmp_path.iterdir()) == []


def test_training_is_round_0_of_a_search(small_graph, quick_config, tmp_path):
    config = quick_config(rounds=1)
    plain = TrainConfig(**config.model_dump(include=set(TrainConfig.model_fields)))
    searched = find_tickets(small_graph, config, run_dir=tmp_path / "search")
    trained = train(small_graph, plain, run_dir=tmp_path / "train")
    assert without_seconds(trained.dense.model_dump()) == without_seconds(
        searched.dense.model_dump()
    )
    assert trained.popularity == searched.popularity
    assert (trained.rounds, trained.sparsest_winner) == ([], None)
    best = [
        load_file(tmp_path / name / "round-000" / "best.safetensors")["embedding.weight"]
        for name in ("search", "train")
    ]
    assert torch.equal(bits(best[0]), bits(best[1]))


def test_training_never_prunes_whatever_the_settings(small_graph, quick_config):
    assert train(small_graph, quick_config(rounds=2)).rounds == []


def test_a_callback_hears_of_everything_in_order(small_graph, quick_config):
    _, recorder = search(small_graph, quick_config(rounds=1))
    a_round = ["round start", *["epoch"] * 4, "round end"]
    assert recorder.calls == ["start", "popularity", *a_round * 2]


def test_selection_on_test_learns_from_all_train_interactions_and_says_so(
    small_graph, quick_config, make_graph, tmp_path
):
    store = small_graph[EDGE_TYPE]
    graph = make_graph(NUM_USERS, NUM_ITEMS, store.edge_index, store.edge_label_index)
    report, recorder = search(graph, quick_config(select_on="test", rounds=1), tmp_path)
    whole = InteractionSplit.from_data(graph)
    assert torch.equal(recorder.split.train, whole.train)
    assert recorder.split.valid is None
    assert report.dense.valid is None
    assert report.popularity.valid is None
    assert "SELECTED ON TEST" in (tmp_path / "report.md").read_text()
    epochs = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert epochs[report.dense.best_epoch - 1]["test"] == report.dense.test
    assert (
        max(e["test"]["recall@5"] for e in epochs[:4] if "test" in e)
        == (report.dense.test["recall@5"])
    )


def test_selection_on_validation_holds_a_tenth_out_where_there_is_none(
    small_graph, quick_config, make_graph, tmp_path
):
    store = small_graph[EDGE_TYPE]
    graph = make_graph(NUM_USERS, NUM_ITEMS, store.edge_index, store.edge_label_index)
    _, recorder = search(graph, quick_config(seed=3, rounds=0), tmp_path)
    expected = InteractionSplit.from_data(graph).hold_out_validation(seed=3)
    assert recorder.split.fingerprint() == expected.fingerprint()
    assert "TEST" not in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("select_on", ["valid", "test"])
def test_nothing_is_evaluated_twice(small_graph, quick_config, monkeypatch, select_on):
    evaluated, ranked = [], []
    rank = Evaluator.rank
    monkeypatch.setattr(Evaluator, "rank", lambda self, x: ranked.append(self) or rank(self, x))
    evaluate = Evaluator.__call__
    monkeypatch.setattr(
        Evaluator, "__call__", lambda self, x: evaluated.append(self) or evaluate(self, x)
    )
    config = quick_config(select_on=select_on, max_epochs=4, eval_every=2, patience=9, rounds=1)
    report = find_tickets(small_graph, config)
    # Two evaluations in each of two rounds, and popularity, on test too where validation selects.
    assert len(evaluated) == (5 if select_on == "test" else 5 + 1)
    # The best state of each round is ranked once more, for the metrics of each user.
    assert len(ranked) == len(evaluated) + 2
    assert len(set(map(id, ranked))) == (1 if select_on == "test" else 2)
    assert all(round.test for round in report.rounds)


@pytest.mark.parametrize("select_on", ["valid", "test"])
def test_test_interactions_choose_nothing_unless_asked_to(
    small_graph, quick_config, make_graph, tmp_path, select_on
):
    store = small_graph[EDGE_TYPE]
    halves = store.edge_label_index[:, ::2], store.edge_label_index[:, 1::2]
    reports, masks = [], []
    for test in halves:
        graph = make_graph(NUM_USERS, NUM_ITEMS, store.edge_index, test, store.val_edge_label_index)
        report, recorder = search(graph, quick_config(select_on=select_on, eval_every=1))
        reports.append(report)
        masks.append(recorder.masks)
    assert reports[0].dense.test != reports[1].dense.test
    same = [r0.best_epoch for r0 in reports[0].rounds] == [
        r1.best_epoch for r1 in reports[1].rounds
    ]
    assert (masks[0] == masks[1] and same) == (select_on == "valid")


METRICS = {"precision@5", "recall@5", "ndcg@5"}
RESULT = {
    *("round", "density", "remaining", "epochs", "best_epoch", "seconds", "valid", "test"),
    *("cost_seconds", "test_sd", "epochs_to_dense", "difference", "beyond", "analysis"),
}


def test_report_json_has_the_schema_of_the_design(small_graph, quick_config, tmp_path):
    config = quick_config(tolerance=0.9)
    returned = find_tickets(small_graph, config, run_dir=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(returned.to_json())
    assert set(report) == {
        *("schema", "config", "dense", "popularity", "rounds", "sparsest_winner"),
        *("seeds", "groups", "sparsest_strict_winner", "ended", "guests", "refit"),
        *("unconverged_seeds", "dense_converged"),
        *("winner_by_validation", "strict_winner_by_validation"),
    }
    assert report["schema"] == 1
    assert report["config"] == config.model_dump()
    assert set(report["dense"]) == RESULT
    assert set(report["popularity"]) == {"valid", "test"}
    assert [set(ticket) for ticket in report["rounds"]] == [
        RESULT | {"p_adjusted", "wins", "strict"}
    ] * 3
    assert set(report["sparsest_winner"]) == {"round", "density"}
    for entry in (report["dense"], report["popularity"], *report["rounds"]):
        assert set(entry["valid"]) == set(entry["test"]) == METRICS
    for result in (report["dense"], *report["rounds"]):
        assert 0 < result["density"] <= 1
        assert 0 < result["best_epoch"] <= result["epochs"]
        assert result["seconds"] > 0


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_folder_holds_the_files_of_the_design_and_no_others(
    small_graph, quick_config, tmp_path
):
    find_tickets(small_graph, quick_config(rounds=2), run_dir=tmp_path, checkpoint_seconds=0)
    assert files(tmp_path) - {"state/lock"} == {
        *("config.json", "environment.json", "rounds.jsonl", "epochs.jsonl"),
        *("report.json", "report.md", "theta0.safetensors", "checksums.txt"),
        *("data.json", "graph.safetensors"),
        *(
            f"round-{round:03d}/{name}"
            for round in range(3)
            for name in (
                *("mask.safetensors", "best.safetensors", "users.safetensors", "result.json"),
            )
        ),
    }


def test_the_files_of_a_run_agree_with_its_report(small_graph, quick_config, tmp_path):
    config = quick_config()
    find_tickets(small_graph, config, run_dir=tmp_path, checkpoint_seconds=0)
    report, settings = (
        json.loads((tmp_path / name).read_text()) for name in ("report.json", "config.json")
    )
    rounds, epochs = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("rounds.jsonl", "epochs.jsonl")
    )
    results = [report["dense"], *report["rounds"]]
    assert settings == report["config"] == config.model_dump()
    assert rounds == results
    assert [(e["round"], e["epoch"]) for e in epochs] == [
        (result["round"], epoch) for result in results for epoch in range(1, result["epochs"] + 1)
    ]
    for result in results:
        kept = json.loads((tmp_path / f"round-{result['round']:03d}" / "result.json").read_text())
        assert kept == {key: result[key] for key in RESULT}
        own = [epoch for epoch in epochs if epoch["round"] == result["round"]]
        assert own[result["best_epoch"] - 1]["valid"] == result["valid"]
        assert result["valid"]["recall@5"] == max(
            epoch["valid"]["recall@5"] for epoch in own if "valid" in epoch
        )
        assert result["seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in own))


def test_cuda_where_there_is_none_is_one_clear_line(small_graph, quick_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device") as error:
        find_tickets(small_graph, quick_config(device="cuda"))
    assert "\n" not in str(error.value)
    assert find_tickets(small_graph, quick_config(device="auto", rounds=0)).dense.epochs > 0


def test_a_folder_may_be_given_as_text(small_graph, quick_config, tmp_path):
    folder = tmp_path / "runs" / "first"
    find_tickets(small_graph, quick_config(rounds=0), run_dir=str(folder))
    assert Path(folder / "report.json").exists()
