"""A training step recorded once as a CUDA graph and replayed, so that the host only says go."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]

# Steps before the recording, so that libraries and allocators have settled; torch's own advice.
WARM_UP_STEPS = 3


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
    before = {name: value.clone() for name, value in tensors().items()}
    kept = batch.clone()
    graph = torch.cuda.CUDAGraph()
    try:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_STEPS):
                step(kept)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            loss = step(kept)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
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

    return replay
