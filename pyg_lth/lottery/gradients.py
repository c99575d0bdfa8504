"""The gradient of the training loss over all interactions at once, masked entries included."""

import torch
from torch import Tensor

from pyg_lth.nn.backbones import Weights, build_backbone
from pyg_lth.training.problem import Problem


def loss_gradient(problem: Problem, weights: Weights, generator: torch.Generator) -> Tensor:
    """Return the gradient of the mean loss over the batches of one epoch, without the L2 term.

    The embeddings are propagated once for all batches, which makes it cheap beside an epoch.

    Args:
        problem: What the trainings of a search share.
        weights: The parameters to take the gradient of the table at.
        generator: Source of the batches, on the device of ``problem``.

    Returns:
        Shape ``[num_nodes, dim]``, on that device.
    """
    model = build_backbone(problem.config, weights, problem.device)
    embedding = model.get_embedding(problem.propagation)
    leaf = embedding.detach().requires_grad_()
    for batch in problem.sampler.epoch(generator):
        out = leaf[problem.nodes(batch)]
        torch.autograd.backward(problem.loss(out, batch) / problem.sampler.steps)
    torch.autograd.backward(embedding, leaf.grad)
    gradient = model.embedding.weight.grad
    assert gradient is not None
    return gradient
