import contextlib

import pytest
import torch

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

    @contextlib.contextmanager
    def capture(graph):
        yield
        if Graph.failure:
            raise RuntimeError(Graph.failure)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return Graph


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
