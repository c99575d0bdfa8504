"""The ways to find tickets, each a small strategy of the one round loop."""

import dataclasses
from typing import Literal

from pyg_lth import criteria, rewinding
from pyg_lth.config import MethodName

Evidence = Literal["previous", "dense", "initial", "rewound", "thresholds"]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to find tickets.

    Args:
        criterion: Scores the entries of a table.
        evidence: Whose table and mask are pruned to the next density: the ``previous`` round's,
            the ``dense`` one's, the untrained ``initial`` one, the previous round's as ``imp``
            would have trained it (``rewound``), or the one with learned ``thresholds``.
        rewind: Where the survivors restart.
        rate_goes_on: Whether the learning rate goes on decaying where the previous round left it,
            instead of starting anew.
        regrows: Whether the mask moves during training, at a constant number of entries.
    """

    criterion: criteria.Criterion
    evidence: Evidence
    rewind: rewinding.Rewind
    rate_goes_on: bool = False
    regrows: bool = False


METHODS: dict[MethodName, Method] = {
    "imp": Method(criteria.magnitude, "previous", rewinding.to_initialization),
    "oneshot": Method(criteria.magnitude, "dense", rewinding.to_initialization),
    "random": Method(criteria.random, "initial", rewinding.to_initialization),
    "reinit": Method(criteria.magnitude, "rewound", rewinding.to_fresh),
    "finetune": Method(criteria.magnitude, "previous", rewinding.to_trained, rate_goes_on=True),
    "lr-rewind": Method(criteria.magnitude, "previous", rewinding.to_trained),
    "pep": Method(criteria.margin, "thresholds", rewinding.to_initialization),
    "snip": Method(criteria.saliency, "initial", rewinding.to_initialization),
    "dynamic": Method(criteria.random, "initial", rewinding.to_initialization, regrows=True),
}
