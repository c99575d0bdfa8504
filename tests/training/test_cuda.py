import pytest
import torch

from pyg_lth import Mask, find_tickets
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE
from pyg_lth.training.cuda_graphs import record
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training

KINDS = [{}, {"negatives": 3, "batch_by": "edge"}, {"loss": "softmax"}]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def prepare(graph, config, device):
    return Problem.prepare(InteractionSplit.from_data(graph), config, torch.device(device))


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_metrics_on_cuda_equal_those_on_the_cpu(taste_graph, quick_config, model, kind):
    config = quick_config(model=model, **kind)
    on_cpu, on_cuda = (prepare(taste_graph, config, device) for device in ("cpu", "cuda"))
    initial = on_cpu.initialize()
    mask = Mask(torch.rand(initial[TABLE].shape) < 0.6)
    batches = list(on_cpu.sampler.epoch(torch.Generator().manual_seed(0)))[:5]
    cpu, cuda = (Training(problem, initial, mask, round=0) for problem in (on_cpu, on_cuda))
    for batch in batches:
        loss = cuda.step(batch.cuda())
        assert loss.item() == pytest.approx(cpu.step(batch).item(), abs=1e-5)
    embeddings = []
    for training in (cpu, cuda):
        with torch.no_grad():
            embeddings.append(training.model.get_embedding(training.problem.propagation))
    torch.testing.assert_close(embeddings[1].cpu(), embeddings[0], atol=1e-4, rtol=1e-4)
    metrics = [
        Evaluator(problem.split, "test", 5)(embeddings[0].to(problem.device))
        for problem in (on_cpu, on_cuda)
    ]
    assert metrics[1] == pytest.approx(metrics[0], abs=1e-6)


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_never_wait_for_the_device(taste_graph, quick_config, model, kind):
    problem = prepare(taste_graph, quick_config(model=model, **kind), "cuda")
    initial = problem.initialize()
    training = Training(problem, initial, Mask.ones(*initial[TABLE].shape), round=0)
    batches = problem.sampler.epoch(torch.Generator("cuda").manual_seed(0))
    training.step(next(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            training.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_step_equals_the_plain_one(taste_graph, quick_config, model, kind, recwarn):
    problem = prepare(taste_graph, quick_config(model=model, **kind), "cuda")
    initial = problem.initialize()
    mask = Mask(torch.rand(initial[TABLE].shape) < 0.6)
    plain, recorded = (Training(problem, initial, mask, round=0) for _ in range(2))
    batches = list(problem.sampler.epoch(torch.Generator("cuda").manual_seed(0)))
    step = record(recorded.step, recorded.tensors, batches[0])
    assert not recwarn.list
    for batch in batches:
        assert step(batch).item() == pytest.approx(plain.step(batch).item(), abs=1e-5)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(recorded.tensors()[name], value, atol=1e-4, rtol=1e-4)


def test_a_search_runs_and_resumes_on_cuda(small_graph, quick_config, tmp_path):
    config = quick_config(device="cuda")
    report = find_tickets(small_graph, config, run_dir=tmp_path / "run", checkpoint_seconds=0)
    again = find_tickets(small_graph, config, run_dir=tmp_path / "run", resume=True)
    assert len(report.rounds) == config.rounds
    assert again == report
