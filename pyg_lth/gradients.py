"""The gradient of the training loss over all interactions at once, masked entries included."""

import torch
from torch import Tensor

from pyg_lth.backbones import build_backbone
from pyg_lth.losses import LOSSES
from pyg_lth.training import Workbench


def loss_gradient(bench: Workbench, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return the gradient of the mean loss over the batches of one epoch, without the L2 term.

    The embeddings are propagated once for all batches, which makes it cheap beside an epoch.

    Args:
        bench: What the trainings of a search share.
        weight: The table to take the gradient at, shape ``[num_nodes, dim]``.
        generator: Source of the batches, on the device of ``bench``.

    Returns:
        Shape ``[num_nodes, dim]``, on that device.
    """
    loss = LOSSES[bench.config.loss]
    model = build_backbone(bench.config, weight.size(0), bench.device)
    with torch.no_grad():
        model.embedding.weight.copy_(weight)
    embedding = model.get_embedding(bench.propagation)
    leaf = embedding.detach().requires_grad_()
    for batch in bench.sampler.epoch(generator):
        out = leaf[bench.nodes(batch)]
        torch.autograd.backward(loss.of_batch(out, batch, bench.config) / bench.sampler.steps)
    torch.autograd.backward(embedding, leaf.grad)
    gradient: Tensor = model.embedding.weight.grad
    return gradient
