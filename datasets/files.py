"""Reading and writing single files: safely, and with errors that name the place."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa

from .errors import DatasetError

# Packed files may hold a thousand times their size; more than this share of the memory that is free
# would leave none for what is made of them.
LARGEST_SHARE = 0.25
PACKED = {".gz": "gzip", ".zst": "zstd"}


def unpacked_name(path: Path) -> Path:
    """Returns the path without the suffix that says how the file is packed."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def read_text(path: Path) -> bytes:
    """Reads a UTF-8 text file whole, unpacking it when its name ends in `.gz` or `.zst`.

    Args:
        path: The file.

    Returns:
        The bytes without a byte order mark, known to be valid UTF-8 and not blank.

    Raises:
        DatasetError: If the file is missing, unreadable, damaged, empty, not UTF-8 or larger than
            what memory there is.
    """
    packing = PACKED.get(path.suffix.lower())
    largest = int(psutil.virtual_memory().available * LARGEST_SHARE)
    try:
        if packing is None:
            content = path.read_bytes() if path.stat().st_size <= largest else None
        else:
            blocks: list[bytes] = []
            with path.open("rb") as file, pa.input_stream(file, compression=packing) as stream:
                while sum(map(len, blocks)) <= largest and (block := stream.read(1 << 24)):
                    blocks.append(block)
            content = b"".join(blocks) if sum(map(len, blocks)) <= largest else None
    except OSError as error:
        if packing is not None and error.errno is None:
            raise DatasetError(
                f"{path}: damaged {packing} file ({error}); fetch it again"
            ) from error
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    if content is None:
        raise DatasetError(
            f"{path}: more than {largest / 2**30:,.1f} GiB of text, a quarter of the free memory; "
            "give it in parts as Parquet, or use a larger machine"
        )
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise DatasetError(f"{path}: the file is empty; a data set needs interactions")
    if not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{path}, line {line_of(content, error.start)}: byte "
                f"0x{content[error.start]:02x} is not UTF-8; convert the file to UTF-8"
            ) from error
    return content


def line_of(content: bytes, position: int) -> int:
    """Returns the line of a byte, from 1, where lines end in LF, CR or both."""
    ends = content.count(b"\n", 0, position) + content.count(b"\r", 0, position)
    return 1 + ends - content.count(b"\r\n", 0, position)


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
