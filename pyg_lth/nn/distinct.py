"""The distinct nodes of a batch: a popular item comes often in one."""

import torch
from torch import Tensor

from pyg_lth import kernels


def distinct_nodes(nodes: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """List the distinct nodes of a batch, and the place of each of its nodes in that list.

    Args:
        nodes: Int64, shape ``[n]``, each below ``num_nodes``.
        num_nodes: Number of nodes there are.

    Returns:
        Two tensors, int64: the distinct nodes in no special order, and places of shape ``[n]``.

    Raises:
        IndexError: If a node is not one of those there are.
    """
    if not kernels.usable(nodes.device):
        listed, place = torch.unique(nodes, return_inverse=True)
        # Sorted, so that its ends tell.
        if listed.numel() and (listed[0] < 0 or listed[-1] >= num_nodes):
            raise IndexError(f"a node is out of range: there are {num_nodes}")
        return listed, place
    nodes = nodes.contiguous()
    # Half of a hash table stays free, so that a search in it is short.
    slot = torch.full((2 << nodes.numel().bit_length(),), -1, dtype=torch.int32)
    listed, place, count = torch.empty_like(nodes), torch.empty_like(nodes), nodes.new_empty(1)
    sizes = (nodes.numel(), num_nodes, slot, slot.numel())
    kernels.call("distinct", nodes, *sizes, listed, place, count)
    if count < 0:
        raise IndexError(f"a node is out of range: there are {num_nodes}")
    return listed[: int(count)], place


def add_up(rows: Tensor, place: Tensor, count: int) -> Tensor:
    """Add up the rows that have the same place.

    Args:
        rows: Shape ``[n, dim]``, float.
        place: Int64 below ``count``, shape ``[n]``.
        count: Number of places.

    Returns:
        Shape ``[count, dim]``.
    """
    if rows.dtype != torch.float or not kernels.usable(rows.device):
        return rows.new_zeros(count, rows.size(1)).index_add_(0, place, rows)
    out = rows.new_empty(count, rows.size(1))
    kernels.call("add_up", place, place.numel(), rows.contiguous(), rows.size(1), count, out)
    return out
