"""The normalised adjacency matrix: built once, multiplied fast, forward and backward."""

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric import EdgeIndex
from torch_geometric.utils import cumsum

from pyg_lth import kernels
from pyg_lth.config import PropagationName
from pyg_lth.errors import InputError
from pyg_lth.kernels.streams import Beside
from pyg_lth.nn.distinct import add_up, distinct_nodes

if TYPE_CHECKING:
    from pyg_lth.kernels.on_cuda import Adam, Added

# Every column propagates alone, so on a CPU no more do at a time: of more, less stays in its cache,
# and the fewer, the more often the indices are read.
COLUMNS_AT_ONCE = 128

# Edges between the one that the native product adds and the one whose row it already fetches.
AHEAD = 64

# Columns that the native product holds in a register.
LANES = 16

# As many nodes can be counted in int32.
MOST_NODES = 2**31


class Propagation:
    r"""The symmetrically normalised adjacency :math:`\hat{A} = D^{-1/2} A D^{-1/2}`.

    Stands in for ``edge_index`` in the backbones of :mod:`pyg_lth.nn.backbones`. Where PyG
    normalises and gathers edge by edge in every step, the matrix is laid out here once, and since
    it is symmetric the backward pass is the same product as the forward one.

    Args:
        edge_index: The undirected graph with both directions of every edge, shape ``[2, E]``,
            int64.
        num_nodes: Number of nodes :math:`N`; those without an edge get a zero row.
        backend: ``native`` (this package's kernels, CPU only), ``triton`` (those for CUDA),
            ``triton-bfloat16`` (the same with the rows that they gather rounded to bfloat16),
            ``csr`` (a torch CSR matrix), ``edge-index`` (PyG's
            :class:`~torch_geometric.EdgeIndex`), ``scatter`` (torch-scatter), or ``auto``:
            ``native`` or, on CUDA, ``triton`` where it can be used, otherwise ``csr``.

    Attributes:
        num_nodes: The same.
        backend: The one that is used.
        matrix: The matrix for it.

    Raises:
        InputError: If the backend asked for is not installed or not for this device.

    Example:
        >>> import torch
        >>> from pyg_lth import Propagation
        >>> edge_index = torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]])  # node 0 between 1 and 2
        >>> propagation = Propagation(edge_index, num_nodes=3, backend="csr")
        >>> propagation
        Propagation(num_nodes=3, backend='csr')
        >>> propagation @ torch.eye(3)
        tensor([[0.0000, 0.7071, 0.7071],
                [0.7071, 0.0000, 0.0000],
                [0.7071, 0.0000, 0.0000]])
    """

    def __init__(self, edge_index: Tensor, num_nodes: int, backend: PropagationName = "auto"):
        if backend == "auto":
            backend = _quickest(edge_index.device)
        row, col = edge_index[:, (edge_index[0] * num_nodes + edge_index[1]).argsort()]
        degree = torch.bincount(row, minlength=num_nodes)
        scale = degree.float().pow(-0.5).masked_fill(degree == 0, 0.0)
        self.num_nodes = num_nodes
        self.backend = backend
        self.matrix = BACKENDS[backend](row, col, scale[row] * scale[col], cumsum(degree))

    def __matmul__(self, x: Tensor) -> Tensor:
        r"""Multiply :math:`\hat{A} x` for ``x`` of shape ``[N, dim]``, differentiably."""
        return self.combine_layers(x, x.new_tensor([0.0, 1.0]))

    def combine_layers(self, x: Tensor, alpha: Tensor) -> Tensor:
        r"""Compute :math:`\sum_l \alpha_l \hat{A}^l x`, LightGCN's embedding (its Equation 8).

        Args:
            x: Ego embeddings, shape ``[N, dim]``, float.
            alpha: Layer weights, shape ``[num_layers + 1]``, without gradient.
        """
        out: Tensor = _Polynomial.apply(x, alpha, self.matrix)  # type: ignore[no-untyped-call]
        return out

    def combine_layers_at(self, nodes: Tensor, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Compute some rows of :meth:`combine_layers`, and the same rows of ``x`` with them.

        Only what these rows need is computed: of the last layer they alone, and in the backward
        pass of the first product what starts from them. The ego rows come along so that ``x`` gets
        one gradient.

        Args:
            nodes: The rows, int64, shape ``[n]``; one may come several times.
            x: Ego embeddings, shape ``[N, dim]``, float.
            alpha: Layer weights, shape ``[num_layers + 1]``, without gradient.

        Returns:
            Propagated and ego embeddings, each of shape ``[n, dim]``.
        """
        if alpha.numel() == 1:
            ego = F.embedding(nodes, x)
            return ego * alpha, ego
        places = self.matrix.places(nodes, self.num_nodes)
        out, ego = _PolynomialAt.apply(x, alpha, self.matrix, nodes, *places)  # type: ignore[no-untyped-call]
        return out, ego

    def among(self, living: Tensor) -> "Propagation":
        """Return the same, quicker for a table of which many rows are empty, such as a ticket's.

        Of :meth:`combine_layers_at` the first product then leaves out what comes from empty rows,
        and the last one of the backward pass what would go to them: they get no gradient but that
        of their own place in the batch. Everything else is the same, bit for bit.

        Args:
            living: Which rows of ``x`` are not all zeros, bool, shape ``[N]``.
        """
        among = copy.copy(self)
        among.matrix = self.matrix.among(living)
        return among

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, backend={self.backend!r})"


def _quickest(device: torch.device) -> PropagationName:
    """The backend that is called ``auto`` on a device."""
    if kernels.usable(device):
        return "native"
    return "triton" if device.type == "cuda" and kernels.triton_usable(device) else "csr"


class Matrix:
    """A symmetric sparse matrix, and polynomials in it.

    Args:
        product: Multiplies it with a matrix of shape ``[N, dim]``.
    """

    def __init__(self, product: Callable[[Tensor], Tensor]):
        self.product = product

    def product_with_table(self, x: Tensor) -> Tensor:
        """The product with a table that may have empty rows."""
        return self.product(x)

    def product_for_table(self, x: Tensor) -> Tensor:
        """The product at those rows that such a table has, zeros or anything at the others."""
        return self.product(x)

    def among(self, living: Tensor) -> "Matrix":
        """The same matrix for a table of which only these rows are not empty."""
        return self

    def product_at(self, nodes: Tensor, x: Tensor) -> Tensor:
        """Rows ``nodes`` of the product with ``x``."""
        return self.product(x).index_select(0, nodes)

    def product_from(self, nodes: Tensor, rows: Tensor, num_nodes: int) -> Tensor:
        """The product with the matrix whose rows ``nodes`` are ``rows``, the others zero."""
        x = rows.new_zeros(num_nodes, rows.size(1))
        return self.product(x.index_add_(0, nodes, rows))

    def polynomial(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Evaluate the polynomial with one buffer a layer instead of keeping every power."""
        out = x * alpha[-1]
        for weight in alpha[:-1].flip(0):
            out = self.product(out).addcmul_(x, weight)
        return out

    def places(self, nodes: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
        """List the distinct nodes of a batch, and say where in that list each of its nodes is.

        Returns:
            What :meth:`polynomial_at` and :meth:`gradient` take as ``listed``, the places in it of
            shape ``[n]``, and what else :meth:`add_up` needs; the nodes alone if each stays by
            itself.
        """
        # On CUDA the host would have to wait to know which come twice.
        return (nodes,) if nodes.is_cuda else distinct_nodes(nodes, num_nodes)

    def add_up(self, rows: Tensor, count: int, place: Tensor) -> Tensor:
        """Add up the rows that have the same place, of so many."""
        return add_up(rows, place, count)

    def polynomial_at(self, listed: Tensor, x: Tensor, alpha: Tensor) -> Tensor:
        """Rows ``listed`` of :meth:`polynomial`, of two terms or more."""
        out = x.index_select(0, listed).mul_(alpha[0])
        product: Callable[[Tensor], Tensor] = self.product_with_table
        for weight in alpha[1:-1]:
            x, product = product(x), self.product
            out.addcmul_(x.index_select(0, listed), weight)
        return out.addcmul_(self.product_at(listed, x), alpha[-1])

    def gradient(
        self, listed: Tensor, of_out: Tensor, of_ego: Tensor, alpha: Tensor, num_nodes: int
    ) -> Tensor:
        """The gradient by ``x``, from those by :meth:`polynomial_at` and by these rows of ``x``."""
        grad = self.product_from(listed, of_out * alpha[-1], num_nodes)
        for weight in alpha[2:-1].flip(0):
            grad = self.product(grad.index_add_(0, listed, of_out * weight))
        if alpha.numel() > 2:
            grad.index_add_(0, listed, of_out * alpha[1])
            grad = self.product_for_table(grad)
        return grad.index_add_(0, listed, of_ego.addcmul(of_out, alpha[0]))


class _Polynomial(torch.autograd.Function):
    """A polynomial in a symmetric matrix, which is its own transpose and so its own backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, matrix: Matrix) -> Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(alpha)
        return _by_columns(lambda block: matrix.polynomial(block, alpha), x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (alpha,) = ctx.saved_tensors
        return _Polynomial.apply(grad_outputs[0], alpha, ctx.matrix), None, None  # type: ignore[no-untyped-call]


class _PolynomialAt(torch.autograd.Function):
    """Some rows of the polynomial and of its argument."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor,
        matrix: Matrix,
        nodes: Tensor,
        listed: Tensor,
        *places: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.matrix, ctx.num_nodes = matrix, x.size(0)
        ctx.save_for_backward(alpha, listed, *places)
        ego = x.index_select(0, nodes)
        out = _by_columns(lambda x: matrix.polynomial_at(listed, x, alpha), x)
        return (out.index_select(0, places[0]) if places else out), ego

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        alpha, listed, *places = ctx.saved_tensors
        matrix: Matrix = ctx.matrix
        if places:
            count = listed.numel()
            grad_outputs = tuple(matrix.add_up(grad, count, *places) for grad in grad_outputs)

        def gradient(of_out: Tensor, of_ego: Tensor) -> Tensor:
            return matrix.gradient(listed, of_out, of_ego, alpha, ctx.num_nodes)

        return (_by_columns(gradient, *grad_outputs), *(None for _ in range(4 + len(places))))


def _by_columns(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply a function that treats every column alone to a cache's worth of them at a time."""
    if inputs[0].device.type != "cpu":
        return function(*(x.contiguous() for x in inputs))
    blocks = zip(*(torch.split(x, COLUMNS_AT_ONCE, dim=1) for x in inputs), strict=True)
    outs = [function(*(x.contiguous() for x in block)) for block in blocks]
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


class _Native(Matrix):
    """The matrix for the kernels of this package."""

    def __init__(self, row: Tensor, col: Tensor, weight: Tensor, rowptr: Tensor):
        if not kernels.usable(col.device):
            raise InputError(
                f"propagation 'native' is not to be had on {col.device.type}: it is compiled with "
                "the package where there is a C compiler, for CPUs; take `propagation=csr`"
            )
        if rowptr.numel() - 1 > MOST_NODES:
            raise InputError(
                f"propagation 'native' counts nodes in int32, up to {MOST_NODES}, and there are "
                f"{rowptr.numel() - 1}; take `propagation=csr`"
            )
        # Half the index traffic of int64.
        self._layout = (rowptr, F.pad(col.int(), (0, AHEAD)), weight)
        self._with_table = self._for_table = self._layout

    def among(self, living: Tensor) -> "_Native":
        if living.all():
            return self
        among = copy.copy(self)
        rowptr, col, weight = self._layout
        col = col[: weight.numel()]
        row = torch.arange(rowptr.numel() - 1).repeat_interleave(rowptr.diff())
        among._with_table, among._for_table = (
            (
                cumsum(torch.bincount(row[kept], minlength=living.numel())),
                F.pad(col[kept], (0, AHEAD)),
                weight[kept],
            )
            for kept in (living[col], living[row])
        )
        return among

    def product(self, x: Tensor) -> Tensor:
        return self._gather(self._layout, None, x, torch.empty_like(x))

    def product_with_table(self, x: Tensor) -> Tensor:
        # What does not fill a register is rounded after some edges and not after others, so that
        # leaving out a zero would show in the last bit.
        layout = self._layout if x.size(1) % LANES else self._with_table
        return self._gather(layout, None, x, torch.empty_like(x))

    def product_for_table(self, x: Tensor) -> Tensor:
        return self._gather(self._for_table, None, x, torch.empty_like(x))

    def product_at(self, nodes: Tensor, x: Tensor) -> Tensor:
        out = x.new_empty(nodes.numel(), x.size(1))
        return self._gather(self._layout, nodes.contiguous(), x, out)

    def _gather(
        self, layout: tuple[Tensor, ...], nodes: Tensor | None, x: Tensor, out: Tensor
    ) -> Tensor:
        num_nodes = layout[0].numel() - 1
        if x.size(0) != num_nodes:
            raise ValueError(f"x has {x.size(0)} rows for a graph of {num_nodes} nodes")
        kernels.call("gather", *layout, nodes, out.size(0), x, x.size(1), AHEAD, out)
        return out

    def product_from(self, nodes: Tensor, rows: Tensor, num_nodes: int) -> Tensor:
        out, nodes = rows.new_empty(num_nodes, rows.size(1)), nodes.contiguous()
        size = (nodes.numel(), num_nodes, rows, rows.size(1), AHEAD)
        kernels.call("scatter", *self._layout, nodes, *size, out)
        return out


class Triton(Matrix):
    """The matrix for the kernels in Triton.

    They add up rows as they are. So a table is multiplied with :math:`D^{-1/2}` before, and a sum
    with it again, or for the next product with :math:`D^{-1}`: no weight of an edge is ever read.

    Args:
        row: Of each edge, int64, sorted.
        col: Of each edge, int64.
        weight: Of each edge; not read.
        rowptr: Where the edges of each row begin, int64.
        gathered: What is gathered is rounded to this type; sums are in float32.

    Raises:
        InputError: If the kernels cannot be had on this device.
    """

    def __init__(
        self,
        row: Tensor,
        col: Tensor,
        weight: Tensor,
        rowptr: Tensor,
        gathered: torch.dtype = torch.float,
    ):
        if not kernels.triton_usable(col.device):
            raise InputError(
                f"propagation 'triton' is not to be had on {col.device.type}: it takes a CUDA "
                "device and Triton, which comes with torch's builds for CUDA; take "
                "`propagation=csr`"
            )
        from pyg_lth.kernels import on_cuda

        self._kernels = on_cuda
        self._gathered = gathered
        self._layout = on_cuda.Layout.of(rowptr, col)
        degree = rowptr.diff()
        self._scale = degree.float().pow(-0.5).masked_fill(degree == 0, 0.0)
        self._square, self._one = self._scale.square(), self._scale.new_ones(1)
        self._beside = Beside(col.device)

    def polynomial(self, x: Tensor, alpha: Tensor) -> Tensor:
        """As in the parent."""
        return self._horner(x, alpha, None)

    def polynomial_at(self, listed: Tensor, x: Tensor, alpha: Tensor) -> Tensor:
        """As in the parent."""
        return self._horner(x, alpha, listed)

    def _horner(self, x: Tensor, alpha: Tensor, listed: Tensor | None) -> Tensor:
        if x.size(0) != self._scale.numel():
            raise ValueError(f"x has {x.size(0)} rows for a graph of {self._scale.numel()} nodes")
        if alpha.numel() == 1:
            return x * alpha
        return self._last_layer(self._but_last_layer(x, alpha), x, alpha, listed)

    def _but_last_layer(self, x: Tensor, alpha: Tensor) -> Tensor:
        out = (x * (self._scale * alpha[-1]).unsqueeze(1)).to(self._gathered)
        for layer in range(alpha.numel() - 2, 0, -1):
            added = (x, None, self._scale, alpha[layer:])
            out = self._product(out, self._square, added, dtype=self._gathered)
        return out

    def _last_layer(self, out: Tensor, x: Tensor, alpha: Tensor, listed: Tensor | None) -> Tensor:
        return self._product(out, self._scale, (x, None, None, alpha), rows=listed)

    def places(self, nodes: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
        """As in the parent, of fixed size: a list is as long as the batch, -1 at its end."""
        return self._kernels.distinct_nodes(nodes)

    def add_up(self, rows: Tensor, count: int, *places: Tensor) -> Tensor:
        """As in the parent."""
        _, order, begin = places
        return self._kernels.add_up(rows, order, begin)

    def gradient(
        self,
        listed: Tensor,
        of_out: Tensor,
        of_ego: Tensor,
        alpha: Tensor,
        num_nodes: int,
        adam: "Adam | None" = None,
    ) -> Tensor:
        """As in the parent; with ``adam`` its table takes a step with the gradient at once."""
        # One place more at the end, for those of the list that are -1 and stand for no node.
        slot = listed.new_full((num_nodes + 1,), -1, dtype=torch.int32)
        slot[listed] = torch.arange(listed.numel(), dtype=torch.int32, device=listed.device)
        factor = self._scale[listed] * alpha[-1]
        grad = (of_out * factor.unsqueeze(1)).to(self._gathered)
        of_grad: Tensor | None = slot
        for layer in range(alpha.numel() - 2, 0, -1):
            added = (of_out, slot, self._scale, alpha[layer:])
            grad = self._product(grad, self._square, added, slot=of_grad, dtype=self._gathered)
            of_grad = None
        own = (of_ego.addcmul(of_out, alpha[0]), slot, None, self._one)
        return self._product(grad, self._scale, own, slot=of_grad, adam=adam)

    def _product(self, source: Tensor, scale: Tensor, added: "Added", **options: Any) -> Tensor:
        return self._kernels.gather(self._layout, source, scale, added, **options)

    def bpr_step(self, nodes: Tensor, alpha: Tensor, reg: float, adam: "Adam") -> Tensor:
        """Look up, take the loss ``bpr`` with its L2 term, and a step of Adam with its gradient.

        Args:
            nodes: Users, an item of each, then rows of negatives, int64, shape ``[2 + n, B]``.
            alpha: Layer weights, shape ``[num_layers + 1]``, of one layer or more.
            reg: Weight of the L2 term.
            adam: The table, float32, shape ``[N, dim]``, changed in place, and its state.

        Returns:
            The loss before the step, a scalar.
        """
        with self._beside() as meet:
            listed, place, *groups = self.places(nodes.flatten(), adam.table.size(0))
        # All layers but the last are the same whatever the batch.
        out = self._but_last_layer(adam.table, alpha)
        meet()
        rows = self._last_layer(out, adam.table, alpha, listed)
        loss, of_out, of_ego = self._kernels.bpr(nodes, place, rows, adam.table, reg)
        of_out, of_ego = (self._kernels.add_up(rows, *groups) for rows in (of_out, of_ego))
        self.gradient(listed, of_out, of_ego, alpha, adam.table.size(0), adam)
        return loss


def _csr(row: Tensor, col: Tensor, weight: Tensor, rowptr: Tensor) -> Matrix:
    size = (rowptr.numel() - 1,) * 2
    # int32 halves the index traffic, where it can count the edges and the nodes.
    index = torch.int32 if max(col.numel(), *size) < 2**31 else torch.int64
    with _without_warnings():
        matrix = torch.sparse_csr_tensor(rowptr.to(index), col.to(index), weight, size)

    def product(x: Tensor) -> Tensor:
        # The plain product fills a table with zeros and copies it, to add nothing to it.
        return x.new_empty(size[0], x.size(1)).addmm_(matrix, x, beta=0)

    return Matrix(product)


def _edge_index(row: Tensor, col: Tensor, weight: Tensor, rowptr: Tensor) -> Matrix:
    size = (rowptr.numel() - 1,) * 2
    index = EdgeIndex(torch.stack([row, col]), sparse_size=size, sort_order="row")
    with _without_warnings():
        index.matmul(weight.new_zeros(size[0], 1), input_value=weight)
    return Matrix(lambda x: index.matmul(x, input_value=weight))


def _scatter(row: Tensor, col: Tensor, weight: Tensor, rowptr: Tensor) -> Matrix:
    try:
        from torch_scatter import segment_csr
    except (ImportError, OSError) as error:
        raise InputError(
            "propagation 'scatter' needs torch-scatter: pip install --no-build-isolation "
            "torch-scatter, or take `propagation=csr`"
        ) from error
    weight = weight.unsqueeze(1)
    return Matrix(lambda x: segment_csr(x[col] * weight, rowptr, reduce="sum"))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep torch's once-only remarks on its CSR layout from the user, who cannot act on them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)", UserWarning)
        yield


BACKENDS: dict[PropagationName, Callable[[Tensor, Tensor, Tensor, Tensor], Matrix]] = {
    "native": _Native,
    "triton": Triton,
    "triton-bfloat16": functools.partial(Triton, gathered=torch.bfloat16),
    "csr": _csr,
    "edge-index": _edge_index,
    "scatter": _scatter,
}
