"""What a run needs, reckoned before it takes any: memory, disk and time."""

import contextlib
import dataclasses
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery import evidence
from pyg_lth.lottery.methods import METHODS
from pyg_lth.nn.backbones import TABLE
from pyg_lth.pruning.masks import Mask
from pyg_lth.training.losses import LOSSES
from pyg_lth.training.problem import Problem
from pyg_lth.training.sampling import BLOCK, steps_of_epoch
from pyg_lth.training.trainer import Training
from pyg_lth.workers import ALONE, Workers

# What a run holds at its peak, from the peaks of runs in which one thing was by far the largest:
# tables; bytes of an interaction, of a place in the ranked lists, of a number drawn, of a user with
# each other item of the batch, of a user with each shared negative; rows of the batch, and as many
# again of its negatives.
TABLES, OF_INTERACTION, OF_PLACE, OF_DRAW, OF_HIT, OF_SHARED, ROWS = 33, 100, 90, 32, 22, 32, 7
# The program's own beside what it has loaded already.
FIXED = 100 << 20

# What is written of a round beside its table and mask and the users' metrics, in bytes.
OF_ROUND = 8 << 10
# Tables in a saved training: the weights, Adam's two moments, the best so far.
OF_STATE = 4

# How long steps are measured, and how many at most.
SECONDS, STEPS = 2.0, 200


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a run takes, beside what this process has already, in bytes.

    Args:
        memory: At the peak, of all processes.
        disk: Of the run folder, at its largest.
        greediest: The setting that most of the memory is due to.
    """

    memory: int
    disk: int
    greediest: str


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run takes here, as far as it can be known before.

    Args:
        memory: Bytes at the peak.
        memory_free: Bytes that there are for it.
        disk: Bytes of the run folder, at its largest.
        disk_free: Bytes that there are for it.
        greediest: The setting that most of the memory is due to.
        steps: Steps of an epoch.
        seconds_an_epoch: Measured over a few steps and one evaluation, which is shared out over the
            epochs between two; :obj:`None` if not measured.
        seconds_at_most: Of the whole run if no round stops before ``max_epochs``; likewise.
    """

    memory: int
    memory_free: int
    disk: int
    disk_free: int
    greediest: str
    steps: int
    seconds_an_epoch: float | None = None
    seconds_at_most: float | None = None

    @property
    def shortage(self) -> str | None:
        """What there is too little of, and what to do; :obj:`None` where there is enough."""
        if self.memory > self.memory_free:
            too = " or `negatives`" if self.greediest == "batch_size" else ""
            return (
                f"the run needs about {size(self.memory)} of memory and {size(self.memory_free)} "
                f"are free here: lower `{self.greediest}`{too}, or take a larger machine"
            )
        if self.disk > self.disk_free:
            return (
                f"the run writes about {size(self.disk)} and {size(self.disk_free)} are free "
                "there: lower `rounds`, `seeds` or `dim`, or choose another `run_dir`"
            )
        return None

    def to_dict(self) -> dict[str, Any]:
        """The figures by name, for JSON."""
        return dataclasses.asdict(self)


