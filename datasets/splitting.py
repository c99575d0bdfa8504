"""Dividing each user's interactions into train, validation and test."""

import numpy as np
import numpy.typing as npt

from .filtering import Codes, Numbers

TRAIN, VALID, TEST = 0, 1, 2
RATIO = (7, 1, 2)


def split_per_user(users: Codes, seed: int) -> npt.NDArray[np.int8]:
    """Divides each user's interactions 7:1:2 at random.

    A user with n interactions gives ⌊n/10⌋ to validation and ⌊2n/10⌋ to test, so that every
    user keeps one for training at least.

    Args:
        users: The user of each interaction, whole numbers of shape [E], in any order.
        seed: The seed; the same one gives the same split on every machine.

    Returns:
        The part of each interaction (`TRAIN`, `VALID` or `TEST`), int8 of shape [E].
    """
    chance = np.random.Generator(np.random.PCG64(seed)).random(users.size)
    order = np.lexsort((chance, users))
    rank, degree = _rank_in_run(users[order])
    num_valid, num_test = (degree * share // sum(RATIO) for share in RATIO[1:])
    part = np.full(users.size, TRAIN, dtype=np.int8)
    part[order[rank < num_valid + num_test]] = VALID
    part[order[rank < num_test]] = TEST
    return part


def leave_last_out(users: Codes, times: Numbers) -> npt.NDArray[np.int8]:
    """Gives each user's last interaction to test and the one before it to validation.

    A user of two interactions gives none to validation, a user of one keeps it for training. Of
    interactions at the same time the one that stands later is the later.

    Args:
        users: The user of each interaction, whole numbers of shape [E], in any order.
        times: Its time, shape [E].

    Returns:
        The part of each interaction (`TRAIN`, `VALID` or `TEST`), int8 of shape [E].
    """
    order = np.lexsort((times, users))
    rank, degree = _rank_in_run(users[order])
    from_last = degree - 1 - rank
    part = np.full(users.size, TRAIN, dtype=np.int8)
    part[order[(from_last == 0) & (degree > 1)]] = TEST
    part[order[(from_last == 1) & (degree > 2)]] = VALID
    return part


def _rank_in_run(
    values: Codes,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns each element's place in its run of equal values, and the length of the run."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    lengths = np.diff(starts, append=values.size)
    return np.arange(values.size) - np.repeat(starts, lengths), np.repeat(lengths, lengths)
