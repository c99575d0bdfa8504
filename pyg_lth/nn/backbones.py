"""The recommenders: PyG's LightGCN on a prepared adjacency, and matrix factorisation."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import nn
from torch_geometric.typing import Adj, OptTensor

from pyg_lth import strategies
from pyg_lth.config import TrainConfig
from pyg_lth.nn.propagation import Propagation

# The joint table's name among the parameters of a model, and parameters by their names.
TABLE = "embedding.weight"
Weights = dict[str, Tensor]


class LightGCN(nn.LightGCN):  # type: ignore[misc]
    r"""PyG's :class:`~torch_geometric.nn.models.LightGCN`, quick on a :class:`Propagation`.

    Wherever the parent takes an ``edge_index``, this class also takes a
    :class:`~pyg_lth.nn.propagation.Propagation` (``forward`` then needs its
    ``edge_label_index``); its parameters, state dict, outputs and gradients are the parent's.
    From `"LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_.

    Args:
        num_nodes (int): Users and items together.
        embedding_dim (int): Embedding dimension.
        num_layers (int): Propagation layers.
        alpha (float or torch.Tensor, optional): Layer weights, ``1 / (num_layers + 1)`` each unless
            given.
        **kwargs (optional): Arguments of :class:`~torch_geometric.nn.conv.LGConv`, used where an
            ``edge_index`` is given.

    Example:
        >>> import torch
        >>> from pyg_lth import LightGCN, Propagation
        >>> edge_index = torch.tensor([[0, 0, 1, 2, 3, 3], [2, 3, 3, 0, 0, 1]])  # 2 users, 2 items
        >>> model = LightGCN(num_nodes=4, embedding_dim=8, num_layers=3)
        >>> embedding = model.get_embedding(Propagation(edge_index, num_nodes=4))
        >>> embedding.shape
        torch.Size([4, 8])
        >>> torch.allclose(embedding, model.get_embedding(edge_index), atol=1e-6)  # PyG's own way
        True
    """

    def get_embedding(self, edge_index: Adj | Propagation, edge_weight: OptTensor = None) -> Tensor:
        """Return the propagated embeddings of all nodes, shape ``[num_nodes, embedding_dim]``.

        Args:
            edge_index: A prepared :class:`~pyg_lth.nn.propagation.Propagation`, or what the parent
                takes.
            edge_weight: Edge weights for the parent; a ``Propagation`` carries its own.
        """
        if isinstance(edge_index, Propagation):
            return edge_index.combine_layers(self.embedding.weight, self.alpha)
        out: Tensor = super().get_embedding(edge_index, edge_weight)
        return out

    def lookup(self, nodes: Tensor, propagation: Propagation | None) -> tuple[Tensor, Tensor]:
        """Return propagated and ego embeddings of a batch of nodes, without those of the others.

        Args:
            nodes: The nodes, int64, shape ``[n]``; one may come several times.
            propagation: The prepared adjacency, :obj:`None` for a backbone without layers.

        Returns:
            Rows of :meth:`get_embedding` and of the embedding table, each of shape
            ``[n, embedding_dim]``.
        """
        if not embeds_as_lightgcn(self):
            return look_up_rows(self, nodes, propagation)
        weight = self.embedding.weight
        if propagation is None:
            if self.num_layers:
                raise ValueError(f"{self.num_layers} layers need a propagation to look up through")
            ego = F.embedding(nodes, weight)
            return ego, ego
        return propagation.combine_layers_at(nodes, weight, self.alpha)


class MF(LightGCN):
    """Matrix factorisation: a LightGCN of no layers, so it never looks at the graph.

    From `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_.

    Args:
        num_nodes (int): Users and items together.
        embedding_dim (int): Embedding dimension.

    Example:
        >>> from pyg_lth import MF
        >>> model = MF(num_nodes=5, embedding_dim=8)
        >>> user, item = model.get_embedding().split([2, 3])  # 2 users, 3 items
        >>> (user @ item.t()).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_nodes: int, embedding_dim: int):
        super().__init__(num_nodes, embedding_dim, num_layers=0)

    def get_embedding(
        self, edge_index: Adj | Propagation | None = None, edge_weight: OptTensor = None
    ) -> Tensor:
        """Return the embedding table itself, shape ``[num_nodes, embedding_dim]``."""
        weight: Tensor = self.embedding.weight
        return weight


