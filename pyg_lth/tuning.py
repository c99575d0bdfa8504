"""Search for the settings of a dense training that validation likes best, by Optuna."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from safetensors.torch import save
from torch_geometric.data import HeteroData

from pyg_lth.config import TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit
from pyg_lth.strategies import LOSSES
from pyg_lth.sweeps.children import command_line
from pyg_lth.sweeps.engines import Engine
from pyg_lth.sweeps.processes import Command, Outcome, Watcher
from pyg_lth.training.progress import EpochRecord
from pyg_lth.trials import DIVERGED, Diverged, run_trial
from pyg_lth.whole_files import write

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

# Trials whose metric is compared before any is given up, and evaluations before one can be.
TRIALS_TO_COMPARE, EVALUATIONS_TO_SEE = 4, 2

# What a trial's checksum is called among its attributes.
CHECKSUM = "checksum"


class Space(NamedTuple):
    """Where a setting may lie.

    Args:
        low: Its least value.
        high: Its greatest.
        log: Whether to draw its logarithm.
        whole: Whether it is a whole number.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False


SPACES: Mapping[str, Space] = {
    "lr": Space(1e-4, 3e-2),
    "reg": Space(1e-7, 1e-1),
    "temperature": Space(0.03, 0.5),
    "negatives": Space(1, 2048, whole=True),
    "layers": Space(1, 4, log=False, whole=True),
}


class Tuned(NamedTuple):
    """What a search for settings came to.

    Args:
        config: The settings of the best trial.
        metric: What it reached on validation, of ``config.select_by``.
        trials: Trials that ended, those given up included.
    """

    config: TrainConfig
    metric: float
    trials: int


def tunable(config: TrainConfig) -> list[str]:
    """The settings that matter to a backbone and a loss, of those in :data:`SPACES`."""
    names = ["lr", "reg"]
    if "softmax" in config.loss:
        names.append("temperature")
    if LOSSES[config.loss].draws is not None:
        names.append("negatives")
    return names + (["layers"] if config.layers else [])


def tune(
    data: HeteroData,
    config: TrainConfig,
    study: str | Path,
    *,
    trials: int = 20,
    over: Sequence[str] | None = None,
    callback: Callable[[int, dict[str, Any], EpochRecord], None] = lambda *trial: None,
    engine: Engine | None = None,
) -> Tuned:
    """Train densely under different settings, and return those that validation likes best.

    The first trial has the settings given, as near as their spaces allow. A trial whose validation
    curve lies below the median of the others at the same epoch is given up. Test is not looked at.
    All is kept in a file, which the same call continues from.

    Args:
        data: A bipartite graph in the form of :mod:`pyg_lth.datasets`.
        config: The settings to begin with; what is not tuned stays.
        study: SQLite file of the study; made where there is none.
        trials: Trials in all, those of earlier calls included.
        over: What to tune, of :data:`SPACES`; :func:`tunable` unless given.
        callback: Called after each evaluation with the number of the trial, its settings and the
            record.
        engine: What runs the trials, several at a time; by default this process, one after the
            other. The study is this process's alone. Which settings are drawn depends on the trials
            that have ended by then, and so on what runs beside.

    Raises:
        InputError: If Optuna is missing, the settings select on test or name a teacher, or the
            study is another's.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> from pyg_lth.tuning import tune
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.TrainConfig(model="mf", dim=8, max_epochs=5)
        >>> tune(data, config, "study.db", trials=2, over=["lr"]).trials
        2
    """
    optuna = _optuna()
    if config.select_on == "test":
        raise InputError("`select_on=test`: settings are tuned on validation; leave it out")
    if config.teacher is not None:
        raise InputError(f"`teacher={config.teacher}`: trials have none; leave it out")
    names = tunable(config) if over is None else list(over)
    if wrong := [name for name in names if name not in SPACES]:
        raise InputError(f"there is no space to tune {wrong[0]} in: take {', '.join(SPACES)}")
    split = InteractionSplit.from_data(data)
    about = {"settings": config.stable_hash(), "graph": split.fingerprint(), "over": sorted(names)}
    found = _open(optuna, Path(study), about, config.seed)
    if split.valid is None:
        split = split.hold_out_validation(config.seed)

    told = _Trials(optuna, found, Path(study), config, names, callback)
    if not _ended(optuna, found, Path(study)):
        told.begin_with_given()
    if engine is None:
        while trials > len(_ended(optuna, found, Path(study))):
            told.run(split)
    else:
        told.run_by(engine, split, trials)
    ended = _ended(optuna, found, Path(study))
    complete = optuna.trial.TrialState.COMPLETE
    well = [
        (trial.value, trial)
        for trial in ended
        if trial.value is not None and trial.state == complete
    ]
    if not well:
        raise InputError("no trial ended well: every one of them diverged")
    metric, best = max(well, key=lambda pair: pair[0])
    tuned = type(config)(**{**config.model_dump(), **best.params})
    return Tuned(tuned, metric, len(ended))


