"""The ways to find tickets, each a small strategy of the one round loop."""

import dataclasses

from pyg_lth import strategies
from pyg_lth.lottery import evidence, rewinding
from pyg_lth.lottery.evidence import Evidence
from pyg_lth.pruning import criteria


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to find tickets.

    Args:
        criterion: Scores the entries of a table.
        evidence: Whose table and mask are pruned to the density of a round.
        rewind: Where the survivors restart.
        rate_goes_on: Whether the learning rate goes on decaying where the previous round left it,
            instead of starting anew.
        regrows: Whether the mask moves during training, at a constant number of entries.
        by_columns: Whether criterion, evidence and rewinding do the same to every column by itself,
            and draw nothing, so that the table may be split by columns over workers.

    Example:
        >>> from pyg_lth.lottery.methods import METHODS
        >>> METHODS["oneshot"].evidence.__name__, METHODS["oneshot"].rewind.__name__
        ('dense', 'to_initialization')
    """

    criterion: criteria.Criterion
    evidence: Evidence
    rewind: rewinding.Rewind
    rate_goes_on: bool = False
    regrows: bool = False
    by_columns: bool = False


METHODS: strategies.Registry[Method] = strategies.METHODS
METHODS.extend(
    __name__,
    {
        "imp": Method(
            criteria.magnitude, evidence.previous, rewinding.to_initialization, by_columns=True
        ),
        "oneshot": Method(
            criteria.magnitude, evidence.dense, rewinding.to_initialization, by_columns=True
        ),
        "rotate": Method(criteria.magnitude, evidence.rotated, rewinding.to_initialization),
        "random": Method(criteria.random, evidence.initial, rewinding.to_initialization),
        "reinit": Method(criteria.magnitude, evidence.rewound, rewinding.to_fresh),
        "finetune": Method(
            criteria.magnitude,
            evidence.previous,
            rewinding.to_trained,
            rate_goes_on=True,
            by_columns=True,
        ),
        "lr-rewind": Method(
            criteria.magnitude, evidence.previous, rewinding.to_trained, by_columns=True
        ),
        "rotate-lr-rewind": Method(
            criteria.magnitude, evidence.rotated_at_first, rewinding.to_trained
        ),
        "pep": Method(criteria.given, evidence.thresholds, rewinding.to_initialization),
        "snip": Method(
            criteria.saliency, evidence.initial, rewinding.to_initialization, by_columns=True
        ),
        "dynamic": Method(
            criteria.random, evidence.initial, rewinding.to_initialization, regrows=True
        ),
        "narrow": Method(criteria.first_columns, evidence.initial, rewinding.to_initialization),
        "shuffle": Method(criteria.given, evidence.shuffled, rewinding.to_initialization),
    },
)


def register_method(name: str, method: Method) -> None:
    """Add a way to find tickets, which ``method`` then names in the settings.

    Args:
        name: Lower-case letters and digits, words joined by hyphens.
        method: The strategy.

    Raises:
        ValueError: If the name is malformed or taken.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.lottery import evidence, rewinding
        >>> from pyg_lth.lottery.methods import Method
        >>> def longest_rows(weight, generator, gradient):
        ...     return weight.norm(dim=1, keepdim=True).expand_as(weight)
        >>> rows = Method(longest_rows, evidence.dense, rewinding.to_initialization)
        >>> pyg_lth.register_method("longest-rows", rows)
        >>> pyg_lth.PruneConfig(method="longest-rows").method
        'longest-rows'
    """
    METHODS.register(name, method, strategies.calling_module(), {})
