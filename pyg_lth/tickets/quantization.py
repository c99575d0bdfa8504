"""How the values of a table are stored: as floats, or as small integers with a scale for each row.

Scales are bfloat16, rounded up so that no value is cut off: of the range of float32, and precise
enough, since the integers are chosen for the scale as it is stored.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pyg_lth.errors import InputError
from pyg_lth.tickets.container import malformed

Values = Literal["float32", "float16", "bfloat16", "int8", "int4"]
VALUES: tuple[Values, ...] = get_args(Values)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

BITS: Mapping[Values, int] = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}

# numpy has no bfloat16, which are the upper sixteen bits of a float32; two int4 share a byte.
DTYPES: Mapping[Values, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("i1"),
    "int4": np.dtype("u1"),
}

# The largest integer of each kind that has a scale.
STEPS: Mapping[Values, int] = {"int8": 127, "int4": 7}

# Entries looked at in one go, so that checking takes little memory.
ENTRIES_AT_ONCE = 1 << 14


def stored_bytes(number: int, kind: Values) -> int:
    """Bytes of so many values, without their scales."""
    return -(-number * BITS[kind] // 8)


def encode(values: Floats, counts: npt.NDArray[np.int64], kind: Values) -> tuple[Array, Array]:
    """Turn values into what is stored.

    Args:
        values: The values, row after row, shape ``[n]``, finite.
        counts: How many of them each row has, shape ``[rows]``.
        kind: How to store them.

    Returns:
        The codes, and the scale of each row that has a value, which is empty where ``kind`` needs
        none.

    Raises:
        InputError: If a value is too large for ``kind``.
    """
    none = np.zeros(0, DTYPES["bfloat16"])
    if kind == "float32":
        return values, none
    if kind == "float16":
        with np.errstate(over="ignore"):
            half = values.astype(DTYPES[kind])
        if not np.isfinite(half).all():
            raise InputError("a value is too large for float16: take bfloat16 or float32")
        return half, none
    if kind == "bfloat16":
        wide = values.view(np.uint32).astype(np.uint64)
        upper = ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(DTYPES[kind])
        if not np.isfinite(from_bfloat16(upper)).all():
            raise InputError("a value is too large for bfloat16: take float32")
        return upper, none
    counts = counts[counts > 0]
    starts = np.cumsum(counts) - counts
    largest = np.maximum.reduceat(np.abs(values), starts) if starts.size else np.abs(values)
    bits = (largest / np.float32(STEPS[kind])).astype(np.float32).view(np.uint32)
    # A row's largest value may be so small that its share of the steps is none at all.
    scales = np.maximum((bits + 0xFFFF) >> 16, largest > 0).astype(DTYPES["bfloat16"])
    with np.errstate(over="ignore"):
        if not np.isfinite(from_bfloat16(scales) * STEPS[kind]).all():
            raise InputError(f"a value is too large for {kind}: take float32")
    divisor = np.repeat(np.where(largest > 0, from_bfloat16(scales), np.float32(1)), counts)
    rounded = np.rint(values / divisor).clip(-STEPS[kind], STEPS[kind]).astype(np.int8)
    return (rounded if kind == "int8" else _pack(rounded)), scales


def decode(codes: Array, kind: Values) -> Floats:
    """Turn codes of any shape into float32, not yet scaled; of ``int4`` see :func:`unpack`."""
    if kind == "bfloat16":
        return from_bfloat16(codes)
    return codes.astype(np.float32, copy=False)


def from_bfloat16(bits: Array) -> Floats:
    """The float32 that bfloat16 stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _pack(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    nibbles = np.zeros(codes.size + codes.size % 2, np.uint8)
    nibbles[: codes.size] = codes.view(np.uint8) & 15
    packed: npt.NDArray[np.uint8] = nibbles[0::2] | (nibbles[1::2] << np.uint8(4))
    return packed


def unpack(packed: Array, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """The int4 at some places, in two's complement: the first of a byte in its lower half."""
    nibble = (packed[at >> 1] >> ((at & 1) << 2).astype(np.uint8)) & 15
    signed: npt.NDArray[np.int8] = (nibble ^ 8).astype(np.int8) - 8
    return signed


def check(codes: Array, scales: Array, number: int, kind: Values) -> None:
    """Refuse codes that are not of so many values, or that stand for no finite number."""
    if codes.dtype != DTYPES[kind] or codes.nbytes != stored_bytes(number, kind):
        malformed(f"it has not the {number:,} values of {kind} that it should")
    if kind == "int4" and number % 2 and codes[-1] >> 4:
        malformed("its last byte of values holds a value too many")
    part = scales if kind in STEPS else codes
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, part.size, ENTRIES_AT_ONCE):
            block = part[begin : begin + ENTRIES_AT_ONCE]
            floats = (
                decode(block, "bfloat16") * STEPS[kind] if part is scales else decode(block, kind)
            )
            if not np.isfinite(floats).all():
                malformed("a value in it is not finite")
            if part is scales and (floats < 0).any():
                malformed("a scale in it is negative")
