"""Files that appear under their name when they are whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyg_lth.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write under; at the end the file gets its own, if all is well.

    Raises:
        InputError: If it cannot be written.
    """
    # With the ending, by which some writers choose what they write.
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
