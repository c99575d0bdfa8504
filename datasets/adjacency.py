"""LightGCN text: a line is a user id followed by the ids of the user's items."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import DatasetError
from .files import read_text

# Ids are indices, and the product of a user's and an item's must fit in 64 bits.
LARGEST_ID = 2**31 - 1


def read_adjacency(path: Path) -> npt.NDArray[np.int64]:
    """Reads one file of LightGCN text.

    Ids are whole numbers from 0 to 2^31 - 1, divided by spaces or tabs. Users may come in any
    order and may be missing; a line with a user alone is a user without items; blank lines are
    skipped.

    Args:
        path: The text file, or its gzip with the suffix `.gz`.

    Returns:
        The (user, item) pairs, int64 of shape [2, E], sorted by user and then item.

    Raises:
        DatasetError: If the file is missing, empty or not UTF-8, or has a token that is no id, a
            repeated item of a user, a second line of a user, or no pair at all; with the line.
    """
    content = read_text(path)
    characters = np.frombuffer(content, dtype=np.uint8)
    is_space = np.isin(characters, np.frombuffer(b" \t\r\n", dtype=np.uint8))
    is_digit = (characters >= ord("0")) & (characters <= ord("9"))
    odd = np.flatnonzero(~(is_space | is_digit))
    if odd.size:
        _refuse_token(path, content, int(odd[0]))

    edges = np.flatnonzero(np.diff(is_space, prepend=True, append=True))
    starts, ends = edges[0::2], edges[1::2]
    long = np.flatnonzero(ends - starts > len(str(LARGEST_ID)))
    if long.size:
        _refuse_token(path, content, int(starts[long[0]]))
    values = np.fromstring(content.decode("ascii"), dtype=np.int64, sep=" ")
    large = np.flatnonzero(values > LARGEST_ID)
    if large.size:
        _refuse_token(path, content, int(starts[large[0]]))

    lines = np.searchsorted(np.flatnonzero(characters == ord("\n")), starts) + 1
    is_user = np.diff(lines, prepend=0) > 0
    users = values[is_user]
    order = np.argsort(users, kind="stable")
    repeated = order[1:][np.diff(users[order]) == 0]
    if repeated.size:
        first = int(repeated.min())
        raise DatasetError(
            f"{path}, line {lines[is_user][first]}: user {users[first]} has a line already; "
            "join the two lines"
        )

    items = values[~is_user]
    if not items.size:
        raise DatasetError(f"{path}: no user has an item; a line is a user id, then item ids")
    owners = users[np.cumsum(is_user)[~is_user] - 1]
    keys = owners * (LARGEST_ID + 1) + items
    order = np.argsort(keys, kind="stable")
    repeated = order[1:][np.diff(keys[order]) == 0]
    if repeated.size:
        first = int(repeated.min())
        raise DatasetError(
            f"{path}, line {lines[~is_user][first]}: item {items[first]} appears twice for user "
            f"{owners[first]}; remove one"
        )
    return np.stack([owners[order], items[order]])


def _refuse_token(path: Path, content: bytes, position: int) -> None:
    """Raises the error for the token that holds the byte at `position`."""
    line = content.count(b"\n", 0, position) + 1
    start = max(content.rfind(space, 0, position) for space in (b" ", b"\t", b"\r", b"\n")) + 1
    token = content[start:].split(maxsplit=1)[0].decode("utf-8")
    if token.removeprefix("-").isdecimal() and token.isascii():
        reason = "is negative" if token.startswith("-") else f"is larger than {LARGEST_ID}"
    else:
        reason = "is not an integer"
    raise DatasetError(
        f"{path}, line {line}: id {token[:40]!r} {reason}; "
        "a line is a user id, then item ids, all whole numbers from 0"
    )
