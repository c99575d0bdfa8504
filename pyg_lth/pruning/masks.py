"""Masks over an embedding table: which entries live, how many may, and how they stay zero."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pyg_lth.config import ScopeName
from pyg_lth.errors import InputError
from pyg_lth.workers import Workers


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """A boolean table: :obj:`True` where an entry of the embedding table lives.

    Args:
        table: Boolean, shape ``[num_nodes, dim]``.

    Example:
        >>> import torch
        >>> from pyg_lth import Mask
        >>> mask = Mask(torch.tensor([[True, False], [True, True]]))
        >>> mask.remaining, mask.density
        (3, 0.75)
        >>> mask <= Mask.ones(2, 2)  # all that lives here lives there
        True
    """

    table: Tensor

    @classmethod
    def ones(cls, num_nodes: int, dim: int) -> "Mask":
        """The mask of the dense table."""
        return cls(torch.ones(num_nodes, dim, dtype=torch.bool))

    @property
    def remaining(self) -> int:
        """Number of living entries."""
        return int(self.table.sum())

    @property
    def density(self) -> float:
        """Share of living entries, in [0, 1]."""
        return self.remaining / self.table.numel()

    def __repr__(self) -> str:
        rows, columns = self.table.shape
        living = f"{self.remaining:,} of {self.table.numel():,} entries live"
        return f"Mask({rows:,} × {columns}, {living}: {self.density:.2%})"

    def _repr_html_(self) -> str:
        """For notebooks: the same, and how living entries are spread over the rows."""
        in_row = self.table.sum(1)
        empty = int((in_row == 0).sum())
        return (
            f"<p><strong>{self!r}</strong><br>"
            f"<meter min='0' max='1' value='{self.density:.4f}'></meter> "
            f"{in_row.float().mean():.2f} entries live in a row on average, at least "
            f"{int(in_row.min())}, at most {int(in_row.max())}; {empty:,} rows are empty.</p>"
        )

    def __and__(self, other: "Mask") -> "Mask":
        return Mask(self.table & other.table)

    def __or__(self, other: "Mask") -> "Mask":
        return Mask(self.table | other.table)

    def __invert__(self) -> "Mask":
        return Mask(~self.table)

    def __le__(self, other: "Mask") -> bool:
        """Whether every entry that lives here lives in ``other``."""
        return not bool((self.table & ~other.table).any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and torch.equal(self.table, other.table)


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnsOfMask(Mask):
    """Some columns of a mask, which know how many entries live in all of it.

    Args:
        living: Living entries of the whole mask.
        entries: Entries of the whole mask.
    """

    living: int
    entries: int

    @classmethod
    def of(cls, mask: Mask, workers: Workers) -> Mask:
        """The columns of this worker, counted together with those of the others."""
        if workers.size == 1:
            return mask
        counts = torch.tensor([mask.remaining, mask.table.numel()])
        return cls(mask.table, *workers.sum(counts).tolist())

    @property
    def remaining(self) -> int:
        """Number of living entries of the whole mask."""
        return self.living

    @property
    def density(self) -> float:
        """Share of living entries of the whole mask, in [0, 1]."""
        return self.living / self.entries


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many entries of a block of rows survive.

    Args:
        rows: The block.
        keep: Entries that survive in the block.
        each_row: Whether ``keep`` is shared out evenly over the rows, each with a threshold of its
            own, instead of one threshold for the block.
    """

    rows: slice
    keep: int
    each_row: bool = False


def survivors(size: int, amount: float, rounds: int) -> int:
    """Entries left of ``size`` when each round drops exactly ``floor(n * amount)`` of its ``n``.

    ``amount`` is read as the decimal it prints as, so that 29% of 100 is 29 and not the 28 of
    binary floating point.

    Example:
        >>> from pyg_lth.pruning.masks import survivors
        >>> survivors(1000, amount=0.1, rounds=3)  # 900, 810, 729
        729
    """
    share = Fraction(str(amount))
    for _ in range(rounds):
        size -= math.floor(size * share)
    return size


