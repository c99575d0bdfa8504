"""What a run takes from another: the masks that it trains under, a teacher."""

from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.lottery.evidence import rotated, rotated_at_first
from pyg_lth.lottery.methods import METHODS
from pyg_lth.lottery.rewinding import to_initialization
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.strategies import BACKBONES
from pyg_lth.training.problem import Problem
from pyg_lth.workers import Workers


def masks_to_train_under(
    config: TrainConfig,
    seeds: int,
    fingerprint: str,
    resumed: RunFolder | None,
    workers: Workers,
) -> list[RunFolder | None]:
    """The run that each seed takes its masks from, after checking what does not go together."""
    if not isinstance(config, PruneConfig):
        return [None]
    method = METHODS[config.method]
    if config.rewind_epoch and method.rewind is not to_initialization:
        raise InputError(f"`rewind_epoch` does not go with `method={config.method}`")
    if config.mask_from is None:
        return [None] * seeds
    if method.regrows or method.evidence in (rotated, rotated_at_first):
        does = "moves its masks" if method.regrows else "takes its masks and θ₀ from one basis"
        raise InputError(f"`mask_from` does not go with `method={config.method}`, which {does}")
    source = _other_run("mask_from", config.mask_from, fingerprint, resumed, workers)
    found = source.read_config()
    if found["dim"] != config.dim:
        raise InputError(
            f"`mask_from={config.mask_from}`: its masks are of another dimension; take "
            f"`dim={found['dim']}`, or another run"
        )
    theirs = found.get("seeds", 1)
    if theirs not in (1, seeds):
        raise InputError(
            f"`mask_from={config.mask_from}` has {theirs} seeds: take `seeds={theirs}`, or a run "
            "of one seed"
        )
    of_seeds = [source.of_seed(found["seed"] + index) for index in range(theirs)]
    sources = [source] * seeds if theirs == 1 else of_seeds
    rounds = min(len(folder.read_results()) for folder in sources) - 1
    if rounds < config.rounds:
        raise InputError(
            f"`mask_from={config.mask_from}` has masks of {max(rounds, 0)} rounds: give `rounds` "
            "with no more than that"
        )
    return list(sources)


def teachers_of(
    config: TrainConfig,
    seeds: int,
    fingerprint: str,
    resumed: RunFolder | None,
    workers: Workers,
) -> list[RunFolder | None]:
    """The run whose dense model teaches each seed, after checking that it may and can."""
    if config.teacher is None:
        return [None] * seeds
    named = f"`teacher={config.teacher}`"
    source = _other_run("teacher", config.teacher, fingerprint, resumed, workers)
    theirs = source.read_settings()
    for setting in ("loss", "temperature", "negatives_by"):
        own, other = getattr(config, setting), getattr(theirs, setting)
        if own != other:
            raise InputError(
                f"{named} was trained with `{setting}={other}`, and its scores mean something else "
                f"with `{setting}={own}`: take the same"
            )
    if config.select_on == "valid" and theirs.select_on == "test":
        raise InputError(
            f"{named} has chosen on test, which is not to be looked at with `select_on=valid`: "
            "take a run that chose on validation, or `select_on=test`"
        )
    if workers.size > (theirs.dim if BACKBONES[theirs.model].by_columns else 1):
        raise InputError(
            f"{named} cannot be shared by `workers={workers.size}`: take fewer, or a teacher with "
            "more columns"
        )
    count = theirs.seeds if isinstance(theirs, PruneConfig) else 1
    found: list[RunFolder | None] = []
    for seed in range(config.seed, config.seed + seeds):
        # What another seed holds out for validation it has trained on.
        if not theirs.seed <= seed < theirs.seed + count:
            raise InputError(
                f"{named} has no `seed={seed}`, and another may have trained on what this one "
                "validates with: take the same seeds"
            )
        own = source.of_seed(seed) if count > 1 else source
        if own.read_result(0) is None:
            raise InputError(f"{named} has no dense model yet: wait for it, or `resume` it")
        found.append(own)
    return found


def taught(problem: Problem, teacher: RunFolder | None, refit: bool = False) -> Problem:
    """Return a problem with the dense model of another run as its teacher.

    Args:
        problem: The problem.
        teacher: Folder of the other run; without one ``problem`` itself is returned.
        refit: Whether to take what that run trained once more on train and validation, if it did.
    """
    if teacher is None:
        return problem
    # It is computed as the search is, whatever the other run was computed by.
    here = {"propagation": problem.config.propagation}
    config = teacher.read_settings().model_copy(update=here)
    again = teacher.of_refit()
    source = again if refit and again.read_result(0) is not None else teacher
    return problem.taught_by(source.read_weights(0), config)


def _other_run(
    setting: str, path: str, fingerprint: str, resumed: RunFolder | None, workers: Workers
) -> RunFolder:
    """The run that a setting names, which a run that goes on finds where it was begun."""
    source = RunFolder(resumed.locate(path) if resumed else path, workers)
    source.read_config()
    if source.read_environment().get("graph") != fingerprint:
        raise InputError(
            f"`{setting}={path}` is of another graph: take a run on the same data set, read alike"
        )
    return source
