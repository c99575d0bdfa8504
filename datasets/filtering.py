"""Choosing which rows of an interaction log count."""

from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.integer[Any]] | npt.NDArray[np.floating[Any]]


def last_of_pairs(
    users: Codes,
    items: Codes,
    times: Numbers | None = None,
) -> npt.NDArray[np.int64]:
    """Merges the repeated interactions of a user and an item into the last one.

    Args:
        users: The user index of each interaction, whole numbers of shape [E].
        items: The item index of each interaction, whole numbers of shape [E].
        times: The time of each interaction, shape [E]. Without it, and where times are equal,
            the one that stands later is the later.

    Returns:
        The positions of the interactions that stay, int64, ascending.
    """
    order = np.lexsort((items, users) if times is None else (times, items, users))
    changes = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
    is_last = np.append(changes, np.ones_like(order[:1], dtype=bool))
    return np.sort(order[is_last])


def k_core(users: Codes, items: Codes, core: int) -> npt.NDArray[np.int64]:
    """Finds the k-core: the largest part in which all have `core` interactions or more.

    Dropping a user takes interactions from items, and the other way round, so it goes on until
    nothing changes.

    Args:
        users: The user index of each interaction, whole numbers of shape [E].
        items: The item index of each interaction, whole numbers of shape [E].
        core: The least number of interactions of a user and of an item.

    Returns:
        The positions of the interactions that stay, int64, ascending.
    """
    alive = np.arange(users.size)
    while True:
        enough = (np.bincount(users[alive]) >= core)[users[alive]]
        enough &= (np.bincount(items[alive]) >= core)[items[alive]]
        if enough.all():
            return alive
        alive = alive[enough]
