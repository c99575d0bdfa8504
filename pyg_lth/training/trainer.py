"""Train one (θ₀, mask) to convergence: early stopping, evaluation, the best state kept."""

import itertools
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pyg_lth import seeding
from pyg_lth.errors import InputError
from pyg_lth.evaluation.evaluator import Metrics
from pyg_lth.nn.backbones import (
    TABLE,
    LightGCN,
    TableModel,
    Weights,
    build_backbone,
    propagates_table,
)
from pyg_lth.pruning.masks import Mask
from pyg_lth.training import cuda_graphs, losses
from pyg_lth.training.cuda_graphs import Step
from pyg_lth.training.optimizers import RowUpdate, TritonUpdate, Update, build_update
from pyg_lth.training.problem import Problem
from pyg_lth.training.progress import EpochRecord, Progress


class Training:
    """One training, which can be stopped after any step and continued bit for bit.

    Args:
        problem: What the trainings of a search share.
        initial: Where to start from.
        mask: Which entries live.
        round: Round of the search.
        epochs_before: Epochs for which the learning rate has decayed already.
        remask: Called after each epoch with the weights, the mask and the number of epochs; returns
            the mask to go on with.
        epochs: Epochs to train for, the last of which counts as the best; :obj:`None` to let
            evaluations choose.
    """

    def __init__(
        self,
        problem: Problem,
        initial: Weights,
        mask: Mask,
        round: int,
        epochs_before: int = 0,
        remask: Callable[[Weights, Mask, int], Mask] | None = None,
        epochs: int | None = None,
    ):
        self.problem = problem
        self.mask = self.best_mask = mask
        self._epochs_before = epochs_before
        self._remask = remask
        self.epochs = epochs
        self._model = build_backbone(problem.config, initial, problem.device)
        self._others = {
            name: parameter for name, parameter in self._model.named_parameters() if name != TABLE
        }
        self._update = self._build_update(mask)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=problem.device)
        self.best_weights = self.weights()
        self.progress = Progress(round=round)
        # A parametrized table stands in a circle with its class, which a collection would have to
        # find: of many rounds that takes longer than a round. Masked entries stay zero without it.
        weakref.finalize(self, _release, self._model.embedding).atexit = False

    def _build_update(self, mask: Mask) -> Update:
        propagation = self._among(self.problem.propagation, mask)
        return build_update(self._model, mask, propagation, self.problem.config.lr, self._others)

    def _among(self, propagation: Any, mask: Mask) -> Any:
        """What to propagate through, quicker for a mask that will stay."""
        if propagation is None or self._remask is not None or not propagates_table(self._model):
            return propagation
        return propagation.among(mask.table.any(dim=1).to(self.problem.device))

    @property
    def model(self) -> LightGCN | TableModel:
        """The backbone as it is after the steps so far."""
        self._update.catch_up()
        return self._model

    def weights(self) -> Weights:
        """A copy of the parameters as they are after the steps so far, masked entries zero."""
        table = self.model.embedding.weight.detach()
        others = {name: parameter.detach() for name, parameter in self._others.items()}
        return {name: value.clone() for name, value in {TABLE: table, **others}.items()}

    def run(
        self,
        on_epoch: Callable[[EpochRecord], None] = lambda record: None,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Train until no evaluation has been better for ``patience`` evaluations.

        Args:
            on_epoch: Called after each whole epoch.
            after_step: Called after each step; what it raises ends the training, which can be
                saved and continued from there.
        """
        step = self.quickest_step()
        while not self.progress.finished:
            on_epoch(self._run_epoch(step, after_step))

    def quickest_step(self) -> Step:
        """Return :meth:`step` in its quickest form; on CUDA no other step may come between.

        For BPR, where there are kernels that take whole steps, it is these, whose sums round
        otherwise; on CUDA a recorded graph. Of several workers, who meet in the middle of a step,
        it is the step.
        """
        config, update = self.problem.config, self._update
        if self.problem.workers.size > 1:
            return self.step
        pays = isinstance(update, TritonUpdate) or (
            isinstance(update, RowUpdate) and update.is_large
        )
        plain_bpr = config.loss == "bpr" and self.problem.teacher is None
        step = self._bpr_step if plain_bpr and pays else self.step
        # What is recorded propagates through one graph.
        if self.problem.device.type != "cuda" or config.disjoint_parts > 1:
            return step
        size = self.problem.sampler.layout.size
        batch = torch.zeros(size, dtype=torch.long, device=self.problem.device)
        return cuda_graphs.record(step, self.tensors, batch)

    def _bpr_step(self, batch: Tensor) -> Tensor:
        """As :meth:`step`, by kernels that take it whole."""
        assert isinstance(self._update, RowUpdate | TritonUpdate)
        nodes = self.problem.nodes(batch).view(-1, self.problem.sampler.layout.positives)
        return self._update.bpr_step(nodes, self.problem.config.reg)

    def _run_epoch(self, step: Step, after_step: Callable[[], None]) -> EpochRecord:
        config, progress = self.problem.config, self.progress
        decayed = self._epochs_before + progress.epoch
        self._update.set_rate(config.lr * config.lr_decay**decayed)
        clock = time.perf_counter()

        def elapsed() -> float:
            nonlocal clock
            last, clock = clock, time.perf_counter()
            return clock - last

        source = seeding.generator(
            config.seed, "sampling", progress.round, progress.epoch, device=self.problem.device
        )
        through = self.problem.propagation
        for propagation, batch in itertools.islice(self.problem.epoch(source), progress.step, None):
            if propagation is not through:
                through = propagation
                self._update.propagation = self._among(propagation, self.mask)
            self._loss_sum += step(batch)
            progress.step += 1
            progress.seconds += elapsed()
            after_step()
        record = EpochRecord(
            round=progress.round,
            epoch=progress.epoch + 1,
            loss=float(self.problem.workers.sum(self._loss_sum.clone())) / progress.step,
            seconds=0.0,
        )
        if not math.isfinite(record.loss):
            raise self._diverged(f"the loss is {record.loss}", record)
        # A display reads the progress from its own thread, so the record of the best epoch must
        # stand in the history before it is called the best.
        progress.history.append(record)
        if self.epochs is not None:
            if record.epoch == self.epochs:
                self._keep()
                if not self._all_finite(*self.best_weights.values()):
                    raise self._diverged("weights are not finite", record)
        elif record.epoch % config.eval_every == 0 or record.epoch == config.max_epochs:
            self._evaluate(record)
        record.seconds = progress.seconds + elapsed()
        progress.epoch, progress.step, progress.seconds = record.epoch, 0, 0.0
        self._loss_sum.zero_()
        progress.finished = self._is_finished()
        if self._remask is not None and not progress.finished:
            self._change_mask(self._remask(self.weights(), self.mask, progress.epoch))
        return record

    def _all_finite(self, *own: Tensor) -> bool:
        """Whether these are, here and in the columns of other workers, who stop too if not."""
        wrong = torch.tensor(not all(value.isfinite().all() for value in own))
        return int(self.problem.workers.sum(wrong.long())) == 0

    def _diverged(self, what: str, record: EpochRecord) -> InputError:
        config, best = self.problem.config, self.progress.best_epoch
        rate = config.lr * config.lr_decay ** (self._epochs_before + record.epoch - 1)
        good = f"the last good state is that of epoch {best}" if best else "no epoch was good"
        return InputError(
            f"{what} in round {record.round}, epoch {record.epoch}: the training diverged at the "
            f"learning rate {rate:g}; lower `lr` ({good})"
        )

    def _is_finished(self) -> bool:
        config, progress = self.problem.config, self.progress
        if self.epochs is not None:
            return progress.epoch >= self.epochs
        waited = (progress.epoch - progress.best_epoch) // config.eval_every
        return progress.epoch >= config.max_epochs or waited >= config.patience

    def _change_mask(self, mask: Mask) -> None:
        """Go on under another mask; what did not live before starts at zero, at rest."""
        living = self._model.embedding.get_buffer("parametrizations.weight.0.mask")
        living.copy_(mask.table)
        for value in self._update.tensors().values():
            if value.shape == living.shape:
                value.mul_(living)
        self.mask = mask

    def step(self, batch: Tensor) -> Tensor:
        """Take one step of Adam on a batch.

        Args:
            batch: Users and items as ``sampler.layout`` says, int64.

        Returns:
            The loss before the step, a scalar without gradient. What several workers return adds
            up to it: each knows the L2 term of its columns alone, and only the first counts what
            all know.
        """
        problem = self.problem
        out, ego = self._update.lookup(problem.nodes(batch))
        known = problem.loss(out, batch)
        if problem.config.reg:
            own = problem.config.reg * losses.l2(problem.sampler.layout.split(ego))
        else:
            own = torch.zeros_like(known)
        loss = known + own
        self._update.apply(loss)
        return (loss if problem.workers.is_first else own).detach()

    def _evaluate(self, record: EpochRecord) -> None:
        config = self.problem.config
        embedding = self.problem.embed(self.model)
        if not self._all_finite(embedding):
            raise self._diverged("embeddings are not finite", record)
        metrics = self.problem.evaluator(embedding)
        setattr(record, config.select_on, metrics)
        best = self.best_metrics
        name = config.select_by
        if best is None or metrics[name] > best[name]:
            self._keep()

    def _keep(self) -> None:
        """Keep the state after the last epoch as the best."""
        self.progress.best_epoch = self.progress.history[-1].epoch
        self.best_weights = self.weights()
        self.best_mask = self.mask

    @property
    def best_metrics(self) -> Metrics | None:
        """Metrics of the best evaluation so far on the split that chooses epochs."""
        if self.progress.best_epoch == 0:
            return None
        record = self.progress.history[self.progress.best_epoch - 1]
        metrics: Metrics = getattr(record, self.problem.config.select_on)
        return metrics

    def best_embedding(self) -> Tensor:
        """Embeddings of the best state as they rank, shape ``[num_nodes, dim]``."""
        model = build_backbone(self.problem.config, self.best_weights, self.problem.device)
        return self.problem.embed(model)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a continued training needs, to be kept beside ``progress``."""
        # The two masks are often one, and two names of one tensor cannot be written.
        moving = {"mask": self.mask.table, "best_mask": self.best_mask.table.clone()}
        return {
            **{_of_best(name): value for name, value in self.best_weights.items()},
            "loss_sum": self.problem.workers.sum(self._loss_sum.clone()),
            **({} if self._remask is None else moving),
            **self._update.tensors(),
        }

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Continue from what :meth:`tensors` and ``progress`` were when they were kept."""
        placed = {name: value.to(self.problem.device) for name, value in tensors.items()}
        if self._remask is not None:
            self._change_mask(Mask(tensors["mask"]))
            self.best_mask = Mask(tensors["best_mask"])
        self._update.restore(placed)
        self.best_weights = {name: placed[_of_best(name)] for name in self.best_weights}
        self._loss_sum = placed["loss_sum"] * self.problem.workers.is_first
        self.progress = progress


def _release(embedding: nn.Module) -> None:
    """Let go of what a training put on a table."""
    parametrize.remove_parametrizations(embedding, "weight", leave_parametrized=False)


def _of_best(name: str) -> str:
    """What a parameter of the best state is called among the tensors of a training."""
    return "best_weight" if name == TABLE else f"best.{name}"
