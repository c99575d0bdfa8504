"""What a mask is read from: the table, trained or not, that is pruned to the density of a round."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_lth import seeding
from pyg_lth.config import PruneConfig
from pyg_lth.lottery.pep import ThresholdSearch
from pyg_lth.nn.backbones import TABLE, Weights
from pyg_lth.pruning import selection
from pyg_lth.pruning.masks import Budget, Mask, budgets
from pyg_lth.pruning.rotation import quartimax
from pyg_lth.results.report import RoundResult
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training

AfterEpoch = Callable[[Training], None]


class OutOfReach(Exception):
    """A method has no mask of the density that the next round asks for."""


class Found(NamedTuple):
    """A mask and where it comes from.

    Args:
        mask: The mask.
        trained: The table that goes with it, shape ``[num_nodes, dim]``.
        seconds: Time of the trainings that it took to find, in seconds.
        initial: The table that survivors rewind to, where it is not θ₀ as it was drawn.
    """

    mask: Mask
    trained: Tensor
    seconds: float
    initial: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Search:
    """A search of one seed as far as it has come, and its means to train for a mask.

    Args:
        config: The settings.
        problem: What its trainings share.
        folder: Keeps the run.
        theta0: The initialisation θ₀.
        results: The rounds so far; grows with them.
        train: Runs an auxiliary training, one that only finds a mask, to its end; takes the
            training and what to call after each of its epochs, and can be interrupted and resumed.
    """

    config: PruneConfig
    problem: Problem
    folder: RunFolder
    theta0: Weights
    results: list[RoundResult]
    train: Callable[[Training, AfterEpoch], None]

    def budgets(self, round: int) -> list[Budget]:
        """What each part of the table may keep in a round."""
        users, shape = self.problem.split.num_users, self.problem.shape
        return budgets(self.config.scope, users, shape, self.config.amount, round)

    @property
    def initial(self) -> Tensor:
        """The table of θ₀, shape ``[num_nodes, dim]``."""
        return self.theta0[TABLE]

    def restart(self) -> Weights:
        """θ₀, or what became of it in the epochs of the dense round before late rewinding's."""
        return self.folder.read_late() if self.config.rewind_epoch else self.theta0

    @functools.cached_property
    def basis(self) -> Tensor:
        """The one in which few entries of the dense round's table hold most of it."""
        return quartimax(self.problem.as_scored(self.of_round(0).trained))

    def of_round(self, round: int) -> Found:
        """A finished round: its mask, its best table, and what it took to get there."""
        return Found(*self.folder.read_round(round), self.results[round].cost_seconds)


Evidence = Callable[[Search, int], Found]


def initial(search: Search, round: int) -> Found:
    """The untrained table, whole.

    Args:
        search: The search so far.
        round: The round whose mask is sought, from 1.

    Returns:
        The living entries to choose among, the table to score, and what it took to train.
    """
    return Found(Mask.ones(*search.initial.shape), search.initial, 0.0)


def dense(search: Search, round: int) -> Found:
    """The table of the dense round; arguments as in :func:`initial`."""
    return search.of_round(0)


def rotated(search: Search, round: int) -> Found:
    """The table of the dense round, and θ₀, in the basis in which few entries hold most of it.

    Arguments are as in :func:`initial`. See :func:`~pyg_lth.pruning.rotation.quartimax`.
    """
    mask, table, seconds, _ = search.of_round(0)
    return Found(mask, table @ search.basis, seconds, search.restart()[TABLE] @ search.basis)


def rotated_at_first(search: Search, round: int) -> Found:
    """As :func:`rotated` for the first round, then the table of the round before.

    Arguments are as in :func:`initial`. What goes on from there stays in that basis.
    """
    return rotated(search, round) if round == 1 else previous(search, round)


def previous(search: Search, round: int) -> Found:
    """The table of the round before; arguments as in :func:`initial`."""
    return search.of_round(round - 1)


def rewound(search: Search, round: int) -> Found:
    """The round before as ``imp`` has it, trained from θ₀; arguments as in :func:`initial`.

    These are auxiliary trainings, which a search does beside its own rounds.
    """
    before = round - 1
    if before == 0:
        return dense(search, round)
    folder = search.folder
    if not folder.has_auxiliary(before):
        earlier = rewound(search, before)
        mask = _prune_by_magnitude(search, earlier, before)
        training = Training(search.problem, search.restart(), mask, before)
        search.train(training, lambda training: None)
        seconds = earlier.seconds + training.progress.total_seconds
        folder.write_auxiliary(before, training.best_weights[TABLE], seconds, mask)
    return Found(*folder.read_auxiliary(before))


def shuffled(search: Search, round: int) -> Found:
    """A one for each entry of a mask like ``imp``'s, but in columns drawn anew for each row.

    As many live in each row as in ``imp``'s mask of the round. Arguments are as in
    :func:`initial`.
    """
    before = rewound(search, round)
    alive = _prune_by_magnitude(search, before, round).table
    source = seeding.generator(search.config.seed, "shuffling", round)
    rank = torch.rand(alive.shape, generator=source).argsort(dim=1)
    drawn = rank < alive.sum(dim=1, keepdim=True)
    return Found(Mask.ones(*alive.shape), drawn.float(), before.seconds)


def _prune_by_magnitude(search: Search, found: Found, round: int) -> Mask:
    scores = search.problem.as_weighed(found.trained).abs()
    return selection.prune(scores, found.mask, search.budgets(round))


def thresholds(search: Search, round: int) -> Found:
    """How far entries lay above learned thresholds when few enough did for the round.

    Where there never were that few, it is how far they lay at last. Arguments are as in
    :func:`initial`. One auxiliary training finds the masks of all rounds.
    """
    folder = search.folder

    def keep_margins(learning: Training) -> None:
        assert isinstance(learning, ThresholdSearch)
        margin = learning.margin()
        for later in range(1, search.config.rounds + 1):
            if folder.has_auxiliary(later):
                continue
            budgets = search.budgets(later)
            few = all((margin[budget.rows] > 0).sum() <= budget.keep for budget in budgets)
            if not (few or learning.progress.finished):
                return
            folder.write_auxiliary(later, margin, learning.progress.total_seconds, learning.mask)
        learning.progress.finished = True

    if not folder.has_auxiliary(round):
        search.train(ThresholdSearch(search.problem, search.theta0), keep_margins)
    return Found(*folder.read_auxiliary(round))
