"""LightGCN text: a line is a user id followed by the ids of the user's items."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import DatasetError, shown
from .files import read_text

# Ids are indices, and the product of a user's and an item's must fit in 64 bits.
LARGEST_ID = 2**31 - 1


class Adjacency(NamedTuple):
    """What a file of LightGCN text says.

    Args:
        pairs: The distinct (user, item) pairs, int64 of shape [2, E], sorted by user, then item.
        repeats: What is said more than once there, in words; nothing of it is in `pairs` twice.
        notes: What was guessed at.
    """

    pairs: npt.NDArray[np.int64]
    repeats: tuple[str, ...]
    notes: tuple[str, ...]


def read_adjacency(path: Path) -> Adjacency:
    """Reads one file of LightGCN text.

    Ids are whole numbers from 0 to 2^31 - 1, divided by spaces or tabs. Users may come in any
    order and may be missing; a line with a user alone is a user without items; blank lines are
    skipped. Where users come again and every line has two ids, or two and the same third, the file
    is a list of pairs, with a weight that says nothing, and read as such.

    Args:
        path: The text file, or what packs it with the suffix `.gz` or `.zst`.

    Raises:
        DatasetError: If the file is missing, empty or not UTF-8, or has a token that is no id, or
            no pair at all; with the line.
    """
    content = read_text(path)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    characters = np.frombuffer(content, dtype=np.uint8)
    is_space = np.isin(characters, np.frombuffer(b" \t\n", dtype=np.uint8))
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
    again = _repeated(users)
    notes: tuple[str, ...] = ()
    weights = _weights_of_pairs(path, values, is_user) if again.size else None
    if weights is not None:
        is_item = ~is_user & ~weights
        again = again[:0]
        notes = (f"{path}: taken for a list of pairs, one a line",)
    else:
        is_item = ~is_user
    items = values[is_item]
    if not items.size:
        raise DatasetError(f"{path}: no user has an item; a line is a user id, then item ids")
    owners = users[np.cumsum(is_user)[is_item] - 1]
    keys = owners * (LARGEST_ID + 1) + items
    twice = _repeated(keys)
    repeats = []
    if notes and twice.size:
        notes = (*notes, f"{path}: {twice.size:,} repeated interactions merged")
        twice = twice[:0]
    if again.size:
        first = again[0]
        repeats.append(
            f"line {lines[is_user][first]}: user {users[first]} has a line already"
            f"{_more(again.size, 'line')}"
        )
    if twice.size:
        first = twice[0]
        repeats.append(
            f"line {lines[is_item][first]}: item {items[first]} appears twice for user "
            f"{owners[first]}{_more(twice.size, 'pair')}"
        )
    distinct = np.unique(keys)
    return Adjacency(np.stack(np.divmod(distinct, LARGEST_ID + 1)), tuple(repeats), notes)


def _repeated(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the places whose value stood before, ascending."""
    order = np.argsort(values, kind="stable")
    return np.sort(order[1:][np.diff(values[order]) == 0])


def _more(number: int, what: str) -> str:
    if number == 1:
        return ""
    return f" (and {number - 1:,} more such {what}{'s' if number > 2 else ''})"


def _weights_of_pairs(
    path: Path, values: npt.NDArray[np.int64], is_user: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_] | None:
    """Returns which values are weights, if each line is a pair with or without one."""
    first = np.flatnonzero(is_user)
    lengths = np.diff(first, append=values.size)
    weights = np.zeros(values.size, dtype=np.bool_)
    if (lengths == 2).all():
        return weights
    if (lengths != 3).any():
        return None
    if (values[first + 2] != values[2]).any():
        raise DatasetError(
            f"{path}: every line holds three numbers and users come again, so these seem to be "
            "pairs with ratings; set `separator=space` and `no_header`, or join each user's lines"
        )
    weights[first + 2] = True
    return weights


def _refuse_token(path: Path, content: bytes, position: int) -> None:
    """Raises the error for the token that holds the byte at `position`."""
    line = content.count(b"\n", 0, position) + 1
    start = max(content.rfind(space, 0, position) for space in (b" ", b"\t", b"\n")) + 1
    ends = (content.find(space, position) for space in (b" ", b"\t", b"\n"))
    end = min((end for end in ends if end >= 0), default=len(content))
    token = content[start:end].decode("utf-8")
    if token.removeprefix("-").isdecimal() and token.isascii():
        reason = "is negative" if token.startswith("-") else f"is larger than {LARGEST_ID}"
    else:
        reason = "is not an integer"
    raise DatasetError(
        f"{path}, line {line}: id {shown(token)} {reason}; "
        "a line is a user id, then item ids, all whole numbers from 0 (for a table in a .txt file "
        "set `separator`)"
    )
