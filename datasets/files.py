"""Reading and writing single files: safely, and with errors that name the place."""

import gzip
import hashlib
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DatasetError


def read_text(path: Path) -> bytes:
    """Reads a UTF-8 text file whole, unpacking it when its name ends in `.gz`.

    Args:
        path: The file.

    Returns:
        The bytes without a byte order mark, known to be valid UTF-8 and not blank.

    Raises:
        DatasetError: If the file is missing, unreadable, damaged, empty or not UTF-8.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise DatasetError(f"{path}: the file is empty; a data set needs interactions")
    if not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise DatasetError(
                f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; "
                "convert the file to UTF-8"
            ) from error
    return content


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to, and renames it to `path` at the end.

    Readers and writers at the same time see either the old file or the new one, never a part.

    Args:
        path: The file to create or to replace.

    Yields:
        The temporary path. It is removed if the block raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def has_checksum(path: Path, checksum: str) -> bool:
    """Tells whether a file is the one that a checksum belongs to.

    Args:
        path: The file.
        checksum: A SHA-256 (64 hexadecimal digits) or the id of a git blob (40): the SHA-1 of
            `blob SIZE`, a zero byte and the content.
    """
    if len(checksum) == 64:
        return sha256(path) == checksum
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == checksum


def fingerprint(path: Path) -> list[str | int]:
    """Returns what tells one state of a file from another: its path, size and change time."""
    try:
        state = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
