"""What a training step looks up in the embedding table, and how Adam then changes the table."""

import math
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pyg_lth import kernels
from pyg_lth.nn.backbones import LightGCN, TableModel, embeds_as_lightgcn, propagates_table
from pyg_lth.nn.distinct import add_up, distinct_nodes
from pyg_lth.nn.propagation import Propagation, Triton
from pyg_lth.pruning.masks import Mask, apply_mask

# Of Adam, from "Adam: A Method for Stochastic Optimization" (arXiv 1412.6980).
BETAS, EPSILON = (0.9, 0.999), 1e-8

# Steps that a row may miss before all rows are brought up to date.
STEPS_BEHIND = 1024

# Entries from which a table is large. A smaller one stays in the cache of a core, and its steps are
# taken as they always were, to the last bit.
LARGE_TABLE = 1 << 18

# On a large table the steps missed up to here are made up for one by one, later ones all
# at once: the corrections of Adam for its bias change too much before.
EXACT_STEPS = 128


class DenseUpdate:
    """Adam on whole tables, as torch has it.

    Args:
        model: The backbone.
        parameters: What to train, by name: the table that its embedding is made of, and others.
        propagation: What it propagates through, :obj:`None` for a backbone without layers.
        lr: Learning rate.
        decay: Weight decay of a parameter by its name, 0 unless given.

    Attributes:
        propagation: The same; another may take its place from one step to the next.
    """

    def __init__(
        self,
        model: LightGCN | TableModel,
        parameters: dict[str, nn.Parameter],
        propagation: Any,
        lr: float,
        decay: Mapping[str, float] = MappingProxyType({}),
    ):
        self._model = model
        self._parameters = parameters
        self.propagation = propagation
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
        return self._model.lookup(nodes, self.propagation)

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
        """Continue from what :meth:`tensors` returned, here or of a :class:`RowUpdate`."""
        tensors = caught_up(tensors)
        for name, parameter in self._parameters.items():
            prefix = f"optimizer.{name}."
            with torch.no_grad():
                parameter.copy_(tensors[name])
            self._optimizer.state[parameter] = {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }


class TritonUpdate(DenseUpdate):
    """Adam on the table of a LightGCN that propagates by the kernels in Triton.

    These take whole steps with BPR, on the state that torch's Adam would have, so that a step of
    either may follow one of the other.

    Args:
        model: The backbone, its table masked.
        parameters: What to train: the table alone.
        propagation: What it propagates through.
        lr: Learning rate.
    """

    def __init__(
        self,
        model: LightGCN,
        parameters: dict[str, nn.Parameter],
        propagation: Propagation,
        lr: float,
    ):
        super().__init__(model, parameters, propagation, lr)
        self._alpha = model.alpha
        self._living = model.embedding.get_buffer("parametrizations.weight.0.mask")
        self._betas = torch.tensor(BETAS, dtype=torch.float64, device=self._living.device)

    def bpr_step(self, nodes: Tensor, reg: float) -> Tensor:
        """As :meth:`RowUpdate.bpr_step`, with a loss of type float; all of it on the device."""
        from pyg_lth.kernels.on_cuda import Adam

        ((weight,), (group,)) = self._parameters.values(), self._optimizer.param_groups
        state, table, rate = self._optimizer.state[weight], weight.detach(), group["lr"]
        if not state:
            state["step"] = table.new_zeros(())
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(table) for _ in range(2))
        state["step"].add_(1)
        adam = Adam(
            *(table, state["exp_avg"], state["exp_avg_sq"], self._living),
            rate=rate if isinstance(rate, Tensor) else table.new_tensor(rate),
            corrections=1 - self._betas ** state["step"],
            betas=BETAS,
            epsilon=EPSILON,
        )
        loss: Tensor = self.propagation.matrix.bpr_step(nodes, self._alpha, reg, adam)
        return loss


