"""A ticket from a finished round of a run: what its mask left, with all that answering needs."""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_lth.config import TrainConfig
from pyg_lth.errors import InputError
from pyg_lth.evaluation.degree_groups import degree_groups
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import BACKBONES, TABLE, build_backbone, embeds_as_lightgcn, normalized
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.tickets.compression import compress
from pyg_lth.tickets.id_table import Id, IdTable
from pyg_lth.tickets.lists import ItemLists
from pyg_lth.tickets.places import Form
from pyg_lth.tickets.quantization import Values
from pyg_lth.tickets.table import CompactTable
from pyg_lth.tickets.ticket import Ticket
from pyg_lth.training.losses import unit_rows
from pyg_lth.training.problem import item_bias

# What is stored of a backbone that propagates: the ego table and the graph; the propagated table;
# the propagated table pruned to a budget.
Store = Literal["ego", "final", "pruned"]
STORES: tuple[Store, ...] = get_args(Store)

# Settings that are about the machine of the run, not about the ticket.
_LOCAL = ("root", "mask_from", "teacher", "device")


def build_ticket(
    run: str | Path,
    data: HeteroData,
    *,
    round: int | None = None,
    seed: int | None = None,
    store: Store | None = None,
    values: Values = "float32",
    form: Form | None = None,
    density: float | None = None,
    bytes: int | None = None,
    user_ids: Sequence[Id] | npt.NDArray[Any] | None = None,
    item_ids: Sequence[Id] | npt.NDArray[Any] | None = None,
) -> Ticket:
    """Build the ticket of a round in a run folder.

    Args:
        run: The run folder.
        data: The graph that the run was made with.
        round: The round, 0 for the dense model; the winner by default.
        seed: Of a run of several seeds, which; the first by default.
        store: For a backbone that propagates ``ego`` (its table and the graph, the default),
            ``final`` (the propagated table) or ``pruned`` (that table with its largest entries
            alone, of which ``density`` or ``bytes`` says how many). For ``mf`` the table is both.
        values: How to store values.
        form: How to store places; by default as takes the fewest bytes.
        density: Share of the entries that ``pruned`` keeps.
        bytes: What the table of ``pruned`` may take.
        user_ids: The original id of each user; their indices by default.
        item_ids: The original id of each item; their indices by default.

    Raises:
        InputError: If the run has no such round or seed or was made with another graph, or the
            options do not go together.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> from pyg_lth.tickets.building import build_ticket
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.PruneConfig(model="mf", dim=8, max_epochs=5, rounds=2, amount=0.5)
        >>> report = pyg_lth.find_tickets(data, config, run_dir="runs/mine")
        >>> ticket = build_ticket("runs/mine", data, round=2, values="float16")
        >>> ticket.table.form, ticket.table.density, ticket.table.nbytes
        ('bitmap', 0.25, 900)
        >>> len(ticket.recommend([3], k=5)[0].items)
        5
    """
    folder = RunFolder(run)
    round = _round(folder, round)
    folder = _of_seed(folder, seed)
    settings = folder.read_config()
    split = split_of_run(folder, data)
    mask, weight = _read(folder, round)
    config = TrainConfig(
        **{name: settings[name] for name in TrainConfig.model_fields if name in settings}
    )
    weights = {**folder.read_weights(round), TABLE: weight}
    backbone = build_backbone(config, weights, torch.device("cpu"))
    propagates = config.layers > 0
    strategy = BACKBONES[config.model]
    polynomial = _is_polynomial(config, backbone)
    store = store or ("ego" if polynomial else "final")
    if store not in STORES:
        raise InputError(f"{store!r} is none of {', '.join(STORES)}")
    if store == "ego" and not polynomial:
        raise InputError(
            f"what {config.model} does with its table takes more than the graph: store final or "
            "pruned"
        )
    if store != "pruned" and (density is not None or bytes is not None):
        raise InputError("a density or a number of bytes is for what is pruned: store pruned")
    if store == "pruned" and density is None and bytes is None:
        raise InputError("pruned needs a budget: give a density or a number of bytes")
    is_table = polynomial and not propagates
    if stores_unit_rows(config, backbone):
        weight = unit_rows(weight)
    if store == "ego" or is_table:
        table = CompactTable.from_dense(weight.numpy(), mask, values, form)
    else:
        edges = split.joint_edge_index()
        graph = strategy.propagation(edges, len(weight), config) if propagates else None
        with torch.no_grad():
            final = backbone.get_embedding(graph)
            if config.score == "cosine":
                final = unit_rows(final)
        if store == "final":
            table = CompactTable.from_dense(final.numpy(), None, values, form)
    if store == "pruned":
        source = weight if is_table else final
        table = compress(source, density=density, bytes=bytes, values=values, form=form)
    ticket = Ticket(
        backbone=config.model,
        table=table,
        train=_lists(split, split.train),
        user_ids=IdTable.of(range(split.num_users) if user_ids is None else user_ids),
        item_ids=IdTable.of(range(split.num_items) if item_ids is None else item_ids),
        valid=None if split.valid is None else _lists(split, split.valid),
        layer_weights=(
            tuple(backbone.alpha.tolist())
            if store == "ego" and propagates and embeds_as_lightgcn(backbone)
            else None
        ),
        score=config.score if store == "ego" and propagates else "dot",
        fold_in="propagation" if polynomial and propagates else "ridge",
        bias=stored_bias(split, config),
    )
    results = folder.read_report()
    of_run = next(result for result in [results.dense, *results.rounds] if result.round == round)
    test = Evaluator(split, "test", config.topk)(torch.from_numpy(ticket.embedding()))
    notes = {
        "store": store if propagates else "table",
        "metrics": {
            "test": test,
            "test_of_run": of_run.test,
            "test_of_dense": results.dense.test,
            "test_of_popularity": results.popularity.test,
            "selected_on": config.select_on,
        },
        "density": _densities(table, split),
        "provenance": {
            "data": folder.read_environment().get("graph"),
            "run": Path(run).resolve().name,
            "round": round,
            "seed": config.seed,
            "density_of_round": of_run.density,
            "settings": {key: value for key, value in settings.items() if key not in _LOCAL},
            "environment": folder.read_environment(),
            "pyg_lth": metadata.version("pyg-lth"),
        },
    }
    return dataclasses.replace(ticket, notes=notes)


