"""A method, two backbones and a loss of somebody else's."""

import torch
from torch import nn
from torch_geometric.utils import add_self_loops

import pyg_lth
from pyg_lth.lottery import evidence, rewinding


def largest_rows(weight, generator, gradient):
    """Keep whole rows, those of the largest norm."""
    return weight.norm(dim=1, keepdim=True).expand_as(weight)


def with_loops(edge_index, num_nodes, config):
    """Let every node hear itself, too."""
    looped, _ = add_self_loops(edge_index, num_nodes=num_nodes)
    return pyg_lth.Propagation(looped, num_nodes, config.propagation)


class NGCF(pyg_lth.TableModel):
    """After "Neural Graph Collaborative Filtering" (arXiv 1905.08108), without dropout."""

    def __init__(self, num_nodes, config):
        super().__init__(num_nodes, config.dim)
        self.sums, self.products = (
            nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(config.layers))
            for _ in range(2)
        )

    def get_embedding(self, propagation):
        x = self.embedding.weight
        layers = [x]
        for linear, bilinear in zip(self.sums, self.products, strict=True):
            near = propagation @ x
            x = nn.functional.leaky_relu(linear(x + near) + bilinear(near * x), 0.2)
            layers.append(nn.functional.normalize(x))
        return torch.cat(layers, dim=1)


pyg_lth.register_method(
    "largest-rows",
    pyg_lth.Method(largest_rows, evidence.dense, rewinding.to_initialization),
)
pyg_lth.register_backbone(
    "looped",
    pyg_lth.Backbone(lambda n, config: pyg_lth.LightGCN(n, config.dim, config.layers), with_loops),
    layers=2,
)
pyg_lth.register_backbone("ngcf", pyg_lth.Backbone(NGCF), layers=2)
