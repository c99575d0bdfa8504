"""What scores an entry of a table."""

from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]
Criterion = Callable[[Tensor, torch.Generator, Gradient], Tensor]


def magnitude(weight: Tensor, generator: torch.Generator, gradient: Gradient) -> Tensor:
    """Score an entry by its absolute value (paper, Section 3.2).

    Args:
        weight: Trained embeddings, shape ``[num_nodes, dim]``.
        generator: Not used.
        gradient: Not used.
    """
    return weight.abs()


def random(weight: Tensor, generator: torch.Generator, gradient: Gradient) -> Tensor:
    """Score every entry by chance: the control that a ticket has to beat.

    Args:
        weight: Embeddings; only the shape ``[num_nodes, dim]`` is used.
        generator: Source of the scores, on the CPU.
        gradient: Not used.
    """
    return torch.rand(weight.shape, generator=generator)


def saliency(weight: Tensor, generator: torch.Generator, gradient: Gradient) -> Tensor:
    """Score an entry by what the loss would change without it, to first order.

    From `"SNIP: Single-shot Network Pruning based on Connection Sensitivity"
    <https://arxiv.org/abs/1810.02340>`_, Equation 6 without its norm, which changes no order.

    Args:
        weight: Embeddings, shape ``[num_nodes, dim]``.
        generator: Not used.
        gradient: Returns the gradient of the loss at a table, in its shape.
    """
    return (weight * gradient(weight)).abs()


def first_columns(weight: Tensor, generator: torch.Generator, gradient: Gradient) -> Tensor:
    """Score an entry by its column, the first highest: a smaller dense table, which needs no mask.

    Args:
        weight: Embeddings; only the shape ``[num_nodes, dim]`` is used.
        generator: Not used.
        gradient: Not used.
    """
    return torch.arange(weight.size(1), 0, -1.0).expand_as(weight)


def given(weight: Tensor, generator: torch.Generator, gradient: Gradient) -> Tensor:
    """Score an entry by what the evidence says of it, which is a score already.

    Args:
        weight: The scores, shape ``[num_nodes, dim]``.
        generator: Not used.
        gradient: Not used.
    """
    return weight
