import contextlib
import gc
import weakref

import pytest
import torch

from pyg_lth.training import cuda_graphs
from pyg_lth.training.cuda_graphs import WARM_UP_STEPS, record


class Counter:
    """A step on a state that shows how often, and with what, it was taken."""

    def __init__(self):
        self.weight = torch.tensor([5.0])
        self.state = {}
        self.batches = []

    def step(self, batch):
        self.batches.append(batch)
        self.weight += batch[0].sum()
        self.state.setdefault("optimizer.step", torch.zeros(())).add_(1)
        return self.weight.sum()

    def tensors(self):
        return {"weight": self.weight, **self.state}


@pytest.fixture
def graphs(monkeypatch):
    """Stand-ins for CUDA's graphs, which record nothing but can be made to fail."""

    class Graph:
        replays = 0
        failure = None

        def replay(self):
            Graph.replays += 1

    class Stream:
        def wait_stream(self, other):
            pass

        made = 0

        def __init__(self):
            Stream.made += 1

    Graph.current = Stream()

    @contextlib.contextmanager
    def capture(graph):
        yield
        if Graph.failure:
            # As CUDA does: the capture's own stream stays current, and the end fails in its turn.
            Graph.current = None
            try:
                raise RuntimeError(Graph.failure)
            except RuntimeError:
                raise RuntimeError("capture ended badly")  # noqa: B904

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Graph.current)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(Graph, "current", stream))
    monkeypatch.setattr(cuda_graphs, "_recordable", True)
    cuda_graphs._stream_aside.cache_clear()
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", capture)
    yield Graph
    cuda_graphs._stream_aside.cache_clear()


BATCH = torch.ones(3, 4, dtype=torch.long)


@pytest.mark.parametrize("steps_before", [0, 2])
def test_recording_leaves_the_state_as_it_was(graphs, steps_before):
    counter = Counter()
    for _ in range(steps_before):
        counter.step(BATCH)
    record(counter.step, counter.tensors, BATCH)
    assert counter.weight.item() == 5 + 4 * steps_before
    assert counter.state["optimizer.step"].item() == steps_before
    assert len(counter.batches) == steps_before + WARM_UP_STEPS + 1


def test_a_replay_reads_the_batch_that_it_is_given(graphs):
    counter = Counter()
    step = record(counter.step, counter.tensors, BATCH)
    recorded = counter.batches[-1].clone()
    loss = step(BATCH * torch.tensor([[1], [2], [3]]))
    assert graphs.replays == 1
    assert counter.batches[-1][:, 0].tolist() == [1, 2, 3]
    assert recorded[:, 0].tolist() == [1, 1, 1]
    assert loss.shape == ()


def test_a_step_that_cannot_be_recorded_is_taken_as_it_is(graphs, monkeypatch):
    monkeypatch.setattr(graphs, "failure", "operation not permitted\nmore of it")
    counter = Counter()
    with pytest.warns(UserWarning, match="without a CUDA graph: operation not permitted$"):
        step = record(counter.step, counter.tensors, BATCH)
    assert step == counter.step
    assert counter.weight.item() == 5


def test_a_failed_capture_leaves_no_stream_behind_and_is_not_tried_again(graphs, monkeypatch):
    monkeypatch.setattr(graphs, "failure", "operation not permitted")
    counter, before = Counter(), graphs.current
    with pytest.warns(UserWarning, match="operation not permitted$"):
        record(counter.step, counter.tensors, BATCH)
    assert graphs.current is before
    taken = len(counter.batches)
    assert record(counter.step, counter.tensors, BATCH) == counter.step
    assert len(counter.batches) == taken


def test_a_recorded_step_keeps_what_it_works_on(graphs):
    counter = Counter()
    alive, step = weakref.ref(counter), record(counter.step, counter.tensors, BATCH)
    del counter
    gc.collect()
    assert alive() is not None
    del step
    gc.collect()
    assert alive() is None


def test_all_recordings_warm_up_on_one_stream(graphs):
    streams = {id(cuda_graphs._stream_aside()) for _ in range(3)}
    assert len(streams) == 1
