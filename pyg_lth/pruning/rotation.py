"""The basis in which few entries of a table hold most of it."""

import torch
from torch import Tensor

STEPS_AT_MOST = 200
# Rows whose powers are held at once.
_ROWS_AT_ONCE = 1 << 16


def quartimax(table: Tensor) -> Tensor:
    r"""Find the rotation :math:`Q` under which the fourth powers of a table's entries sum highest.

    Scores do not depend on the basis that embeddings are written in, since
    :math:`(XQ)(YQ)^\top = XY^\top` and :math:`\hat{A}(XQ) = (\hat{A}X)Q`, but what the magnitude of
    an entry says of it does. Among rows of equal length, those with the largest fourth powers are
    the sparsest. This is the quartimax criterion of factor analysis, climbed from the basis that
    the table is in by the algorithm of `"Complete Dictionary Learning via L4-Norm Maximization over
    the Orthogonal Group" <https://arxiv.org/abs/1906.02435>`_.

    Args:
        table: Shape ``[n, dim]``, float.

    Returns:
        Orthogonal, shape ``[dim, dim]``, of the table's type; the identity for a table of zeros.
    """
    scale = table.abs().max().double()
    basis = torch.eye(table.size(1), dtype=torch.float64)
    if scale == 0:
        return basis.to(table.dtype)
    for _ in range(STEPS_AT_MOST):
        slope = torch.zeros_like(basis)
        for rows in torch.split(table, _ROWS_AT_ONCE):
            x = rows.double() / scale
            slope += x.t() @ (x @ basis) ** 3
        left, _, right = torch.linalg.svd(slope)
        last, basis = basis, left @ right
        if (basis - last).abs().max() < 1e-9:
            break
    return basis.to(table.dtype)
