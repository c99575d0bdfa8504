"""One trial of a search for settings: a dense training that tells each of its evaluations."""

import sys
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load

from pyg_lth import runtime
from pyg_lth.config import TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning.masks import Mask
from pyg_lth.training.problem import Problem, choose_device
from pyg_lth.training.progress import EpochRecord
from pyg_lth.training.trainer import Training

# The exit code of a trial that diverged.
DIVERGED = 5


class Diverged(InputError):
    """A training that its settings made diverge."""


def run_trial(
    split: InteractionSplit, settings: TrainConfig, tell: Callable[[EpochRecord], None]
) -> float:
    """Train densely, and return the best metric on validation.

    Args:
        split: The interactions, with validation.
        settings: Of the training.
        tell: Called after each evaluation; what it raises ends the trial.

    Raises:
        Diverged: If the loss or the embeddings are no longer finite.
        InputError: If the settings do not go with the graph.
    """
    problem = Problem.prepare(split, settings, choose_device(settings))
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    try:
        training.run(lambda record: tell(record) if record.valid is not None else None)
    except InputError as error:
        raise Diverged(str(error)) from None
    assert training.best_metrics is not None
    return training.best_metrics[settings.select_by]


def main() -> None:
    """Run the trial of the graph and the settings that the arguments name, in this process.

    Each evaluation is a line of JSON on stderr.
    """
    runtime.tune()
    graph, settings = sys.argv[1:]
    try:
        run_trial(
            InteractionSplit.from_tensors(load(Path(graph).read_bytes())),
            TrainConfig.model_validate_json(settings),
            lambda record: print(record.model_dump_json(), file=sys.stderr, flush=True),
        )
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(DIVERGED if isinstance(error, Diverged) else 2)
