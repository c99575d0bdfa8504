"""Embeddings for people who were not in training, from the items they are known to like."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# How a backbone comes to an embedding from items: by its own propagation, or by ridge regression.
FoldIn = Literal["propagation", "ridge"]

# The penalty of the ridge regression, in mean squared lengths of the items' embeddings.
RIDGE = 1.0


def fold_in(items: Floats, degrees: Integers, how: FoldIn, length: float | None = None) -> Floats:
    r"""Embed someone by the items that they have.

    By propagation it is what LightGCN's last layers give a user without an embedding of their own:
    :math:`\sum_i \hat{e}_i / \sqrt{d_i}` over their items, up to a factor that changes no order. By
    ridge regression it is the :math:`u` of least
    :math:`\sum_i (1 - u^\top \hat{e}_i)^2 + \lambda |u|^2`.

    Args:
        items: Embeddings of the items, shape ``[n, dim]``.
        degrees: How many users have each of them in training, shape ``[n]``.
        how: By which of the two.
        length: What to scale it to, for scores that have something added to them; by default it is
            as it comes, which changes no order of scores that have not.

    Returns:
        Shape ``[dim]``.
    """
    wide = items.astype(np.float64)
    if how == "propagation":
        user = (wide / np.sqrt(np.maximum(degrees, 1))[:, None]).sum(axis=0)
    else:
        penalty = RIDGE * max(float((wide**2).sum(axis=1).mean()), float(np.finfo(np.float32).tiny))
        gram = wide.T @ wide + penalty * np.eye(wide.shape[1])
        user = np.linalg.solve(gram, wide.sum(axis=0))
    if length is not None:
        user *= length / max(float(np.linalg.norm(user)), float(np.finfo(np.float32).tiny))
    embedded: Floats = user.astype(np.float32)
    return embedded