class _Trials(Watcher):
    """The trials that this call begins: their settings, what they reported, and their ends."""

    def __init__(
        self,
        optuna: Any,
        study: "Study",
        path: Path,
        config: TrainConfig,
        names: Sequence[str],
        callback: Callable[[int, dict[str, Any], EpochRecord], None],
    ):
        self._optuna, self._study, self._path = optuna, study, path
        self._config, self._callback = config, callback
        self._spaces = {name: _space(name, config) for name in names}
        self._begun: dict[str, _Trial] = {}
        self._failure: str | None = None

    def begin_with_given(self) -> None:
        """Have the next trial take what is given, so that what is found is no worse."""
        given = {
            name: min(max(getattr(self._config, name), space.low), space.high)
            for name, space in self._spaces.items()
        }
        self._study.enqueue_trial(given)

    def _ask(self) -> "_Trial":
        trial = self._study.ask()
        drawn = {name: _suggest(trial, name, space) for name, space in self._spaces.items()}
        settings = type(self._config)(**{**self._config.model_dump(), **drawn})
        return self._begun.setdefault(str(trial.number), _Trial(trial, drawn, settings, {}))

    def run(self, split: InteractionSplit) -> None:
        """Run one trial in this process."""
        begun = self._ask()

        def tell(record: EpochRecord) -> None:
            if self._hear(begun, record):
                raise self._optuna.TrialPruned

        try:
            run_trial(split, begun.settings, tell)
        except (Diverged, self._optuna.TrialPruned):
            self._tell(begun, "PRUNED")
        except BaseException:
            self._tell(begun, "FAIL")
            raise
        else:
            self._tell(begun, "COMPLETE")

    def run_by(self, engine: Engine, split: InteractionSplit, trials: int) -> None:
        """Have an engine run trials until so many have ended."""
        graph = self._path.with_name(f".{self._path.name}.{os.getpid()}.graph").resolve()

        def commands() -> Iterator[Command]:
            while self._failure is None and trials > len(
                _ended(self._optuna, self._study, self._path)
            ) + len(self._begun):
                begun = self._ask()
                settings = begun.settings.model_dump_json(include=set(TrainConfig.model_fields))
                arguments = command_line(str(graph), settings, module="pyg_lth.trials")
                # A trial that is lost is begun anew.
                yield Command(
                    str(begun.trial.number), arguments, functools.partial(list, arguments)
                )

        write(graph, save(split.to_tensors()))
        try:
            engine.run(commands(), self)
        finally:
            for begun in list(self._begun.values()):
                self._tell(begun, "FAIL")
            graph.unlink(missing_ok=True)
        if self._failure is not None:
            raise InputError(self._failure)

    def on_line(self, name: str, line: str) -> bool:
        """Take an evaluation, and say whether the trial is to be given up."""
        try:
            record = EpochRecord.model_validate_json(line)
        except ValidationError:  # Something that a library says.
            return False
        begun = self._begun[name]
        # What is given up goes on until it hears of it.
        told = begun.given_up or record.epoch in begun.reported
        return not told and self._hear(begun, record)

    def on_end(self, name: str, outcome: Outcome) -> None:
        """Tell the study how a trial ended."""
        begun = self._begun[name]
        if begun.given_up or outcome.code == DIVERGED:
            self._tell(begun, "PRUNED")
        elif outcome.code == 0 and begun.reported:
            self._tell(begun, "COMPLETE")
        else:
            self._tell(begun, "FAIL")
            self._failure = f"trial {name} did not end well: {outcome.reason}"

    def _hear(self, begun: "_Trial", record: EpochRecord) -> bool:
        assert record.valid is not None
        self._callback(begun.trial.number, begun.drawn, record)
        begun.reported[record.epoch] = record.valid[self._config.select_by]
        begun.trial.report(begun.reported[record.epoch], record.epoch)
        begun.given_up = begun.trial.should_prune()
        return begun.given_up

    def _tell(self, begun: "_Trial", state: str) -> None:
        trial, found = begun.trial, self._optuna.trial.TrialState[state]
        del self._begun[str(trial.number)]
        if state != "FAIL":
            checksum = _checksum(trial.params, trial.distributions, begun.reported)
            trial.set_user_attr(CHECKSUM, checksum)
        value = max(begun.reported.values()) if state == "COMPLETE" else None
        self._study.tell(trial, value, found)


