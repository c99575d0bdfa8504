"""A training step recorded once as a CUDA graph and replayed, so that the host only says go."""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]

# Steps before the recording, so that libraries and allocators have settled; torch's own advice.
WARM_UP_STEPS = 3

# What cannot be recorded once is not tried again, round after round.
_recordable = True


def record(step: Step, tensors: Callable[[], dict[str, Tensor]], batch: Tensor) -> Step:
    """Record ``step``; the state it works on is as before when this returns.

    Args:
        step: Takes a batch and returns the loss, without ever waiting for the device.
        tensors: Returns every tensor that a step changes; what is not there before the first step
            starts at zero.
        batch: Any batch of the shape to come, on the CUDA device.

    Returns:
        The recorded step, whose loss is overwritten by the next one; or, with a warning, ``step``
        itself where it cannot be recorded.
    """
    global _recordable
    if not _recordable:
        return step
    before = {name: value.clone() for name, value in tensors().items()}
    kept = batch.clone()
    graph = torch.cuda.CUDAGraph()
    current = torch.cuda.current_stream()
    try:
        aside = _stream_aside()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_STEPS):
                step(kept)
        current.wait_stream(aside)
        with torch.cuda.graph(graph):
            loss = step(kept)
    except RuntimeError as error:
        # What ends a capture that failed fails too, and leaves the capture's stream behind.
        torch.cuda.set_stream(current)
        _recordable = False
        cause = error.__context__ or error
        reason = str(cause).partition("\n")[0]
        warnings.warn(f"the step runs without a CUDA graph: {reason}", stacklevel=2)
        return step
    finally:
        with torch.no_grad():
            for name, value in tensors().items():
                if name in before:
                    value.copy_(before[name])
                else:
                    value.zero_()

    def replay(given: Tensor) -> Tensor:
        kept.copy_(given)
        graph.replay()
        return loss

    # The graph works on the memory of what it recorded, which must live as long as it does.
    replay.recorded = step  # type: ignore[attr-defined]
    return replay


def is_recorded(step: Step) -> bool:
    """Whether a step is one that :func:`record` recorded."""
    return hasattr(step, "recorded")


@functools.cache
def _stream_aside() -> torch.cuda.Stream:
    """One stream for all recordings: each stream that a library has worked on keeps memory."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
