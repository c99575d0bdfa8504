"""A compact table in the place of a :class:`torch.nn.Embedding`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pyg_lth.tickets import native
from pyg_lth.tickets.quantization import Values
from pyg_lth.tickets.table import CompactTable

# Two int4 share a byte.
_DTYPES: dict[Values, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int4": torch.uint8,
}


class TicketEmbedding(nn.Module):
    """Looks rows up in a compact table, on any device, without the dense table.

    Nothing in it is trained and nothing waits for the device. Its state dict holds ``values`` (the
    codes as stored, flat), ``offsets`` (where those of each row begin, int64) and ``columns``
    (uint8, or the bits of uint16 as int16 above 256 columns) where only some entries are stored,
    and ``scales`` (of each row, float32) for int8 and int4; a bit map is held as columns. It loads
    into the module of a table with the same shape and number of entries.

    Args:
        table: The table.

    Example:
        >>> import pyg_lth, torch
        >>> from pyg_lth.tickets.embedding import TicketEmbedding
        >>> trained = torch.nn.Embedding(1000, 64)
        >>> embedding = TicketEmbedding(pyg_lth.compress(trained, density=0.1))
        >>> embedding(torch.tensor([[3, 5], [5, 999]])).shape
        torch.Size([2, 2, 64])
    """

    values: Tensor
    offsets: Tensor
    columns: Tensor
    scales: Tensor | None

    def __init__(self, table: CompactTable):
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_rows, table.dim
        self._kind, self._width = table.kind, table.width
        self._sparse = table.form in ("bitmap", "columns")
        codes = torch.from_numpy(table.tensors["values"].copy())
        self.register_buffer("values", codes.view(_DTYPES[table.kind]))
        self.register_buffer("scales", None)
        if table.row_scales is not None:
            self.register_buffer("scales", torch.from_numpy(table.row_scales.copy()))
        if self._sparse:
            rowptr, column, _ = table.to_csr()
            narrow = table.dim <= 1 << 8
            stored = column.astype(np.uint8 if narrow else np.uint16)
            self.register_buffer("offsets", torch.from_numpy(rowptr.copy()))
            self.register_buffer(
                "columns", torch.from_numpy(stored if narrow else stored.view(np.int16))
            )
            self._longest = int(table.counts.max())

    def forward(self, index: Tensor) -> Tensor:
        """Return the rows of an index of any shape, float32, with a last dimension more."""
        flat = index.reshape(-1)
        if self._sparse and index.device.type == "cpu" and native.library():
            rows = self._native(flat)
        else:
            rows = self._some(flat) if self._sparse else self._all(flat)
            if self.scales is not None:
                rows = rows * self.scales[flat].unsqueeze(1)
        return rows.view(*index.shape, self.embedding_dim)

    def _native(self, flat: Tensor) -> Tensor:
        flat = flat.long()
        if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < self.num_embeddings:
            raise IndexError("index out of range in self")
        codes, columns = _array(self.values), _array(self.columns)
        scales = None if self.scales is None else _array(self.scales)
        return torch.from_numpy(
            native.take_rows(
                *(_array(flat.contiguous()), _array(self.offsets), columns, codes, self._kind),
                *(scales, self.embedding_dim),
            )
        )

    def _some(self, flat: Tensor) -> Tensor:
        """Rows of which some entries are stored; each takes as many steps as the longest."""
        rows = torch.zeros(flat.numel(), self.embedding_dim, device=flat.device)
        if self._longest == 0:
            return rows
        begin = self.offsets.index_select(0, flat).unsqueeze(1)
        step = torch.arange(self._longest, device=flat.device)
        there = step < self.offsets.index_select(0, flat + 1).unsqueeze(1) - begin
        place = torch.where(there, begin + step, 0)
        column = self.columns[place].long() & 0xFFFF
        return rows.scatter_add_(1, torch.where(there, column, 0), self._at(place) * there)

    def _all(self, flat: Tensor) -> Tensor:
        """Rows of which the first columns are stored, or all."""
        if self._kind == "int4" and self._width % 2 == 0:
            # Rows begin with a byte, so whole bytes are taken.
            pairs = self.values.view(-1, self._width // 2).index_select(0, flat).unsqueeze(2)
            codes = torch.cat([pairs & 15, pairs >> 4], dim=2).view(-1, self._width)
            found = (codes ^ 8).float() - 8
        elif self._kind == "int4":
            step = torch.arange(self._width, device=flat.device)
            found = self._at(flat.unsqueeze(1) * self._width + step)
        else:
            found = self.values.view(-1, self._width).index_select(0, flat).float()
        return nn.functional.pad(found, (0, self.embedding_dim - self._width))

    def _at(self, place: Tensor) -> Tensor:
        """The values at some places, in their shape, not yet scaled."""
        if self._kind != "int4":
            return self.values[place].float()
        nibble = (self.values[place >> 1].int() >> ((place & 1) << 2).int()) & 15
        return ((nibble ^ 8) - 8).float()

    def extra_repr(self) -> str:
        """Name sizes and how values are stored."""
        return f"{self.num_embeddings}, {self.embedding_dim}, values={self._kind!r}"


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    """The memory of a tensor for a kernel, which sees no more than the bits of a bfloat16."""
    array: npt.NDArray[Any] = (
        tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    ).numpy()
    return array
