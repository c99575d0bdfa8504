"""The kernels in C, where they were compiled; whatever they do can also be done without them.

They are compiled when the package is installed and a C compiler is at hand, and use the threads of
torch (they share its OpenMP, which is why torch comes first).
"""

import ctypes
import functools
import importlib.util

import torch
from torch import Tensor

from pyg_lth.errors import InputError

# Of each argument the type of its entries, or int or float for a number.
_NUMBERS: dict[object, type] = {int: ctypes.c_int64, float: ctypes.c_float}
_MATRIX = (torch.int64, torch.int32, torch.float32)
_SIGNATURES: dict[str, tuple[torch.dtype | type[int] | type[float], ...]] = {
    "gather": (*_MATRIX, torch.int64, int, torch.float32, int, int, torch.float32),
    "scatter": (*_MATRIX, torch.int64, int, int, torch.float32, int, int, torch.float32),
    "draw_batch": (
        *(torch.float64, int, int, torch.int64, int),
        *(torch.int64, torch.int64, torch.int64, int, torch.int64),
    ),
    "distinct": (torch.int64, int, int, torch.int32, torch.int64, torch.int64, torch.int64),
    "add_up": (torch.int64, int, torch.float32, int, int, torch.float32),
    "adam_rows": (
        *(float, float, float, float, torch.float32, torch.float32, torch.int64, int, int),
        *(torch.float32, torch.float32, torch.float32, torch.int32, int, torch.float32),
    ),
    "rank_items": (
        *(torch.float32, torch.float32, int, torch.float32, torch.int64, torch.float32, int, int),
        *(torch.int64, torch.int64, int, torch.float32, torch.int64),
    ),
}


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
    for name, kinds in _SIGNATURES.items():
        function = getattr(compiled, name, None)
        if function is None:
            raise InputError(
                f"the compiled kernels lack {name!r}, they are older than the package: install it "
                "again, in a checkout with: pip install --editable ."
            )
        function.argtypes = [_NUMBERS.get(kind, ctypes.c_void_p) for kind in kinds]
        function.restype = None
    return compiled


def usable(device: torch.device) -> bool:
    """Whether the kernels can work on ``device``."""
    return device.type == "cpu" and library() is not None


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Call a kernel, giving it the memory of the tensors.

    Raises:
        TypeError: If a tensor is not of the type that the kernel reads, contiguous and on the CPU.
    """
    for argument, kind in zip(arguments, _SIGNATURES[name], strict=True):
        if isinstance(argument, Tensor) and not (
            argument.dtype == kind and argument.device.type == "cpu" and argument.is_contiguous()
        ):
            raise TypeError(
                f"the native {name} takes contiguous {kind} on the CPU, not {argument.dtype} with "
                f"strides {argument.stride()} on {argument.device}: convert it first"
            )
    getattr(library(), name)(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))
