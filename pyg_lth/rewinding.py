"""Where the survivors of a pruning restart."""

from collections.abc import Callable

from torch import Tensor

Rewind = Callable[[Tensor, Tensor], Tensor]


def to_initialization(initial: Tensor, trained: Tensor) -> Tensor:
    """Restart from θ₀, copied back and never drawn again (paper, Section 3.2).

    Args:
        initial: The initialisation θ₀, shape ``[num_nodes, dim]``.
        trained: The trained embeddings that the mask was read from, in the same shape.
    """
    return initial
