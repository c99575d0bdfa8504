"""The distinct nodes of a batch: a popular item comes often in one."""

import torch
from torch import Tensor

from pyg_lth import kernels


class DistinctNodes:
    """Finds the distinct nodes of one batch after the other, on a CPU.

    Args:
        num_nodes: Number of nodes there are.
    """

    def __init__(self, num_nodes: int):
        self._slot = torch.full((num_nodes,), -1, dtype=torch.int32)

    def find(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """List the distinct nodes, and the place of each of ``nodes`` in that list.

        Args:
            nodes: Int64, shape ``[n]``, each below ``num_nodes``.

        Returns:
            Two tensors, int64: the distinct nodes in no special order, and places of shape ``[n]``.

        Raises:
            IndexError: If a node is not one of those there are.
        """
        if not kernels.usable(nodes.device):
            listed, place = torch.unique(nodes, return_inverse=True)
            return listed, place
        nodes = nodes.contiguous()
        listed, place, count = torch.empty_like(nodes), torch.empty_like(nodes), nodes.new_empty(1)
        sizes = (nodes.numel(), self._slot.numel())
        kernels.call("distinct", nodes, *sizes, self._slot, listed, place, count)
        if count < 0:
            raise IndexError(f"a node is out of range: there are {self._slot.numel()}")
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
