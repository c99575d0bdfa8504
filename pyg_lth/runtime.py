"""How a process that trains should wait for its threads and keep its memory."""

import contextlib
import ctypes
import os

# glibc's names for "give free memory back from this size on" and "so many blocks apart from the
# heap", from its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune() -> None:
    """Set up this process for training; call it before torch is imported, or half of it is late.

    Nothing that the user has set is changed, and no result:

    - OpenMP's idle threads spin on the cores they wait for: two runs side by side on two cores took
      46 s instead of 1.2 s on a small graph, and 3.4 s with fewer spins, which cost a run alone
      0.2 s there and nothing on Gowalla.
    - Tables that come and go in every step are kept by the process, on large pages, instead of
      being fetched from the system page by page: a step on a graph of 10^7 edges takes half of the
      time, on Gowalla at dimension 128 three quarters of it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Other C libraries have no mallopt.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