def budgets(
    scope: ScopeName, num_users: int, shape: Sequence[int], amount: float, rounds: int
) -> list[Budget]:
    """What each part of the table may keep after ``rounds`` rounds of pruning.

    Rows outside every budget (the items under scope ``user``) are left alone.

    Args:
        scope: ``joint`` (one threshold), ``user`` or ``item`` (one, and the other table whole),
            ``user_item`` (one each), ``row`` (one for each row; the joint count is shared out
            evenly, the first rows taking what is over).
        num_users: Rows of the user table.
        shape: Of the joint table, ``[num_nodes, dim]``.
        amount: Share of the survivors that a round drops.
        rounds: Rounds of pruning so far.
    """
    num_nodes, dim = shape
    users, items, joint = slice(0, num_users), slice(num_users, num_nodes), slice(0, num_nodes)
    blocks = {
        "joint": [joint],
        "user": [users],
        "item": [items],
        "user_item": [users, items],
        "row": [joint],
    }[scope]
    return [
        Budget(
            rows,
            survivors((rows.stop - rows.start) * dim, amount, rounds),
            each_row=scope == "row",
        )
        for rows in blocks
    ]


class _MaskedGradient(torch.autograd.Function):
    """A table whose gradient is masked, of the shape of the mask."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, mask: Tensor) -> Tensor:
        ctx.mask = mask
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0] * ctx.mask, None


class MaskedWeight(nn.Module):
    """Parametrization that multiplies a weight by a mask.

    The masked entries of the stored parameter are set to zero as well. They get no gradient, so
    they stay exactly zero under every optimizer whose update of a zero with a zero gradient is
    zero, Adam and AdamW among them.

    Attributes:
        mask: The mask, in the type of the weight.
        stays_masked: Whether the stored parameter is only changed by such an optimizer. It then is
            the masked weight, and a pass over the table is saved.
    """

    mask: Tensor
    stays_masked = False

    def __init__(self, mask: Mask, dtype: torch.dtype):
        super().__init__()
        # In the type of the weight, since a product with booleans takes three times as long.
        self.register_buffer("mask", mask.table.to(dtype), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its masked entries at zero."""
        if self.stays_masked:
            masked: Tensor = _MaskedGradient.apply(weight, self.mask)  # type: ignore[no-untyped-call]
            return masked
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the parameter to store for ``weight``."""
        return weight * self.mask


def apply_mask(module: nn.Module, mask: Mask) -> nn.Parameter:
    """Mask the one embedding table in ``module``, in place.

    Args:
        module: Any module with exactly one :class:`torch.nn.Embedding` in it, or the embedding.
        mask: Of the shape of its weight.

    Returns:
        The parameter to train; the ``weight`` of the embedding is now this one, masked.

    Raises:
        InputError: If there is not exactly one embedding, or the shapes differ.

    Example:
        >>> import torch
        >>> from pyg_lth import MF, Mask, apply_mask
        >>> model = MF(num_nodes=2, embedding_dim=2)
        >>> parameter = apply_mask(model, Mask(torch.tensor([[True, False], [True, True]])))
        >>> optimizer = torch.optim.Adam([parameter])
        >>> model.get_embedding().square().sum().backward()
        >>> optimizer.step()
        >>> model.get_embedding() != 0  # what is masked stays at zero
        tensor([[ True, False],
                [ True,  True]])
    """
    embeddings = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    if len(embeddings) != 1:
        raise InputError(
            f"a mask needs a module with one embedding, this one has {len(embeddings)}: give the "
            "embedding itself"
        )
    (embedding,) = embeddings
    if mask.table.shape != embedding.weight.shape:
        raise InputError(
            f"the mask is of shape {list(mask.table.shape)}, the embedding of "
            f"{list(embedding.weight.shape)}"
        )
    placed = Mask(mask.table.to(embedding.weight.device))
    parametrize.register_parametrization(
        embedding, "weight", MaskedWeight(placed, embedding.weight.dtype)
    )
    masked = cast(
        parametrize.ParametrizationList, embedding.get_submodule("parametrizations.weight")
    )
    return cast(nn.Parameter, masked.original)
