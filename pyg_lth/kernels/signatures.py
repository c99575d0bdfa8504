"""What each kernel takes, argument by argument, in the order of the C function."""

import functools
from collections.abc import Iterable

import torch


class Memory:
    """A tensor whose memory a kernel reads or writes.

    Args:
        dtype: Of its entries.
        *shape: A sum of names and numbers for each dimension. A name is that of a number among the
            arguments, or the size of a tensor before it.
        missing: Given where the tensor may be :obj:`None`: what its first dimension then equals.
    """

    def __init__(self, dtype: torch.dtype, *shape: str, missing: str | None = None):
        self.dtype = dtype
        self.shape = shape
        self.missing = missing

    def fits(self, shape: Iterable[int] | None, sizes: dict[str, int]) -> bool:
        """Whether a shape (:obj:`None`: of no tensor) is right, adding sizes first seen in it."""
        if shape is None:
            return _equals(str(self.missing), sizes[self.shape[0]], sizes)
        terms, shape = self.shape, list(shape)
        return len(terms) == len(shape) and all(
            _equals(term, size, sizes) for term, size in zip(terms, shape, strict=True)
        )


def _equals(term: str, size: int, sizes: dict[str, int]) -> bool:
    unknown = None
    for part in term.split(" + "):
        if part.isdigit():
            size -= int(part)
        elif part in sizes:
            size -= sizes[part]
        else:
            unknown = part
    if unknown is None:
        return size == 0
    sizes[unknown] = size
    return size >= 0


_int32, _int64, _float32, _float64 = (
    functools.partial(Memory, dtype)
    for dtype in (torch.int32, torch.int64, torch.float32, torch.float64)
)

Signature = dict[str, Memory | type[int] | type[float]]

_MATRIX: Signature = {
    "rowptr": _int64("num_nodes + 1"),
    "col": _int32("num_edges + ahead"),
    "weight": _float32("num_edges"),
}

_ADAM: Signature = {
    "momentum": float,
    "decay": float,
    "growth": float,
    "epsilon": float,
    "step_size": _float32("steps + 1"),
    "root": _float32("steps + 1"),
    "exact": int,
}

_TABLE: Signature = {
    "weight": _float32("num_nodes", "dim"),
    "mean": _float32("num_nodes", "dim"),
    "square": _float32("num_nodes", "dim"),
    "done": _int32("num_nodes"),
}

SIGNATURES: dict[str, Signature] = {
    "gather": {
        **_MATRIX,
        "rows": _int64("num_rows", missing="num_nodes"),
        "num_rows": int,
        "x": _float32("num_nodes", "dim"),
        "dim": int,
        "ahead": int,
        "out": _float32("num_rows", "dim"),
    },
    "scatter": {
        **_MATRIX,
        "rows": _int64("num_rows"),
        "num_rows": int,
        "num_nodes": int,
        "x": _float32("num_rows", "dim"),
        "dim": int,
        "ahead": int,
        "out": _float32("num_nodes", "dim"),
    },
    "draw_batch": {
        "uniform": _float64("num_rows", "size"),
        "num_rows": int,
        "size": int,
        "users": _int64("num_users"),
        "num_users": int,
        "start": _int64("all_users + 1"),
        "item": _int64("num_edges"),
        "missing_before": _int64("num_edges"),
        "num_items": int,
        "drawn": _int64("num_rows", "size"),
    },
    "distinct": {
        "nodes": _int64("num_nodes"),
        "num_nodes": int,
        "total": int,
        "slot": _int32("num_slots"),
        "num_slots": int,
        "listed": _int64("num_nodes"),
        "place": _int64("num_nodes"),
        "count": _int64("1"),
    },
    "add_up": {
        "place": _int64("num_rows"),
        "num_rows": int,
        "x": _float32("num_rows", "dim"),
        "dim": int,
        "count": int,
        "out": _float32("count", "dim"),
    },
    "adam_rows": {
        **_ADAM,
        "rows": _int64("num_rows", missing="num_nodes"),
        "num_rows": int,
        "dim": int,
        **_TABLE,
        "steps": int,
        "gradient": _float32("num_rows", "dim", missing="num_rows"),
        "made_up": _float32("steps", "5"),
    },
    "bpr_step": {
        **_ADAM,
        "steps": int,
        "place": _int64("parts", "size"),
        "parts": int,
        "size": int,
        "rows": _int64("num_rows"),
        "num_rows": int,
        "reg": float,
        "dim": int,
        **_TABLE,
        "living": _float32("num_nodes", "dim"),
        "total": _float64("1"),
        "made_up": _float32("steps", "5"),
        "ego": _float32("num_rows", "dim"),
        "loss": _float32("negatives", "size"),
        "slope": _float32("negatives", "size"),
        "penalty": _float64("num_rows"),
        "start": _int32("num_rows + 1"),
        "sorted": _int32("parts", "size"),
    },
    "shared_negatives": {
        "size": int,
        "negatives": int,
        "scale": float,
        "user": _float32("size", "dim"),
        "positive": _float32("size", "dim"),
        "shared": _float32("negatives", "dim"),
        "dim": int,
        "unit": _float32("size", "dim"),
        "across": _float32("panels", "dim", "16"),
        "rows": _float32("panels", "16", "columns", "16"),
        "scores": _float32("blocks", "panels", "48", "16"),
        "taught_user": _float32("size", "taught_dim", missing="size"),
        "taught_positive": _float32("size", "taught_dim", missing="size"),
        "taught_shared": _float32("negatives", "taught_dim", missing="negatives"),
        "taught_dim": int,
        "taught_unit": _float32("size", "taught_dim", missing="size"),
        "taught_across": _float32("panels", "taught_dim", "16", missing="panels"),
        "taught_rows": _float32("panels", "16", "taught_columns", "16", missing="panels"),
        "taught_scores": _float32("blocks", "panels", "48", "16", missing="blocks"),
        "share": float,
        "contrastive": int,
        "margin": float,
        "weight": float,
        "loss": _float32("size"),
        "of_user": _float32("size", "columns", "16"),
        "of_positive": _float32("size", "dim"),
        "sums": _float32("panels", "dim", "16"),
        "of_shared": _float32("negatives", "dim"),
    },
    "rank_items": {
        "users": _float32("num_users", "dim"),
        "user_norm": _float32("num_users"),
        "num_users": int,
        "items": _float32("panels", "dim", "16"),
        "index": _int64("panels", "16"),
        "norm": _float32("panels", "16"),
        "panels": int,
        "dim": int,
        "rowptr": _int64("num_users + 1"),
        "seen": _int64("num_edges"),
        "k": int,
        "best": _float32("num_users", "k"),
        "ranked": _int64("num_users", "k"),
    },
}