def stores_unit_rows(config: TrainConfig, backbone: torch.nn.Module) -> bool:
    """Whether rows are stored at length one: of a table that ranks as it is, by cosine.

    Inner products of such rows are the cosines.
    """
    return config.score == "cosine" and config.layers == 0 and _is_polynomial(config, backbone)


def stored_bias(split: InteractionSplit, config: TrainConfig) -> npt.NDArray[np.float16] | None:
    """What a ticket holds of :func:`~pyg_lth.training.problem.item_bias`: its float16.

    Raises:
        InputError: If it is too large for that.
    """
    bias = item_bias(split, config)
    if bias is None:
        return None
    stored: npt.NDArray[np.float16] = bias.half().cpu().numpy()
    if not np.isfinite(stored).all():
        raise InputError(
            f"a bias of {float(bias.max()):,.0f} is beyond float16: take a smaller popularity or "
            "temperature"
        )
    return stored


def _is_polynomial(config: TrainConfig, backbone: torch.nn.Module) -> bool:
    """Whether a ticket knows the way from the table to the embeddings."""
    return embeds_as_lightgcn(backbone) and BACKBONES[config.model].propagation is normalized


def _round(folder: RunFolder, round: int | None) -> int:
    """The round to take: of a run of several seeds, the winner over all of them."""
    if round is not None:
        return round
    report = folder.read_report()
    if "rounds" not in report.config:
        return 0
    if report.winner is None:
        raise InputError(
            f"no ticket of {folder.path} wins: name a round from 0 to {len(report.rounds)} with "
            "`round`"
        )
    return report.winner.round


def _of_seed(folder: RunFolder, seed: int | None) -> RunFolder:
    settings = folder.read_config()
    seeds = range(settings["seed"], settings["seed"] + settings.get("seeds", 1))
    if seed is not None and seed not in seeds:
        raise InputError(f"{folder.path} has no seed {seed}: it has {', '.join(map(str, seeds))}")
    return folder if len(seeds) == 1 else folder.of_seed(seeds[0] if seed is None else seed)


def split_of_run(folder: RunFolder, data: HeteroData) -> InteractionSplit:
    """The interactions as a run of one seed split them.

    Args:
        folder: The run.
        data: The graph that it was made with.

    Raises:
        InputError: If it is another graph.
    """
    settings, split = folder.read_config(), InteractionSplit.from_data(data)
    if split.fingerprint() != folder.read_environment().get("graph"):
        raise InputError(f"the graph is not the one that {folder.path} was made with")
    if settings["select_on"] == "valid" and split.valid is None:
        return split.hold_out_validation(settings["seed"])
    return split


def _read(folder: RunFolder, round: int) -> tuple[npt.NDArray[np.bool_], Tensor]:
    done = len(folder.read_results())
    if not 0 <= round < done:
        raise InputError(f"{folder.path} has no round {round}: give one from 0 to {done - 1}")
    mask, weight = folder.read_round(round)
    return mask.table.numpy(), weight.float()


def _layer_weights(backbone: torch.nn.Module) -> tuple[float, ...]:
    weights: list[float] = backbone.get_buffer("alpha").tolist()
    return tuple(weights)


def _lists(split: InteractionSplit, pairs: Tensor) -> ItemLists:
    return ItemLists.from_pairs(pairs.numpy(), split.num_users, split.num_items)


def _densities(table: CompactTable, split: InteractionSplit) -> dict[str, Any]:
    """Density of the user and the item table, and of each degree group, lowest degrees first."""
    found: dict[str, Any] = {}
    share = torch.from_numpy(np.asarray(table.counts, np.float64)) / table.dim
    parts = zip(
        ("users", "items"),
        (share[: split.num_users], share[split.num_users :]),
        split.train,
        strict=True,
    )
    for name, rows, index in parts:
        group = degree_groups(torch.bincount(index, minlength=len(rows)))
        found[name] = float(rows.mean())
        found[f"{name}_by_degree"] = [
            float(rows[group == number].mean()) for number in range(int(group.max()) + 1)
        ]
    return found
