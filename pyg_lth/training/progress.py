"""How far a training has come, as data."""

from pydantic import BaseModel

from pyg_lth.evaluation.evaluator import Metrics


class EpochRecord(BaseModel):
    """What one epoch came to.

    Args:
        round: Round of the search.
        epoch: Epochs trained in this round, from 1.
        loss: Mean loss over the epoch's steps, L2 included.
        seconds: Time of the epoch and its evaluation, in seconds.
        valid: Metrics on validation, where the epoch was evaluated there.
        test: Metrics on test, where test chooses the epoch.
    """

    round: int
    epoch: int
    loss: float
    seconds: float
    valid: Metrics | None = None
    test: Metrics | None = None


class Progress(BaseModel):
    """How far a training has come, apart from its tensors.

    Args:
        round: Round of the search.
        epoch: Whole epochs done.
        step: Steps done in the epoch after those.
        seconds: Time spent on that epoch so far, in seconds.
        best_epoch: Epoch of the best evaluation, 0 before the first.
        history: One record for each whole epoch.
        finished: Whether the training has converged or run out of epochs.
    """

    round: int
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    history: list[EpochRecord] = []
    finished: bool = False

    @property
    def total_seconds(self) -> float:
        """Time of the whole epochs, evaluations included, in seconds."""
        return sum(record.seconds for record in self.history)
