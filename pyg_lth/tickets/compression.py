"""A trained embedding in the compact form at once, without rounds of training."""

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pyg_lth.errors import InputError
from pyg_lth.pruning.masks import Budget, Mask
from pyg_lth.pruning.selection import prune
from pyg_lth.tickets.places import Form, form_bytes, smallest_form, width_of
from pyg_lth.tickets.quantization import Values
from pyg_lth.tickets.table import CompactTable


def compress(
    table: Tensor | nn.Module | npt.NDArray[np.float32],
    *,
    density: float | None = None,
    bytes: int | None = None,
    values: Values = "float32",
    form: Form | None = None,
) -> CompactTable:
    """Prune a trained table by magnitude and store what is left, in one go.

    The largest entries stay, of equal ones those of the higher index, as in a round of pruning. How
    well the table still ranks is not measured here: evaluate ``to_dense()`` of the outcome.

    Args:
        table: Shape ``[rows, dim]``, or a module with one :class:`torch.nn.Embedding` in it.
        density: Share of the entries to keep, in (0, 1].
        bytes: What values, places and scales may take together, instead of a density; a file adds
            less than 4 KiB.
        values: How to store values.
        form: How to store places; by default as takes the fewest bytes.

    Raises:
        InputError: If the table cannot be used, or the budget is none or too small.

    Example:
        >>> import pyg_lth, torch
        >>> embedding = torch.nn.Embedding(1000, 64)
        >>> table = pyg_lth.compress(embedding, density=0.1, values="float16")
        >>> table.density, table.form, table.nbytes
        (0.1, 'columns', 20200)
        >>> pyg_lth.compress(embedding, bytes=5000, values="int8").nbytes <= 5000
        True
    """
    dense = _weight(table)
    if density is not None and bytes is not None:
        raise InputError("density and bytes are two budgets: give one")
    if density is not None and not 0 < density <= 1:
        raise InputError(f"density {density:g} is no share: give one above 0 and up to 1")
    # What is zero already needs no pruning.
    mask = Mask(dense != 0)
    scores = dense.abs()
    if density is not None:
        keep = math.floor(dense.numel() * Fraction(str(density)))
        mask = _keep_largest(scores, mask, min(keep, mask.remaining))
    elif bytes is not None:
        mask = _largest_within(scores, mask, bytes, values, form)
    there = mask.table.numpy()
    return CompactTable.from_dense(np.where(there, dense.numpy(), 0), there, values, form)


def _weight(table: Tensor | nn.Module | npt.NDArray[np.float32]) -> Tensor:
    if isinstance(table, nn.Module):
        found = [part for part in table.modules() if isinstance(part, nn.Embedding)]
        if len(found) != 1:
            raise InputError(
                f"the module has {len(found)} embeddings: give the one to compress itself"
            )
        table = found[0].weight
    weight = torch.as_tensor(table).detach().cpu().float().contiguous()
    if weight.dim() != 2:
        raise InputError(f"a table has two dimensions, this one has {weight.dim()}")
    return weight


def _keep_largest(scores: Tensor, mask: Mask, keep: int) -> Mask:
    return prune(scores, mask, [Budget(slice(0, len(scores)), keep)])


def _largest_within(
    scores: Tensor, mask: Mask, budget: int, values: Values, form: Form | None
) -> Mask:
    """The most entries whose storage fits, by halving: what takes more bytes has more entries."""

    def fits(found: Mask) -> bool:
        there = found.table.numpy()
        counts, dim = np.count_nonzero(there, axis=1), there.shape[1]
        width = width_of(there)
        chosen = form or smallest_form(counts, dim, width, values)
        return form_bytes(chosen, counts, dim, width, values) <= budget

    if fits(mask):
        return mask
    low, high = 0, mask.remaining
    best = _keep_largest(scores, mask, low)
    if not fits(best):
        raise InputError(
            f"a table of {scores.size(0):,} rows and {scores.size(1):,} columns does not fit into "
            f"{budget:,} bytes even without an entry: give more"
        )
    while high - low > 1:
        middle = (low + high) // 2
        found = _keep_largest(scores, mask, middle)
        if fits(found):
            low, best = middle, found
        else:
            high = middle
    return best
