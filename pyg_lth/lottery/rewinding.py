"""Where the survivors of a pruning restart."""

from collections.abc import Callable

import torch
from torch import Tensor

Rewind = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def to_initialization(initial: Tensor, trained: Tensor, generator: torch.Generator) -> Tensor:
    """Restart from θ₀, copied back and never drawn again (paper, Section 3.2).

    Late rewinding is this with the θ of a later epoch for θ₀, from `"Stabilizing the Lottery Ticket
    Hypothesis" <https://arxiv.org/abs/1903.01611>`_.

    Args:
        initial: The initialisation θ₀, shape ``[num_nodes, dim]``.
        trained: The trained embeddings that the mask was read from, in the same shape.
        generator: Not used.
    """
    return initial


def to_trained(initial: Tensor, trained: Tensor, generator: torch.Generator) -> Tensor:
    """Go on from the trained embeddings, as fine-tuning and learning-rate rewinding do.

    Args:
        initial: Not used.
        trained: As in :func:`to_initialization`.
        generator: Not used.
    """
    return trained


def to_fresh(initial: Tensor, trained: Tensor, generator: torch.Generator) -> Tensor:
    """Restart from a new draw: the control that tells what θ₀ itself is worth.

    Args:
        initial: As in :func:`to_initialization`; only its shape is used.
        trained: Not used.
        generator: Source of the draw, on the CPU.
    """
    if initial.dim() < 2:
        # Xavier knows no vectors; a backbone of one's own may have some, such as a bias.
        return initial
    return torch.nn.init.xavier_uniform_(torch.empty_like(initial), generator=generator)