@dataclasses.dataclass
class _Trial:
    trial: "Trial"
    drawn: dict[str, Any]
    settings: TrainConfig
    reported: dict[int, float]
    given_up: bool = False


def _space(name: str, config: TrainConfig) -> Space:
    """Where a setting may lie beside the others: no mean begins after the last layer."""
    low, high, *kind = SPACES[name]
    if name == "layers":
        low, high = max(low, config.first_layer), max(high, config.layers)
    return Space(low, high, *kind)


def _suggest(trial: "Trial", name: str, space: Space) -> float:
    if space.whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _open(optuna: Any, path: Path, about: dict[str, Any], seed: int) -> "Study":
    """Begin a study, or go on with the one in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        study: Study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name="pyg-lth",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(TRIALS_TO_COMPARE, 0, n_min_trials=2),
        )
        kept = study.user_attrs
        number = len(study.trials)
    except Exception as error:  # SQLAlchemy's and Optuna's have no base in common.
        raise _unusable(path, error) from None
    if kept and kept != about:
        raise InputError(
            f"{path} holds a study of other settings, or on another graph: choose another file"
        )
    for name, value in about.items():
        study.set_user_attr(name, value)
    # Another stretch of random numbers for what is continued.
    study.sampler = optuna.samplers.TPESampler(seed=seed + number)
    return study


def _ended(optuna: Any, study: "Study", path: Path) -> list["FrozenTrial"]:
    """The trials that ended, each held against its checksum."""
    state = optuna.trial.TrialState
    try:
        trials = study.get_trials(states=(state.COMPLETE, state.PRUNED))
    except Exception as error:  # As in _open.
        raise _unusable(path, error) from None
    for trial in trials:
        values = trial.intermediate_values
        checksum = _checksum(trial.params, trial.distributions, values)
        whole = trial.user_attrs.get(CHECKSUM, checksum) == checksum
        if trial.state == state.COMPLETE:
            whole = whole and trial.value == max(values.values(), default=None)
        if not whole:
            raise InputError(
                f"{path} is damaged: trial {trial.number} is not what was written; bring the file "
                "back from a copy, or choose another one to begin anew"
            )
    return list(trials)


def _checksum(
    drawn: Mapping[str, Any], spaces: Mapping[str, Any], reported: Mapping[int, float]
) -> str:
    """Sixteen hexadecimal digits of what a trial drew, whence, and what it came to."""
    parts = [sorted(drawn.items()), sorted(spaces.items()), sorted(reported.items())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _unusable(path: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{path} is no study of Optuna that can be used: {reason}")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError('tuning needs Optuna: pip install "pyg-lth[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
