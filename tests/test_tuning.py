import contextlib
import json
import sqlite3

import pytest
from click.testing import CliRunner

from pyg_lth import InputError, TrainConfig, tuning
from pyg_lth.cli import cli
from pyg_lth.sweeps.engines import Local, Room
from pyg_lth.tuning import SPACES, tunable, tune

optuna = pytest.importorskip("optuna")


@pytest.fixture
def config(quick_config):
    settings = quick_config(model="mf").model_dump(include=set(TrainConfig.model_fields))
    return TrainConfig(**{**settings, "max_epochs": 6, "eval_every": 1})


def trials_of(path):
    study = optuna.load_study(study_name="pyg-lth", storage=f"sqlite:///{path}")
    return study.get_trials(deepcopy=False)


def test_the_best_trial_by_validation_gives_the_settings(small_graph, config, tmp_path):
    heard = []
    tuned = tune(
        small_graph,
        config,
        tmp_path / "study.db",
        trials=6,
        callback=lambda number, drawn, record: heard.append((number, drawn, record.valid)),
    )
    assert tuned.trials == 6
    best = {}
    for number, drawn, valid in heard:
        assert set(drawn) == {"lr", "reg", "negatives"}
        for name, value in drawn.items():
            assert SPACES[name].low <= value <= SPACES[name].high
        best[number] = max(
            best.get(number, (0.0, {})), (valid["recall@5"], drawn), key=lambda b: b[0]
        )
    ended = [t.number for t in trials_of(tmp_path / "study.db") if t.state.name == "COMPLETE"]
    metric, drawn = max((best[number] for number in ended), key=lambda b: b[0])
    assert tuned.metric == metric
    changed = {**config.model_dump(), **drawn}
    assert any(
        tuned.config == TrainConfig(**{**changed, **found})
        for value, found in best.values()
        if value == metric
    )


def test_the_first_trial_has_what_is_given_as_near_as_can_be(small_graph, config, tmp_path):
    heard = []
    config = config.model_copy(update={"lr": 0.02, "reg": 0.0})
    for trials in (1, 2):
        tune(
            *(small_graph, config, tmp_path / "study.db"),
            trials=trials,
            callback=lambda number, drawn, record: heard.append((number, drawn)),
        )
    of_trial = {number: drawn for number, drawn in heard}
    given = {"lr": 0.02, "reg": SPACES["reg"].low, "negatives": config.negatives}
    assert [of_trial[number] == given for number in (0, 1)] == [True, False]


@pytest.mark.parametrize("layers", [4, 6])
def test_no_trial_has_a_mean_that_begins_after_its_last_layer(
    small_graph, config, tmp_path, layers
):
    settings = {"model": "lightgcn", "layers": layers, "first_layer": layers - 1, "max_epochs": 1}
    config = TrainConfig(**{**config.model_dump(), **settings})
    heard = []
    tune(
        *(small_graph, config, tmp_path / "study.db"),
        trials=4,
        over=["layers"],
        callback=lambda number, drawn, record: heard.append(drawn["layers"]),
    )
    assert heard[0] == layers
    assert set(heard) <= {layers - 1, layers}


def test_a_study_goes_on_where_it_was(small_graph, config, tmp_path):
    path = tmp_path / "study.db"

    def stop(number, drawn, record):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small_graph, config, path, trials=4, over=["lr"], callback=stop)
    first = [trial.params for trial in trials_of(path)[:2]]
    assert tune(small_graph, config, path, trials=4, over=["lr"]).trials == 4
    trials = trials_of(path)
    assert [trial.params for trial in trials[:2]] == first
    assert len({trial.params["lr"] for trial in trials}) == len(trials)
    assert tune(small_graph, config, path, trials=4, over=["lr"]).trials == 4
    assert len(trials_of(path)) == len(trials)


def test_a_trial_below_the_others_is_given_up(small_graph, config, tmp_path):
    path = tmp_path / "study.db"
    tune(small_graph, config, path, trials=16, over=["lr"])
    states = [trial.state.name for trial in trials_of(path)]
    assert "PRUNED" in states and "COMPLETE" in states


def test_what_is_tuned_matters_to_the_model(quick_config):
    assert tunable(TrainConfig(model="mf")) == ["lr", "reg", "negatives"]
    assert tunable(TrainConfig(loss="softmax")) == ["lr", "reg", "temperature", "layers"]
    assert tunable(TrainConfig(model="mf", loss="ccl")) == ["lr", "reg", "negatives"]


