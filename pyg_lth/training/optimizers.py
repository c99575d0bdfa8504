"""What a training step looks up in the embedding table, and how Adam then changes the table."""

import math
import threading
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from pyg_lth import kernels
from pyg_lth.nn.backbones import LightGCN
from pyg_lth.nn.distinct import add_up, distinct_nodes
from pyg_lth.nn.propagation import Propagation
from pyg_lth.pruning.masks import Mask, apply_mask

# Of Adam, from "Adam: A Method for Stochastic Optimization" (arXiv 1412.6980).
BETAS, EPSILON = (0.9, 0.999), 1e-8

# Steps that a row may miss before all rows are brought up to date.
STEPS_BEHIND = 1024


class DenseUpdate:
    """Adam on whole tables, as torch has it.

    Args:
        model: The backbone.
        parameters: What to train, by name: the table that its embedding is made of, and others.
        propagation: The normalised adjacency, :obj:`None` for a backbone without layers.
        lr: Learning rate.
        decay: Weight decay of a parameter by its name, 0 unless given.
    """

    def __init__(
        self,
        model: LightGCN,
        parameters: dict[str, nn.Parameter],
        propagation: Propagation | None,
        lr: float,
        decay: Mapping[str, float] = MappingProxyType({}),
    ):
        self._model = model
        self._parameters = parameters
        self._propagation = propagation
        cuda = model.embedding.weight.is_cuda
        self._optimizer = torch.optim.Adam(
            [
                {"params": [parameter], "weight_decay": decay.get(name, 0.0)}
                for name, parameter in parameters.items()
            ],
            # In a recorded step a number would stay what it was when recorded.
            lr=torch.tensor(lr, device=model.embedding.weight.device) if cuda else lr,
            betas=BETAS,
            eps=EPSILON,
            fused=True,
            capturable=cuda,
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

    def catch_up(self) -> None:
        """Bring every row up to date, which they always are here."""

    def set_rate(self, lr: float) -> None:
        """Go on at another learning rate."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def tensors(self) -> dict[str, Tensor]:
        """Parameters (masked entries zero) and state of Adam, up to date and not copied."""
        return {
            **{name: parameter.detach() for name, parameter in self._parameters.items()},
            **{
                f"optimizer.{name}.{key}": value
                for name, parameter in self._parameters.items()
                for key, value in self._optimizer.state[parameter].items()
            },
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what :meth:`tensors` returned."""
        for name, parameter in self._parameters.items():
            prefix = f"optimizer.{name}."
            with torch.no_grad():
                parameter.copy_(tensors[name])
            self._optimizer.state[parameter] = {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix)
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
        self._scales = torch.empty(2, STEPS_BEHIND + 1)
        self._steps_of_all = 0  # steps at which all rows were last up to date
        self._steps = 0  # steps since then
        # Each thread applies what it looked up; a row must not be made up for by two at once.
        self._batch = threading.local()
        self._lock = threading.RLock()

    def lookup(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`DenseUpdate.lookup`."""
        rows, place = distinct_nodes(nodes, self._weight.size(0))
        with self._lock:
            self._run(rows)
            looked_up = self._weight.index_select(0, nodes).requires_grad_()
        self._batch.rows, self._batch.place, self._batch.looked_up = rows, place, looked_up
        return looked_up, looked_up

    def apply(self, loss: Tensor) -> None:
        """As :meth:`DenseUpdate.apply`."""
        rows, place = self._batch.rows, self._batch.place
        (gradient,) = torch.autograd.grad(loss, self._batch.looked_up)
        gradient = add_up(gradient, place, rows.numel())
        gradient.mul_(self._living.index_select(0, rows))
        with self._lock:
            step = self._steps_of_all + self._steps + 1
            self._scales[0, self._steps] = self._lr / (1 - BETAS[0] ** step)
            self._scales[1, self._steps] = math.sqrt(1 - BETAS[1] ** step)
            self._run(rows, gradient)
            self._steps += 1
            if self._steps == STEPS_BEHIND:
                self.catch_up()

    def catch_up(self) -> None:
        """As :meth:`DenseUpdate.catch_up`."""
        with self._lock:
            if self._steps:
                self._run(None)
                self._done.zero_()
                self._steps_of_all, self._steps = self._steps_of_all + self._steps, 0

    def _run(self, rows: Tensor | None, gradient: Tensor | None = None) -> None:
        """Make up for the missed steps of some rows, or of all, and take one with a gradient."""
        kernels.call(
            "adam_rows",
            *(1 - BETAS[0], BETAS[1], 1 - BETAS[1], EPSILON),
            *self._scales[:, : self._steps + 1],
            *(rows, self._weight.size(0) if rows is None else rows.numel(), self._weight.size(1)),
            *(self._weight, self._mean, self._square, self._done, self._steps, gradient),
        )

    def set_rate(self, lr: float) -> None:
        """As :meth:`DenseUpdate.set_rate`."""
        self._lr = lr

    def tensors(self) -> dict[str, Tensor]:
        """As :meth:`DenseUpdate.tensors`."""
        self.catch_up()
        return {
            "weight": self._weight,
            "optimizer.weight.step": torch.tensor(float(self._steps_of_all)),
            "optimizer.weight.exp_avg": self._mean,
            "optimizer.weight.exp_avg_sq": self._square,
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """As :meth:`DenseUpdate.restore`."""
        self._weight.copy_(tensors["weight"])
        self._mean.copy_(tensors["optimizer.weight.exp_avg"])
        self._square.copy_(tensors["optimizer.weight.exp_avg_sq"])
        self._steps_of_all = int(tensors["optimizer.weight.step"])


Update = DenseUpdate | RowUpdate


def build_update(model: LightGCN, mask: Mask, propagation: Propagation | None, lr: float) -> Update:
    """Choose the update that costs least: rows alone where the gradient has few."""
    if propagation is None and kernels.usable(model.embedding.weight.device):
        return RowUpdate(model, mask, lr)
    return DenseUpdate(model, {"weight": apply_mask(model, mask)}, propagation, lr)