class RowUpdate:
    """Adam on the batch's rows alone, for a backbone without layers; equal to Adam to rounding.

    A row without a gradient still moves while its moments decay. The steps that it missed are made
    up for when it is looked up next; on a small table one by one, so that it equals Adam bit for
    bit, on a large one all at once.

    Args:
        model: The backbone; its table is masked in place.
        mask: Which entries live.
        lr: Learning rate.

    Attributes:
        is_large: Whether the table is, so that :meth:`bpr_step` pays.
        propagation: :obj:`None`.
    """

    propagation = None

    def __init__(self, model: LightGCN, mask: Mask, lr: float):
        self._weight = apply_mask(model, mask).detach()
        self._living = model.embedding.get_buffer("parametrizations.weight.0.mask")
        self.is_large = self._weight.numel() >= LARGE_TABLE
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
            self._begin_step()
            self._run(rows, gradient)
            self._end_step()

    def catch_up(self) -> None:
        """As :meth:`DenseUpdate.catch_up`."""
        with self._lock:
            if self._steps:
                self._run(None)
                self._done.zero_()
                self._steps_of_all, self._steps = self._steps_of_all + self._steps, 0

    def bpr_step(self, nodes: Tensor, reg: float) -> Tensor:
        """Look up, take the loss ``bpr`` with its L2 term, and apply it, all in one kernel.

        Args:
            nodes: Users, an item of each, then rows of negatives, int64, shape ``[2 + n, B]``.
            reg: Weight of the L2 term.

        Returns:
            The loss before the step, a scalar of type double.
        """
        (parts, size), dim = nodes.shape, self._weight.size(1)
        rows, place = distinct_nodes(nodes.flatten(), self._weight.size(0))
        count, total = rows.numel(), torch.empty(1, dtype=torch.float64)
        with self._lock:
            self._begin_step()
            kernels.call(
                "bpr_step",
                *(*self._rule(), self._steps),
                *(place.view_as(nodes), parts, size, rows, count, float(reg), dim),
                *(self._weight, self._mean, self._square, self._done, self._living, total),
                *(torch.empty(self._steps, 5), torch.empty(count, dim)),
                *torch.empty(2, parts - 2, size),
                torch.empty(count, dtype=torch.float64),
                torch.empty(count + 1, dtype=torch.int32),
                torch.empty(parts, size, dtype=torch.int32),
            )
            self._end_step()
        return total[0]

    def _begin_step(self) -> None:
        """Enter the corrections of the next step for bias."""
        step = self._steps_of_all + self._steps + 1
        self._scales[0, self._steps] = self._lr / (1 - BETAS[0] ** step)
        self._scales[1, self._steps] = math.sqrt(1 - BETAS[1] ** step)

    def _end_step(self) -> None:
        self._steps += 1
        if self._steps == STEPS_BEHIND:
            self.catch_up()

    def _rule(self) -> tuple[Tensor | float, ...]:
        scales = self._scales[:, : self._steps + 1]
        exact = max(0, EXACT_STEPS - self._steps_of_all) if self.is_large else STEPS_BEHIND
        return (1 - BETAS[0], BETAS[1], 1 - BETAS[1], EPSILON, *scales, exact)

    def _run(self, rows: Tensor | None, gradient: Tensor | None = None) -> None:
        """Make up for the missed steps of some rows, or of all, and take one with a gradient."""
        kernels.call(
            "adam_rows",
            *self._rule(),
            *(rows, self._weight.size(0) if rows is None else rows.numel(), self._weight.size(1)),
            *(self._weight, self._mean, self._square, self._done, self._steps, gradient),
            torch.empty(self._steps, 5),
        )

    def set_rate(self, lr: float) -> None:
        """As :meth:`DenseUpdate.set_rate`."""
        self._lr = lr

    def tensors(self) -> dict[str, Tensor]:
        """As :meth:`DenseUpdate.tensors`, and on a large table which steps its rows have missed.

        Steps made up for in two parts round otherwise than at once, so that keeping a training
        must not do it.
        """
        if not self.is_large:
            self.catch_up()
        missed = {
            "optimizer.weight.done": self._done,
            "optimizer.weight.scales": self._scales[:, : self._steps].contiguous(),
        }
        return {
            "weight": self._weight,
            "optimizer.weight.step": torch.tensor(float(self._steps_of_all)),
            "optimizer.weight.exp_avg": self._mean,
            "optimizer.weight.exp_avg_sq": self._square,
            **(missed if self._steps else {}),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """As :meth:`DenseUpdate.restore`."""
        self._weight.copy_(tensors["weight"])
        self._mean.copy_(tensors["optimizer.weight.exp_avg"])
        self._square.copy_(tensors["optimizer.weight.exp_avg_sq"])
        self._steps_of_all = int(tensors["optimizer.weight.step"])
        scales = tensors.get("optimizer.weight.scales", self._scales[:, :0])
        self._steps = scales.size(1)
        self._scales[:, : self._steps] = scales
        self._done.copy_(tensors.get("optimizer.weight.done", torch.zeros_like(self._done)))


def caught_up(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what :meth:`RowUpdate.tensors` gave with all rows up to date, by torch alone."""
    if "optimizer.weight.done" not in tensors:
        return tensors
    prefix = "optimizer.weight."
    left = {name: value.clone() for name, value in tensors.items()}
    done, scales = left.pop(f"{prefix}done"), left.pop(f"{prefix}scales")
    mean, square = left[f"{prefix}exp_avg"], left[f"{prefix}exp_avg_sq"]
    for step, (size, root) in enumerate(scales.t().tolist()):
        rows = (done <= step).nonzero().view(-1)
        mean[rows] *= BETAS[0]
        square[rows] *= BETAS[1]
        left["weight"][rows] -= size * mean[rows] / (square[rows].sqrt() / root + EPSILON)
    left[f"{prefix}step"] += scales.size(1)
    return left


Update = DenseUpdate | TritonUpdate | RowUpdate


def build_update(
    model: LightGCN | TableModel,
    mask: Mask,
    propagation: Any,
    lr: float,
    others: Mapping[str, nn.Parameter] = MappingProxyType({}),
) -> Update:
    """Choose the update that costs least: rows alone where the gradient has few.

    Args:
        model: The backbone; its table is masked in place.
        mask: Which entries live.
        propagation: What it propagates through, :obj:`None` for a backbone without layers.
        lr: Learning rate.
        others: The parameters that it has beside the table, by name.
    """
    usable = kernels.usable(model.embedding.weight.device)
    if usable and propagation is None and not others and embeds_as_lightgcn(model):
        return RowUpdate(model, mask, lr)
    parameters = {"weight": apply_mask(model, mask), **others}
    model.embedding.get_submodule("parametrizations.weight.0").stays_masked = True
    plain = not others and propagates_table(model)
    by_triton = isinstance(getattr(propagation, "matrix", None), Triton)
    if plain and by_triton and embeds_as_lightgcn(model):
        return TritonUpdate(model, parameters, propagation, lr)
    return DenseUpdate(model, parameters, propagation, lr)
