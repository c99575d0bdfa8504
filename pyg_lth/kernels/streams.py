"""A stream beside the one that a GPU works through."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch


class Beside:
    """A stream for what the device can do beside what it is asked for next.

    Args:
        device: Where; on one that is not CUDA's everything is done in its turn.
    """

    def __init__(self, device: torch.device):
        self._stream = None
        if device.type == "cuda":
            # Before the others, since what it does is little and waited for.
            self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Callable[[], None]]:
        """Ask for what is asked for within.

        Yields:
            What makes that which comes after it wait until it is done.
        """
        if self._stream is None:
            yield lambda: None
            return
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield functools.partial(current.wait_stream, self._stream)
