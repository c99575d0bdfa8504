"""The kernels in C, where they were compiled; whatever they do can also be done without them.

They are compiled when the package is installed and a C compiler is at hand, and use the threads of
torch (they share its OpenMP, which is why torch comes first).
"""

import ctypes
import functools
import importlib.util
import os

import torch
from torch import Tensor

from pyg_lth.errors import InputError
from pyg_lth.kernels.signatures import SIGNATURES, Memory

_NUMBERS: dict[object, type] = {int: ctypes.c_int64, float: ctypes.c_float}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, :obj:`None` where there are none.

    Raises:
        InputError: If they were compiled from an older state of the package.
    """
    found = importlib.util.find_spec("pyg_lth.kernels.compiled")
    if found is None or found.origin is None:
        return None
    try:
        compiled = ctypes.CDLL(found.origin)
    except OSError:
        return None
    for name, signature in SIGNATURES.items():
        function = getattr(compiled, name, None)
        if function is None:
            raise InputError(
                f"the compiled kernels lack {name!r}, they are older than the package: install it "
                "again, in a checkout with: pip install --editable ."
            )
        function.argtypes = [_NUMBERS.get(kind, ctypes.c_void_p) for kind in signature.values()]
        function.restype = None
    return compiled


# What a run without them should be told.
MISSING = (
    "the kernels are not compiled here: training takes more than twice as long and an evaluation "
    "more than ten times; install a C compiler and then pyg-lth again, or a wheel with the kernels"
)


def usable(device: torch.device) -> bool:
    """Whether the kernels can work on ``device``."""
    return device.type == "cpu" and library() is not None


@functools.cache
def triton_usable(device: torch.device) -> bool:
    """Whether the kernels in Triton can work on ``device``, which is tried once.

    They are for CUDA; with ``TRITON_INTERPRET=1`` Triton's interpreter runs them on a CPU, slowly.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not (interpreted and device.type == "cpu"):
        return False
    try:
        from pyg_lth.kernels import on_cuda

        one = torch.ones(1, 1, device=device)
        begin = torch.arange(2, device=device)
        return bool(on_cuda.add_up(one, begin[:1], begin) == 1)
    except Exception:  # no Triton, no compiler for it, a device that it does not know
        return False


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Call a kernel, giving it the memory of the tensors.

    A kernel gets nothing but numbers in range, and tensors of the right type whose shapes are what
    the sizes beside them say. That the entries of an index are in range is up to the caller.

    Args:
        name: Of the kernel.
        arguments: What it takes, in the order of its signature.

    Raises:
        TypeError: If a tensor is missing or not of the type that the kernel reads, contiguous and
            on the CPU, or a number is none.
        ValueError: If a tensor has another shape than the sizes say, or a number is out of range.
    """
    signature = SIGNATURES[name]
    if len(arguments) != len(signature):
        raise TypeError(f"the native {name} takes {len(signature)} arguments: {list(signature)}")
    pairs = list(zip(signature.items(), arguments, strict=True))
    sizes = {
        key: _number(f"the native {name} takes as {key}", kind, value)
        for (key, kind), value in pairs
        if not isinstance(kind, Memory)
    }
    for (key, kind), value in pairs:
        if isinstance(kind, Memory):
            _check_memory(f"the native {name} takes as {key}", kind, value, sizes)
    getattr(library(), name)(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


def _number(takes: str, kind: type, value: object) -> int:
    """Return a number if it is one of its kind; a float is no size of anything."""
    if type(value) is float and kind is float:
        return 0
    # No boolean and no NumPy scalar, which ctypes would not take either.
    if type(value) is not int:
        raise TypeError(f"{takes} a number, not {_described(value)}")
    if kind is int and not 0 <= value < 2**63:
        raise ValueError(f"{takes} a number from 0 to 2^63 - 1, not {value}")
    return value


def _check_memory(takes: str, kind: Memory, value: object, sizes: dict[str, int]) -> None:
    if not isinstance(value, Tensor):
        if value is not None or kind.missing is None:
            raise TypeError(f"{takes} a tensor of {kind.dtype}, not {_described(value)}")
    elif not (value.dtype == kind.dtype and value.is_cpu and value.is_contiguous()):
        raise TypeError(
            f"{takes} contiguous {kind.dtype} on the CPU, not {value.dtype} with strides "
            f"{value.stride()} on {value.device}: convert it first"
        )
    shape = None if value is None else value.shape
    if not kind.fits(shape, sizes):
        raise ValueError(
            f"{takes} a shape of ({', '.join(kind.shape)}), not {_described(value)}, with {sizes}"
        )


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)[:40]
