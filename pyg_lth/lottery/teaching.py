"""A teacher from another run: its dense model, in what the trainings of a search learn."""

from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.problem import Problem


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
