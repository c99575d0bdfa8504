"""Sparse training that moves its mask: drop by magnitude, grow by gradient."""

import dataclasses
import math
from collections.abc import Sequence

from pyg_lth import seeding
from pyg_lth.lottery.gradients import loss_gradient
from pyg_lth.nn.backbones import TABLE, Weights
from pyg_lth.pruning import selection
from pyg_lth.pruning.masks import Budget, Mask
from pyg_lth.training.problem import Problem

# Share of the living entries that the first exchange replaces, and the epoch of the last exchange.
FIRST_SHARE, LAST_EPOCH = 0.3, 100


class Regrowth:
    """Exchanges entries of a mask after each epoch, fewer each time, and none at the end.

    From `"Dynamic Sparse Learning: A Novel Paradigm for Efficient Recommendation"
    <https://arxiv.org/abs/2402.02855>`_: the smallest living entries make room for those that the
    loss would change fastest, and the share exchanged decays along half a cosine.

    Args:
        problem: What the trainings of a search share.
        round: Round of the search.
        budgets: What each part of the table keeps throughout.
    """

    def __init__(self, problem: Problem, round: int, budgets: Sequence[Budget]):
        self._problem = problem
        self._round = round
        self._budgets = budgets
        self._last = min(LAST_EPOCH, problem.config.max_epochs)

    def __call__(self, weights: Weights, mask: Mask, epoch: int) -> Mask:
        """Return the mask to go on with.

        Args:
            weights: The parameters after the epoch.
            mask: What lives in it.
            epoch: Epochs trained.
        """
        if epoch >= self._last:
            return mask
        share = FIRST_SHARE / 2 * (1 + math.cos(math.pi * epoch / self._last))
        exchanged = [_exchanged(budget, share) for budget in self._budgets]
        kept = [
            dataclasses.replace(budget, keep=budget.keep - count)
            for budget, count in zip(self._budgets, exchanged, strict=True)
        ]
        grown = [
            dataclasses.replace(budget, keep=count)
            for budget, count in zip(self._budgets, exchanged, strict=True)
        ]
        living = self._problem.as_weighed(weights[TABLE])
        survivors = selection.prune(living.abs().cpu(), mask, kept)
        source = seeding.generator(
            self._problem.config.seed, "regrowth", self._round, epoch, device=self._problem.device
        )
        gradient = loss_gradient(self._problem, weights, source)
        return survivors | selection.prune(gradient.abs().cpu(), ~survivors, grown)


def _exchanged(budget: Budget, share: float) -> int:
    """How many entries of a block make room for others."""
    # No more than there is room for: what is grown was dead, or has just been dropped.
    count = math.floor(budget.keep * share)
    rows = budget.rows.stop - budget.rows.start
    # Rows that each have their own threshold exchange equally many.
    return count - count % rows if budget.each_row else count