def test_what_cannot_be_tuned_is_one_clear_line(small_graph, config, tmp_path):
    path = tmp_path / "study.db"
    with pytest.raises(InputError, match="tuned on validation"):
        tune(small_graph, config.model_copy(update={"select_on": "test"}), path)
    with pytest.raises(InputError, match="`teacher=runs/other`: trials have none; leave it out"):
        tune(small_graph, TrainConfig(teacher="runs/other"), path)
    with pytest.raises(InputError, match="no space to tune dim"):
        tune(small_graph, config, path, over=["dim"])
    tune(small_graph, config, path, trials=1, over=["lr"])
    with pytest.raises(InputError, match="a study of other settings"):
        tune(small_graph, config.model_copy(update={"dim": 8}), path, trials=1, over=["lr"])
    path.write_bytes(b"no data base, but long enough to look at")
    with pytest.raises(InputError, match="no study of Optuna"):
        tune(small_graph, config, path)


def test_trials_side_by_side_are_those_of_this_process(small_graph, config, tmp_path, monkeypatch):
    """One at a time, an engine's trials are the same ones; more, they share the study's file."""
    monkeypatch.setattr(tuning, "TRIALS_TO_COMPARE", 2)
    config = config.model_copy(update={"seed": 1})
    heard = []
    paths = [tmp_path / name for name in ("here.db", "engine.db", "two.db")]
    here = tune(small_graph, config, paths[0], trials=3, over=["lr"])
    by_engine = tune(
        small_graph,
        config,
        paths[1],
        trials=3,
        over=["lr"],
        engine=Local(Room(1)),
        callback=lambda number, drawn, record: heard.append((number, record.epoch)),
    )
    assert by_engine == here and {number for number, _ in heard} == {0, 1, 2}
    for one, other in zip(*map(trials_of, paths[:2]), strict=True):
        assert (one.params, one.state, one.value) == (other.params, other.state, other.value)
        assert one.intermediate_values == other.intermediate_values
        assert one.user_attrs == other.user_attrs
    assert [trial.state.name for trial in trials_of(paths[1])] == ["COMPLETE", "COMPLETE", "PRUNED"]
    tune(small_graph, config, paths[2], trials=1, over=["lr"])
    assert tune(small_graph, config, paths[2], trials=3, over=["lr"], engine=Local(Room(2)))[2] == 3
    assert len(trials_of(paths[2])) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.db", "here.db", "two.db"]


def test_a_trial_that_fails_ends_the_search_and_counts_for_nothing(small_graph, config, tmp_path):
    class Failing(Local):
        def run(self, commands, watcher):
            broken = ["sh", "-c", "echo no memory >&2; exit 1"]
            return super().run((c._replace(arguments=broken) for c in commands), watcher)

    path = tmp_path / "study.db"
    with pytest.raises(InputError, match="trial 0 did not end well: no memory"):
        tune(small_graph, config, path, trials=3, over=["lr"], engine=Failing(Room(1)))
    assert [trial.state.name for trial in trials_of(path)] == ["FAIL"]
    assert tune(small_graph, config, path, trials=1, over=["lr"]).trials == 1


@pytest.mark.parametrize(
    "change",
    [
        "update trial_params set param_value = param_value * 1.5 where trial_id = 1",
        "update trial_values set value = value + 1 where trial_id = 2",
        "update trial_intermediate_values set intermediate_value = 0.5 where trial_id = 1",
        "update trials set state = 'COMPLETF' where trial_id = 2",
    ],
)
def test_a_study_that_is_not_what_was_written_is_refused(small_graph, config, tmp_path, change):
    path = tmp_path / "study.db"
    tune(small_graph, config, path, trials=2, over=["lr"])
    with contextlib.closing(sqlite3.connect(path)) as data_base:
        data_base.execute(change)
        data_base.commit()
    with pytest.raises(InputError, match=r"study.db is (damaged: trial|no study)"):
        tune(small_graph, config, path, trials=3, over=["lr"])


def test_the_settings_found_are_a_file_that_prune_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", "synthetic", "--root", "data"]
    options = ["--model", "mf", "--dim", "4", "--max-epochs", "1", "--eval-every", "1"]
    options += ["--lr", "0.002"]
    run = CliRunner().invoke(
        cli, ["tune", *data, *options, "--trials", "1", "--over", "lr"], catch_exceptions=False
    )
    assert run.exit_code == 0, run.output
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert found["model"] == "mf"
    shown = CliRunner().invoke(cli, ["prune", "--config", "tuned.json", "--print-config"])
    assert json.loads(shown.stdout)["lr"] == found["lr"]