def needs(
    split: InteractionSplit, config: TrainConfig, jobs: int = 1, workers: Workers = ALONE
) -> Needs:
    """Reckon what a run takes, without taking any of it.

    Args:
        split: The graph.
        config: The settings.
        jobs: How many seeds run at a time.
        workers: Who has which columns of the table.
    """
    users, items = split.num_users, split.num_items
    # The widest share of the columns.
    width = -(-config.dim // workers.size)
    entries = (users + items) * config.dim
    parts = [part for part in (split.train, split.valid, split.test) if part is not None]
    interactions = sum(part.size(1) for part in parts)
    tested = min(users, max(part.size(1) for part in parts))
    layout = LOSSES[config.loss].layout(config)
    rows = layout.size + layout.negatives * layout.positives
    in_batch = config.loss in ("softmax", "corrected-softmax")
    taught = config.is_taught
    memory = {
        "dim": 4 * (users + items) * width * (TABLES + taught),
        "topk": OF_PLACE * (tested * min(config.topk, items) + config.topk),
        "batch_size": sum(
            (
                4 * width * ROWS * rows,
                OF_DRAW * max(min(BLOCK, layout.size * steps(split, config)), layout.size),
                (1 + taught) * OF_SHARED * layout.positives * layout.shared,
                OF_HIT * layout.positives**2 * in_batch,
            )
        ),
    }
    # A graph is laid out at the beginning, and in parts again beside the tables.
    graphs = 1 + (config.disjoint_parts > 1)
    at_most = FIXED + graphs * OF_INTERACTION * interactions + sum(memory.values())
    table, mask, of_users = 4 * entries, entries, 20 * tested
    rounds, (_, kept) = _rounds(config), _auxiliary(config)
    # θ₀, what late rewinding restarts from, and a state with the one before it.
    disk = 8 * interactions + (2 + 2 * OF_STATE) * table
    disk += (rounds + 2 * config.refit) * (table + mask + of_users + OF_ROUND)
    disk += kept * (table + mask)
    at_most *= jobs * workers.here
    return Needs(at_most, disk * _seeds(config), max(memory, key=memory.__getitem__))


def steps(split: InteractionSplit, config: TrainConfig) -> int:
    """Steps of an epoch."""
    return steps_of_epoch(split.train.size(1), config.batch_size, config.disjoint_parts)


def estimate(
    split: InteractionSplit,
    config: TrainConfig,
    device: torch.device,
    run_dir: str | Path | None = None,
    jobs: int = 1,
    workers: Workers = ALONE,
) -> Estimate:
    """Reckon memory and disk of a run, and hold them against what is free.

    Args:
        split: The graph.
        config: The settings.
        device: Where to compute.
        run_dir: Where the run goes; what is there already is not needed again.
        jobs: How many seeds run at a time.
        workers: Who has which columns of the table.
    """
    needed = needs(split, config, jobs, workers)
    folder = Path(tempfile.gettempdir() if run_dir is None else run_dir).absolute()
    there = 0 if run_dir is None else sum(_sizes(folder))
    while not folder.is_dir():
        folder = folder.parent
    return Estimate(
        memory=needed.memory,
        memory_free=free_memory(device),
        disk=max(0, needed.disk - there),
        disk_free=shutil.disk_usage(folder).free,
        greediest=needed.greediest,
        steps=steps(split, config),
    )


def measure(
    found: Estimate,
    split: InteractionSplit,
    config: TrainConfig,
    device: torch.device,
    jobs: int = 1,
) -> Estimate:
    """Add the time to an estimate, by a few steps of the dense training and one evaluation.

    Args:
        found: What :func:`estimate` reckoned.
        split: The graph.
        config: The settings.
        device: Where to compute.
        jobs: How many seeds run at a time.

    Raises:
        InputError: If the run cannot be had here.
    """
    if found.shortage is not None:
        raise InputError(found.shortage)
    if config.select_on == "valid" and split.valid is None:
        split = split.hold_out_validation(config.seed)
    problem = Problem.prepare(split, config, device)
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    a_step = _seconds_of_steps(training)
    start = _now(device)
    problem.evaluator(problem.embed(training.model))
    evaluation = _now(device) - start
    epoch = a_step * found.steps
    if config.disjoint_parts > 1:
        start = _now(device)
        next(problem.epoch(torch.Generator(device)))
        epoch += config.disjoint_parts * (_now(device) - start)
    # As many as a float can count.
    epochs, every = min(config.max_epochs, 10**15), min(config.eval_every, 10**15)
    seconds = epoch + evaluation / every
    trainings = _rounds(config) + _auxiliary(config)[0] + 2 * config.refit
    in_turn = -(-_seeds(config) // jobs)
    return dataclasses.replace(
        found,
        seconds_an_epoch=seconds,
        seconds_at_most=in_turn * trainings * epochs * seconds,
    )


def free_memory(device: torch.device) -> int:
    """Bytes of memory that a run may have here and on the device, within what a container has."""
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    limit, used = (Path("/sys/fs/cgroup", f"memory.{name}") for name in ("max", "current"))
    try:
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # No limit, or none that can be read.
        return free


def size(number: int) -> str:
    """A number of bytes, as people read it."""
    value = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB" if value < 1e6 else f"{value:.1e} TiB"


def _seconds_of_steps(training: Training) -> float:
    """The median time of a step, after the first."""
    problem = training.problem
    source = torch.Generator(problem.device).manual_seed(problem.config.seed)
    step, batches = training.quickest_step(), problem.sampler.epoch(source)
    first = next(batches)
    step(first)
    times: list[float] = []
    begin = time.perf_counter()
    while not times or (len(times) < STEPS and time.perf_counter() - begin < SECONDS):
        start = _now(problem.device)
        # Drawing is part of it; an epoch of one batch has no other.
        step(next(batches, first))
        times.append(_now(problem.device) - start)
    return statistics.median(times)


def _sizes(folder: Path) -> Iterator[int]:
    """Of the files of a run; one may be gone by the time that it is looked at."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            yield path.stat().st_size if path.is_file() else 0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _rounds(config: TrainConfig) -> int:
    """Trainings that are rounds, the dense one among them."""
    return 1 + config.rounds if isinstance(config, PruneConfig) else 1


def _seeds(config: TrainConfig) -> int:
    return config.seeds if isinstance(config, PruneConfig) else 1


def _auxiliary(config: TrainConfig) -> tuple[int, int]:
    """Trainings that only find masks, and how many files they leave, at most."""
    if not isinstance(config, PruneConfig) or config.mask_from is not None or not config.rounds:
        return 0, 0
    source = METHODS[config.method].evidence
    if source is evidence.thresholds:
        return 1, config.rounds
    rounds = config.rounds - 1 if source in (evidence.rewound, evidence.shuffled) else 0
    return rounds, rounds
