"""What a caller may hear of a search."""

from pyg_lth.config import TrainConfig
from pyg_lth.interactions import InteractionSplit
from pyg_lth.pruning.masks import Mask
from pyg_lth.results.report import Popularity, RoundResult
from pyg_lth.training.progress import EpochRecord
from pyg_lth.training.trainer import Training


class Callback:
    """What a caller may want to hear of a search; every method does nothing unless overridden.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> class Printer(pyg_lth.Callback):
        ...     def on_round_end(self, result):
        ...         print(f"round {result.round} keeps {result.density:.1%}")
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.PruneConfig(model="mf", dim=8, max_epochs=5, rounds=2)
        >>> report = pyg_lth.find_tickets(data, config, callback=Printer())
        round 0 keeps 100.0%
        round 1 keeps 90.0%
        round 2 keeps 81.0%
    """

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """The graph is ready and the run claimed; of several seeds, comes once for each."""

    def on_popularity(self, popularity: Popularity) -> None:
        """The popularity ranking was evaluated."""

    def on_auxiliary_start(self, training: Training, mask: Mask) -> None:
        """A training begins, or continues, that only finds the mask of the round to come."""

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """A round begins, or continues where it was left; ``training.progress`` moves with it."""

    def on_refit_start(self, training: Training, mask: Mask) -> None:
        """A round is trained once more on train and validation, or that training continues."""

    def on_refit_end(self, result: RoundResult) -> None:
        """That training ended."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""

    def on_round_end(self, result: RoundResult) -> None:
        """A round ended, or had ended before the run was resumed."""


class Together(Callback):
    """Several callbacks as one; each hears of everything, in turn.

    Args:
        callbacks: The callbacks.
    """

    def __init__(self, *callbacks: Callback):
        self._callbacks = callbacks

    def on_start(self, config: TrainConfig, split: InteractionSplit) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_start(config, split)

    def on_popularity(self, popularity: Popularity) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_popularity(popularity)

    def on_auxiliary_start(self, training: Training, mask: Mask) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_auxiliary_start(training, mask)

    def on_round_start(self, training: Training, mask: Mask) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_round_start(training, mask)

    def on_refit_start(self, training: Training, mask: Mask) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_refit_start(training, mask)

    def on_refit_end(self, result: RoundResult) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_refit_end(result)

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_epoch(record)

    def on_round_end(self, result: RoundResult) -> None:
        """Tell all."""
        for callback in self._callbacks:
            callback.on_round_end(result)
