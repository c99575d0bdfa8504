"""The file: safetensors that name their format and its version and carry a checksum of all of it.

Whatever a file says of itself is checked against its size before memory is taken for it, and no
entry is copied: the arrays that :func:`read` returns lie in the mapped file, whose pages several
processes share.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from pyg_lth.errors import InputError
from pyg_lth.whole_files import replacing

FORMAT = "pyg-lth-ticket"
VERSION = "2"

# Of tickets with a bias, which a reader of version 2 could leave out of its scores.
VERSION_WITH_BIAS = "3"

# Version 1 had no ``score``: its tickets rank by inner product.
_READABLE = ("1", VERSION, VERSION_WITH_BIAS)

# A whole ticket, or an embedding table alone.
Kind = Literal["ticket", "table"]

Array = npt.NDArray[Any]

# Names that safetensors has for the types in use.
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# The header has no entry for each row, so it is never large.
_HEADER_AT_MOST = 1 << 20

_PREFIX = 8
_DIGITS = 64


class Malformed(InputError):
    """A file is no ticket, a damaged one, or one of another version."""


def malformed(reason: str) -> NoReturn:
    """Refuse a file; :func:`naming` adds which one."""
    raise Malformed(reason)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in whatever is wrong with it."""
    try:
        yield
    except Malformed as error:
        raise Malformed(f"{path} cannot be read as a ticket: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from None


def write(
    path: Path,
    kind: Kind,
    about: Mapping[str, Any],
    tensors: Mapping[str, Array],
    version: str = VERSION,
) -> None:
    """Write a file under a temporary name, then rename it.

    Args:
        path: The file; its folder must exist.
        kind: What it holds.
        about: What is known of it, for JSON.
        tensors: One-dimensional arrays.
        version: Of the format, the lowest whose readers answer rightly.

    Raises:
        InputError: If it cannot be written.
    """
    # The widest come first, so that each lies at a multiple of its width.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "version": version,
            "kind": kind,
            "about": json.dumps(about, allow_nan=False),
            "sha256": "0" * _DIGITS,
        }
    }
    end = 0
    for name in order:
        array = tensors[name]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _PREFIX)
    if len(text) > _HEADER_AT_MOST:
        raise InputError(
            f"what is to be noted of the ticket takes {len(text):,} bytes, more than the "
            f"{_HEADER_AT_MOST:,} of a header: leave something out"
        )
    parts = [len(text).to_bytes(_PREFIX, "little"), text]
    parts += [np.ascontiguousarray(tensors[name]).tobytes() for name in order]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    parts[1] = text.replace(_sealed("0" * _DIGITS), _sealed(digest.hexdigest()))
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def read(path: Path, kind: Kind) -> tuple[dict[str, Any], dict[str, Array]]:
    """Map a file that :func:`write` wrote.

    Args:
        path: The file.
        kind: What it has to hold.

    Returns:
        What is known of it, and its arrays, which cannot be written to.

    Raises:
        Malformed: If it is anything else, or a bit of it has changed.
    """
    content = _mapped(path)
    length = int.from_bytes(content[:_PREFIX].tobytes(), "little")
    if content.size < _PREFIX or length > min(content.size - _PREFIX, _HEADER_AT_MOST):
        malformed("it is no safetensors file, or only the beginning of one")
    text = content[_PREFIX : _PREFIX + length].tobytes()
    header = _parse(text)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        malformed(f"its header does not name the format {FORMAT}")
    if metadata.get("version") not in _READABLE:
        malformed(
            f"it is of version {str(metadata.get('version'))[:20]!r} of the format and this is a "
            f"reader of versions up to {_READABLE[-1]!r}: upgrade pyg-lth"
        )
    _verify(content, text, metadata.get("sha256"))
    if metadata.get("kind") != kind:
        malformed(f"it holds a {str(metadata.get('kind'))[:20]}, not a {kind}")
    about = _parse(str(metadata.get("about")).encode())
    return about, _views(content[_PREFIX + length :], header)


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            malformed("it is empty")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(pages, np.uint8)


def _parse(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a name stands twice")
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        malformed("its header is no JSON")
    if not isinstance(found, dict):
        malformed("its header is no JSON object")
    return found


def _sealed(digits: str) -> bytes:
    return f'"sha256":"{digits}"'.encode()


def _verify(content: npt.NDArray[np.uint8], text: bytes, digits: Any) -> None:
    """Compare the checksum, which is that of the file with zeros in the checksum's place."""
    seal = _sealed(str(digits))
    if len(str(digits)) != _DIGITS or text.count(seal) != 1:
        malformed("it carries no checksum")
    digest = hashlib.sha256(content[:_PREFIX].data)
    digest.update(text.replace(seal, _sealed("0" * _DIGITS)))
    digest.update(content[_PREFIX + len(text) :].data)
    if digest.hexdigest() != digits:
        malformed("its checksum does not match, so it is damaged: fetch or export it again")


def _views(data: npt.NDArray[np.uint8], header: dict[str, Any]) -> dict[str, Array]:
    """The arrays, which have to fill the file one after the other."""
    views: dict[str, Array] = {}
    place = 0
    for name, entry in header.items():
        match entry:
            case {"dtype": str(kind), "shape": [int(size)], "data_offsets": [int(begin), int(end)]}:
                dtype = _DTYPES.get(kind)
            case _:
                malformed(f"its header describes no one-dimensional array as {name[:40]!r}")
        if dtype is None or begin != place or size < 0 or end - begin != size * dtype.itemsize:
            malformed(f"its array {name[:40]!r} has a type, a size or a place that cannot be")
        if end > data.size:
            malformed(f"its array {name[:40]!r} ends beyond the file")
        views[name] = data[begin:end].view(dtype)
        place = end
    if place != data.size:
        malformed("there is more in it than its header describes")
    return views