class TableModel(torch.nn.Module):
    """What a backbone of one's own starts from: a joint table, and what is made of it.

    A subclass overrides :meth:`get_embedding`, and may have other parameters beside the table. They
    are trained and rewound with it and never pruned. Buffers must not change in training. Its state
    dict is kept parameter by parameter in ``theta0.safetensors`` and ``best.safetensors``.

    Args:
        num_nodes (int): Users and items together.
        embedding_dim (int): Embedding dimension.

    Example:
        >>> import torch
        >>> import pyg_lth
        >>> class Neighbours(pyg_lth.TableModel):
        ...     def get_embedding(self, propagation):
        ...         return self.embedding.weight + propagation @ self.embedding.weight
        >>> edge_index = torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]])
        >>> model = Neighbours(num_nodes=3, embedding_dim=8)
        >>> model.get_embedding(pyg_lth.Propagation(edge_index, num_nodes=3)).shape
        torch.Size([3, 8])
    """

    def __init__(self, num_nodes: int, embedding_dim: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(num_nodes, embedding_dim)

    def get_embedding(self, propagation: Any) -> Tensor:
        """Return the embeddings that rank, shape ``[num_nodes, out_dim]``.

        Args:
            propagation: What :attr:`Backbone.propagation` made of the graph.
        """
        raise NotImplementedError

    def lookup(self, nodes: Tensor, propagation: Any) -> tuple[Tensor, Tensor]:
        """Return rows of :meth:`get_embedding` and of the table; see :meth:`LightGCN.lookup`."""
        return look_up_rows(self, nodes, propagation)


def embeds_as_lightgcn(model: torch.nn.Module) -> TypeGuard[LightGCN]:
    """Whether a model is a :class:`LightGCN` whose embeddings no subclass makes otherwise."""
    ours = LightGCN.get_embedding, MF.get_embedding
    return isinstance(model, LightGCN) and type(model).get_embedding in ours


def propagates_table(model: torch.nn.Module) -> bool:
    """Whether a model looks up its table propagated: with a lookup of its own it may be another."""
    return getattr(type(model), "lookup", None) is LightGCN.lookup


def look_up_rows(
    model: LightGCN | TableModel, nodes: Tensor, propagation: Any
) -> tuple[Tensor, Tensor]:
    """As :meth:`LightGCN.lookup`, by embedding all nodes."""
    embedding = model.get_embedding(propagation)
    return F.embedding(nodes, embedding), F.embedding(nodes, model.embedding.weight)


def normalized(edge_index: Tensor, num_nodes: int, config: TrainConfig) -> Propagation:
    """Prepare the symmetrically normalised adjacency, by the product that the settings name."""
    return Propagation(edge_index, num_nodes, config.propagation)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A way to embed users and items.

    Args:
        build: Takes the number of nodes and the settings and returns the model, a
            :class:`TableModel` or a :class:`LightGCN`.
        propagation: Takes the joint ``edge_index`` (users, then items, each edge in both
            directions), the number of nodes and the settings, and returns what the model
            propagates through. Called where there are layers.
        by_columns: Whether every column of the table propagates alone and nothing is trained beside
            it, so that it may be split by columns over workers.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.nn.backbones import BACKBONES
        >>> model = BACKBONES["lightgcn"].build(7, pyg_lth.TrainConfig(dim=4))
        >>> model.num_layers, model.embedding
        (3, Embedding(7, 4))
    """

    build: Callable[[int, TrainConfig], LightGCN | TableModel]
    propagation: Callable[[Tensor, int, TrainConfig], Any] = normalized
    by_columns: bool = False


def _lightgcn(num_nodes: int, config: TrainConfig) -> LightGCN:
    """LightGCN with the mean over the layers from ``first_layer`` on."""
    weights = torch.zeros(config.layers + 1)
    weights[config.first_layer :] = 1 / (config.layers + 1 - config.first_layer)
    return LightGCN(num_nodes, config.dim, config.layers, alpha=weights)


BACKBONES: strategies.Registry[Backbone] = strategies.BACKBONES
BACKBONES.extend(
    __name__,
    {
        "lightgcn": Backbone(_lightgcn, by_columns=True),
        "mf": Backbone(lambda nodes, config: MF(nodes, config.dim), by_columns=True),
    },
)


def build_backbone(
    config: TrainConfig, weights: Weights, device: torch.device
) -> LightGCN | TableModel:
    """Build the backbone that ``config`` names on ``device``.

    Args:
        config: The settings.
        weights: Its parameters, by their names. Of the table these may be some columns.
        device: Where to.
    """
    num_nodes, dim = weights[TABLE].shape
    model = BACKBONES[config.model].build(num_nodes, config.model_copy(update={"dim": dim}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return model.to(device)


def register_backbone(name: str, backbone: Backbone, layers: int = 0) -> None:
    """Add a backbone, which ``model`` then names in the settings.

    Args:
        name: Lower-case letters and digits, words joined by hyphens.
        backbone: The strategy.
        layers: Propagation layers unless given; with 0 it takes none.

    Raises:
        ValueError: If the name is malformed or taken.

    Example:
        >>> import pyg_lth
        >>> def build(num_nodes, config):
        ...     return pyg_lth.LightGCN(num_nodes, config.dim, config.layers, alpha=1.0)
        >>> pyg_lth.register_backbone("layers-summed", pyg_lth.Backbone(build), layers=2)
        >>> pyg_lth.TrainConfig(model="layers-summed").layers
        2
    """
    BACKBONES.register(name, backbone, strategies.calling_module(), {"layers": layers})
