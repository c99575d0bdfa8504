"""What a training step looks up in the embedding table, and how Adam then changes the table."""

import math

import torch
from torch import Tensor

from pyg_lth import kernels
from pyg_lth.backbones import LightGCN
from pyg_lth.batches import DistinctNodes, add_up
from pyg_lth.masks import Mask, apply_mask
from pyg_lth.propagation import Propagation

# Of Adam, from "Adam: A Method for Stochastic Optimization" (arXiv 1412.6980).
BETAS, EPSILON = (0.9, 0.999), 1e-8

# Steps that a row may miss before all rows are brought up to date.
STEPS_BEHIND = 1024


class DenseUpdate:
    """Adam on the whole table, as torch has it.

    Args:
        model: The backbone; its table is masked in place.
        mask: Which entries live.
        propagation: The normalised adjacency, :obj:`None` for a backbone without layers.
        lr: Learning rate.
    """

    def __init__(self, model: LightGCN, mask: Mask, propagation: Propagation | None, lr: float):
        self._model = model
        self._propagation = propagation
        self._parameter = apply_mask(model, mask)
        self._optimizer = torch.optim.Adam(
            [self._parameter],
            lr=lr,
            betas=BETAS,
            eps=EPSILON,
            fused=True,
            capturable=self._parameter.is_cuda,
        )

    def lookup(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return propagated and ego embeddings of a batch's nodes, each of shape ``[n, dim]``.

        Args:
            nodes: Int64, shape ``[n]``; one may come several times.
        """
        return self._model.lookup(nodes, self._propagation)

    def apply(self, loss: Tensor) -> None:
        """Take the step of Adam that a loss on what was looked up asks for."""
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()

    def settle(self) -> None:
        """Bring every row up to date, which they always are here."""

    def tensors(self) -> dict[str, Tensor]:
        """Weight (masked entries zero) and state of Adam, up to date and not copied."""
        state = self._optimizer.state[self._parameter]
        return {
            "weight": self._parameter.detach(),
            **{f"optimizer.{name}": value for name, value in state.items()},
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what :meth:`tensors` returned."""
        prefix = "optimizer."
        with torch.no_grad():
            self._parameter.copy_(tensors["weight"])
        self._optimizer.state[self._parameter] = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }


class RowUpdate:
    """Adam on the batch's rows alone, for a backbone without layers; equal to Adam bit for bit.

    A row without a gradient still moves while its moments decay. The steps that it missed are made
    up for when it is looked up next, one by one: with the ``epsilon`` of Adam their sum has no
    closed form.

    Args:
        model: The backbone; its table is masked in place.
        mask: Which entries live.
        lr: Learning rate.
    """

    def __init__(self, model: LightGCN, mask: Mask, lr: float):
        self._weight = apply_mask(model, mask).detach()
        self._living = model.embedding.get_buffer("parametrizations.weight.0.mask")
        self._lr = lr
        self._mean, self._square = (torch.zeros_like(self._weight) for _ in range(2))
        self._done = torch.zeros(self._weight.size(0), dtype=torch.int32)
        self._distinct = DistinctNodes(self._weight.size(0))
        self._scales = torch.empty(2, STEPS_BEHIND)
        self._settled = 0  # steps at which all rows were last up to date
        self._steps = 0  # steps since then

    def lookup(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`DenseUpdate.lookup`."""
        self._rows, self._place = self._distinct.find(nodes)
        self._run(self._rows)
        self._looked_up = self._weight.index_select(0, nodes).requires_grad_()
        return self._looked_up, self._looked_up

    def apply(self, loss: Tensor) -> None:
        """As :meth:`DenseUpdate.apply`."""
        (gradient,) = torch.autograd.grad(loss, self._looked_up)
        step = self._settled + self._steps + 1
        self._scales[0, self._steps] = self._lr / (1 - BETAS[0] ** step)
        self._scales[1, self._steps] = math.sqrt(1 - BETAS[1] ** step)
        gradient = add_up(gradient, self._place, self._rows.numel())
        self._run(self._rows, gradient.mul_(self._living.index_select(0, self._rows)))
        self._steps += 1
        if self._steps == STEPS_BEHIND:
            self.settle()

    def settle(self) -> None:
        """As :meth:`DenseUpdate.settle`."""
        if self._steps:
            self._run(None)
            self._done.zero_()
            self._settled, self._steps = self._settled + self._steps, 0

    def _run(self, rows: Tensor | None, gradient: Tensor | None = None) -> None:
        """Make up for the missed steps of some rows, or of all, and take one with a gradient."""
        kernels.call(
            "adam_rows",
            *(1 - BETAS[0], BETAS[1], 1 - BETAS[1], EPSILON, self._scales[0], self._scales[1]),
            *(rows, self._weight.size(0) if rows is None else rows.numel(), self._weight.size(1)),
            *(self._weight, self._mean, self._square, self._done, self._steps, gradient),
        )

    def tensors(self) -> dict[str, Tensor]:
        """As :meth:`DenseUpdate.tensors`."""
        self.settle()
        return {
            "weight": self._weight,
            "optimizer.step": torch.tensor(float(self._settled)),
            "optimizer.exp_avg": self._mean,
            "optimizer.exp_avg_sq": self._square,
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """As :meth:`DenseUpdate.restore`."""
        self._weight.copy_(tensors["weight"])
        self._mean.copy_(tensors["optimizer.exp_avg"])
        self._square.copy_(tensors["optimizer.exp_avg_sq"])
        self._settled = int(tensors["optimizer.step"])


def build_update(
    model: LightGCN, mask: Mask, propagation: Propagation | None, lr: float
) -> DenseUpdate | RowUpdate:
    """Choose the update that costs least: rows alone where the gradient has few."""
    if propagation is None and kernels.usable(model.embedding.weight.device):
        return RowUpdate(model, mask, lr)
    return DenseUpdate(model, mask, propagation, lr)
