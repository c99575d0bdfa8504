"""What the tickets of a run weigh, and what else fits into as many bytes: metrics against bytes."""

import hashlib
import importlib.util
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch_geometric.data import HeteroData

from pyg_lth.config import TrainConfig
from pyg_lth.errors import RunWarning
from pyg_lth.evaluation.evaluator import Evaluator, Metrics
from pyg_lth.evaluation.significance import Difference, paired_difference
from pyg_lth.nn.backbones import TABLE, Weights, build_backbone
from pyg_lth.results.checksums import Damaged
from pyg_lth.results.report import Report
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.tickets.building import split_of_run, stored_bias, stores_unit_rows
from pyg_lth.tickets.compression import compress
from pyg_lth.tickets.lists import ItemLists
from pyg_lth.tickets.quantization import Values
from pyg_lth.tickets.table import CompactTable
from pyg_lth.tickets.top_items import BiasedRows, DenseRows
from pyg_lth.training.losses import unit_rows
from pyg_lth.training.problem import Problem

Floats = npt.NDArray[np.float32]

# Those that are measured; bfloat16 takes as much as float16 and is coarser.
VALUES: tuple[Values, ...] = ("float32", "float16", "int8", "int4")

TICKET, DENSE, FIRST_COLUMNS = "ticket", "dense", "first columns"
PROPAGATED, PRUNED = "propagated table", "pruned propagated table"
PRODUCT_QUANTISATION = "product quantisation"

FILE = "frontier.json"

CPU = torch.device("cpu")

# Centroids of a code of one byte.
CENTROIDS = 256


class Point(BaseModel):
    """One way to answer, in so many bytes.

    Args:
        way: ``ticket``, or what uses no mask: ``dense``, ``first columns`` (of the dense model's
            table, not trained again), ``propagated table`` (stored instead of table and graph),
            ``pruned propagated table`` (its largest entries) or ``product quantisation`` (of what
            is multiplied for scores).
        values: How values are stored; ``codes`` of product quantisation.
        round: Round of the run, 0 for what is made of the dense model.
        density: Share of the entries that are stored, in [0, 1].
        bytes: All that scores need: values, places, scales, codebooks, the bias of items in float16
            where they have one, and the train graph where a table has to be propagated. Ids and the
            items to leave out of lists are the same for all, and not counted.
        test: Metrics on test of what is stored, decoded.
        difference: Against the dense model in float32, over the users of test.
    """

    model_config = ConfigDict(frozen=True)

    way: str
    values: str
    round: int
    density: float
    bytes: int
    test: Metrics
    difference: Difference


class Frontier(BaseModel):
    """What was measured of a run, as it stands in ``frontier.json`` of its folder.

    Args:
        of: What it was measured of; another digest asks for measuring again.
        metric: The metric that decides.
        seed: The seed whose tables were measured.
        points: All of them.
        notes: What was not measured, and why.
    """

    model_config = ConfigDict(frozen=True)

    of: str
    metric: str
    seed: int
    points: list[Point]
    notes: list[str]


def measure(folder: RunFolder, data: HeteroData) -> Frontier:
    """Store every round of a run in each way, read it back, and rank by what comes back.

    The outcome is kept in the run folder, for :func:`read`. Of several seeds, the first is
    measured.

    Args:
        folder: The run.
        data: The graph that it was made with.

    Raises:
        InputError: If the folder holds no report, or the graph is another one.
    """
    report, own = _of_first_seed(folder)
    digest = _digest(own.read_report())
    scales = _Scales(own, data)
    found = Frontier(
        of=digest,
        metric=report.metric,
        seed=report.seeds[0],
        points=list(scales.points(len(own.read_results()))),
        notes=[] if _has_faiss() else ["product quantisation: not measured, faiss is missing"],
    )
    folder.write_file(FILE, found.model_dump_json(indent=1).encode() + b"\n")
    return found


def read(folder: RunFolder) -> Frontier | None:
    """What :func:`measure` kept in a run folder, if it is still true.

    Returns:
        :obj:`None` where nothing is kept, or the run has gone on since, or faiss, which product
        quantisation needs, has come or gone; and, with a warning, where the file is damaged.
    """
    try:
        content = folder.read_file(FILE)
        kept = None if content is None else Frontier.model_validate_json(content)
    except Damaged as error:
        warnings.warn(str(error), RunWarning, stacklevel=2)
        return None
    except ValidationError:
        return None
    _, own = _of_first_seed(folder)
    return kept if kept is not None and kept.of == _digest(own.read_report()) else None


def _of_first_seed(folder: RunFolder) -> tuple[Report, RunFolder]:
    """The report of a run, and the run of its first seed."""
    report = folder.read_report()
    several = report.config.get("seeds", 1) > 1
    return report, folder.of_seed(report.seeds[0]) if several else folder


def simpler(point: Point, others: list[Point], metric: str) -> Point | None:
    """The best that gets at least a point's metric in no more bytes, with less of either.

    Args:
        point: A ticket.
        others: Simpler ways.
        metric: What counts.

    Returns:
        The one of them with the highest metric, of equal ones the smallest; :obj:`None` if there
        is none.
    """
    better = [
        other
        for other in others
        if other.bytes <= point.bytes
        and other.test[metric] >= point.test[metric]
        and (other.bytes, other.test[metric]) != (point.bytes, point.test[metric])
    ]
    return max(better, key=lambda other: (other.test[metric], -other.bytes), default=None)


