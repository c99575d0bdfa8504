"""Files that are whole under their name or absent, and errors that name them."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyg_lth.errors import InputError

# What a write that was killed leaves behind.
TEMPORARY = ".*.tmp*"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write under; at the end the file gets its own, if all is well.

    Raises:
        InputError: If it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file to write")
    # With the ending, by which some writers choose what they write.
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        with writing(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file, its folder and the remedy where it cannot be written.

    Raises:
        InputError: Instead of an :class:`OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path} cannot be written: {reason}; make room or give access in {path.parent}"
        ) from error


def write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it; make its folder if need be.

    Raises:
        InputError: If it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def read(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """One JSON object.

    Args:
        content: The text.
        path: Where it was read from.

    Raises:
        InputError: If it is anything else.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it holds no JSON object")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        InputError: If it cannot be read, or holds anything else.
    """
    return parse_json(read(path), path)