def efficient(points: list[Point], metric: str) -> list[Point]:
    """Those that no other of the points beats in both bytes and metric, the smallest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes, -point.test[metric])):
        if not found or point.test[metric] > found[-1].test[metric]:
            found.append(point)
    return found


class _Scales:
    """Weighs the tables of a run of one seed.

    Args:
        folder: The run.
        data: Its graph.
    """

    def __init__(self, folder: RunFolder, data: HeteroData):
        settings = folder.read_config()
        self._folder = folder
        self._config = TrainConfig(
            **{name: settings[name] for name in TrainConfig.model_fields if name in settings}
        )
        split = split_of_run(folder, data)
        self._problem = Problem.prepare(split, self._config, CPU)
        self._seed: int = settings["seed"]
        self._tolerance: float = settings.get("tolerance", 0.0)
        self._metric = folder.read_report().metric
        self._evaluate = Evaluator(split, "test", self._config.topk)
        self._bias = stored_bias(split, self._config)
        model = build_backbone(self._config, folder.read_weights(0), CPU)
        self._has_unit_rows = stores_unit_rows(self._config, model)
        self._graph_bytes = 0
        if self._config.layers > 0:
            lists = ItemLists.from_pairs(split.train.numpy(), split.num_users, split.num_items)
            self._graph_bytes = lists.nbytes

    def points(self, rounds: int) -> Iterator[Point]:
        """Everything that is measured; the dense model in float32 comes first."""
        weights = self._folder.read_weights(0)
        dense = weights[TABLE].float().numpy()
        final = self._embedded(dense, weights)
        self._of_dense = self._per_user(final)[self._metric]
        for values in VALUES:
            yield self._of_table(DENSE, dense, weights, values)
        if self._config.layers > 0:
            for values in VALUES:
                yield self._of_final(PROPAGATED, CompactTable.from_dense(final, None, values))
            for width in _halves(final.shape[1]):
                for values in VALUES:
                    largest = compress(final, density=width / final.shape[1], values=values)
                    yield self._of_final(PRUNED, largest)
        for width in _halves(dense.shape[1]):
            cut = np.where(np.arange(dense.shape[1]) < width, dense, np.float32(0))
            for values in VALUES:
                yield self._of_table(FIRST_COLUMNS, cut, weights, values)
        if _has_faiss():
            yield from self._quantised(final)
        for round in range(1, rounds):
            mask, table = self._folder.read_round(round)
            weights = self._folder.read_weights(round)
            for values in VALUES:
                places = mask.table.numpy()
                yield self._of_table(TICKET, table.numpy(), weights, values, places, round)

    def _of_table(
        self,
        way: str,
        table: Floats,
        weights: Weights,
        values: Values,
        mask: npt.NDArray[np.bool_] | None = None,
        round: int = 0,
    ) -> Point:
        """A table that is propagated after it has been read."""
        if self._has_unit_rows:
            table = unit_rows(torch.from_numpy(table)).numpy()
        stored = CompactTable.from_dense(table, mask, values)
        embedding = stored.to_dense()
        if not self._has_unit_rows:
            embedding = self._embedded(embedding, weights)
        others = sum(w.nbytes for name, w in weights.items() if name != TABLE)
        size = stored.nbytes + others + self._graph_bytes
        return self._point(way, values, round, stored.density, size, embedding)

    def _of_final(self, way: str, table: CompactTable) -> Point:
        """A table that answers as it is."""
        return self._point(way, table.kind, 0, table.density, table.nbytes, table.to_dense())

    def _quantised(self, final: Floats) -> Iterator[Point]:
        """Product quantisation: a row is as many bytes as it is cut into parts."""
        import faiss

        rows, dim = final.shape
        if rows < CENTROIDS:
            return
        for parts in _halves(2 * dim):
            if dim % parts:
                continue
            coder: Any = faiss.ProductQuantizer(dim, parts, 8)
            # Small tables have few rows for as many centroids, which faiss would remark on.
            coder.cp.min_points_per_centroid = 1
            coder.train(final)
            decoded = coder.decode(coder.compute_codes(final))
            size = rows * parts + 4 * CENTROIDS * dim
            yield self._point(PRODUCT_QUANTISATION, "codes", 0, 1.0, size, decoded)

    def _embedded(self, table: Floats, weights: Weights) -> Floats:
        """What is multiplied for scores, with a table in place of the model's own; no bias."""
        whole = {**weights, TABLE: torch.from_numpy(table)}
        embedding: Floats = (
            self._problem.embed(build_backbone(self._config, whole, CPU)).detach().numpy()
        )
        return embedding if self._bias is None else embedding[:, :-1]

    def _per_user(self, embedding: Floats) -> dict[str, npt.NDArray[np.float32]]:
        if self._bias is not None:
            num_users = len(embedding) - len(self._bias)
            embedding = BiasedRows(DenseRows(embedding), self._bias, num_users).rows(slice(None))
        ranked = self._evaluate.rank(torch.from_numpy(np.ascontiguousarray(embedding)))
        return {name: v.numpy() for name, v in self._evaluate.per_user(ranked).items()}

    def _point(
        self, way: str, values: str, round: int, density: float, size: int, embedding: Floats
    ) -> Point:
        users = self._per_user(embedding)
        of_bias = 0 if self._bias is None else self._bias.nbytes
        return Point(
            way=way,
            values=values,
            round=round,
            density=density,
            bytes=size + of_bias,
            test={name: float(value.mean()) for name, value in users.items()},
            difference=paired_difference(
                users[self._metric][None], self._of_dense[None], self._tolerance, self._seed
            ),
        )


def _halves(dim: int) -> Iterator[int]:
    """Half of so many, a quarter, and so on down to one."""
    while dim > 1:
        dim //= 2
        yield dim


def _has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def _digest(report: Report) -> str:
    """What the measuring depends on, as sixteen hexadecimal digits."""
    parts: list[Any] = [metadata.version("pyg-lth"), report.metric, _has_faiss()]
    parts += [(result.remaining, result.test) for result in (report.dense, *report.rounds)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
