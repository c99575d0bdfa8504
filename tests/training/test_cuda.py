import gc
import os
import weakref

import pytest
import torch

from pyg_lth import Mask, find_tickets
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.gradients import loss_gradient
from pyg_lth.lottery.methods import METHODS
from pyg_lth.lottery.pep import ThresholdSearch
from pyg_lth.nn.backbones import BACKBONES, TABLE
from pyg_lth.training import losses
from pyg_lth.training.cuda_graphs import is_recorded, record
from pyg_lth.training.losses import LOSSES
from pyg_lth.training.problem import Problem
from pyg_lth.training.trainer import Training
from tests.pretended_cuda import Mixed, Wait, interpret_kernels

KINDS = [{}, {"negatives": 3, "batch_by": "edge"}, {"loss": "softmax"}, {"loss": "ccl"}]


def prepare(graph, config, device="cuda"):
    return Problem.prepare(InteractionSplit.from_data(graph), config, torch.device(device))


def begin(problem):
    initial = problem.initialize()
    return Training(problem, initial, Mask(torch.rand(initial[TABLE].shape) < 0.6), round=0)


def draw(problem):
    return list(problem.sampler.epoch(torch.Generator(problem.device).manual_seed(0)))


@pytest.mark.parametrize("model", ["lightgcn", "mf"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_metrics_on_cuda_equal_those_on_the_cpu(
    cuda, taste_graph, quick_config, model, kind
):
    config = quick_config(model=model, **kind)
    on_cpu, on_cuda = (prepare(taste_graph, config, device) for device in ("cpu", "cuda"))
    initial = on_cpu.initialize()
    # Where an entry is next to nothing beside its row, a cosine's gradient is little but rounding.
    initial[TABLE] += 0.1 * initial[TABLE].sign()
    mask = Mask(torch.rand(initial[TABLE].shape) < 0.6)
    cpu, cuda = (Training(problem, initial, mask, round=0) for problem in (on_cpu, on_cuda))
    for batch in draw(on_cpu)[:5]:
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


@pytest.mark.parametrize("model", list(BACKBONES))
@pytest.mark.parametrize("loss", list(LOSSES))
def test_steps_never_wait_for_the_device(cuda, taste_graph, quick_config, model, loss):
    problem = prepare(taste_graph, quick_config(model=model, loss=loss))
    training, (first, *batches) = begin(problem), draw(problem)
    training.step(first)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[:3]:
            training.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", list(BACKBONES))
@pytest.mark.parametrize("loss", list(LOSSES))
def test_the_recorded_step_equals_the_plain_one(
    cuda, taste_graph, quick_config, model, loss, recwarn
):
    problem = prepare(taste_graph, quick_config(model=model, loss=loss))
    initial = problem.initialize()
    mask = Mask(torch.rand(initial[TABLE].shape) < 0.6)
    plain, recorded = (Training(problem, initial, mask, round=0) for _ in range(2))
    step = recorded.quickest_step()
    assert not recwarn.list
    for number, batch in enumerate(draw(problem)[:5]):
        for training in (plain, recorded):
            training._update.set_rate(0.05 / (1 + number))
        assert step(batch).item() == pytest.approx(plain.step(batch).item(), abs=1e-5)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(recorded.tensors()[name], value, atol=1e-4, rtol=1e-4)


def test_a_recorded_step_follows_a_mask_that_moves(cuda, taste_graph, quick_config):
    problem = prepare(taste_graph, quick_config())
    initial, (first, *batches) = problem.initialize(), draw(problem)
    mask, moved = (Mask(torch.rand(initial[TABLE].shape) < 0.6) for _ in range(2))
    plain, recorded = (Training(problem, initial, mask, round=0) for _ in range(2))
    step = recorded.quickest_step()
    step(first), plain.step(first)
    for training in (plain, recorded):
        training._change_mask(moved)
    for batch in batches[:3]:
        step(batch), plain.step(batch)
    found, expected = (training.weights()[TABLE].cpu() for training in (recorded, plain))
    assert torch.equal(found != 0, moved.table)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shares", ["table", "feature", "entry"])
def test_thresholds_are_learned_in_a_recorded_step(
    cuda, taste_graph, quick_config, shares, recwarn
):
    problem = prepare(taste_graph, quick_config(threshold=shares))
    plain, recorded = (ThresholdSearch(problem, problem.initialize()) for _ in range(2))
    step = recorded.quickest_step()
    assert not recwarn.list
    for batch in draw(problem)[:5]:
        assert step(batch).item() == pytest.approx(plain.step(batch).item(), abs=1e-5)
    torch.testing.assert_close(recorded.margin(), plain.margin(), atol=1e-4, rtol=1e-4)


def test_the_gradient_of_all_interactions_waits_once_for_all_batches(
    watched, taste_graph, quick_config
):
    waits = []
    for batch_size in (800, 100):
        problem = prepare(taste_graph, quick_config(batch_size=batch_size))
        weights = {TABLE: problem.initialize()[TABLE].to(problem.device)}
        source, before = torch.Generator(problem.device).manual_seed(0), watched.waits
        assert loss_gradient(problem, weights, source).is_cuda
        waits.append(watched.waits - before)
    assert waits[0] == waits[1]


@pytest.mark.parametrize("method", list(METHODS))
def test_a_search_runs_and_resumes_on_cuda(cuda, small_graph, quick_config, tmp_path, method):
    quick = {"rounds": 1, "max_epochs": 2, "eval_every": 1, "batch_size": 256}
    config = quick_config(device="cuda", method=method, scope="row", **quick)
    folder = tmp_path / "run"
    report = find_tickets(small_graph, config, run_dir=folder, checkpoint_seconds=0)
    again = find_tickets(small_graph, config, run_dir=folder, resume=True)
    assert len(report.rounds) == config.rounds
    assert again == report


# Kernels of a step at most, of lightgcn with two layers and of mf: one that is added shows.
KERNELS = {
    "bpr": (70, 54),
    "softmax": (83, 67),
    "corrected-softmax": (87, 71),
    "sampled-softmax": (109, 93),
    "ccl": (110, 94),
}

# Of lightgcn with two layers and BPR by Triton, by edges from which a row is split.
BY_TRITON = {512: 25, 2: 32}


@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_step_starts_no_more_kernels_than_it_did(watched, taste_graph, quick_config, loss):
    for model, bound in zip(("lightgcn", "mf"), KERNELS[loss], strict=True):
        problem = prepare(taste_graph, quick_config(model=model, loss=loss))
        training, batches = begin(problem), draw(problem)
        training.step(batches[0])
        with watched.counting() as kernels:
            training.step(batches[1])
        assert len(kernels) <= bound, kernels


@pytest.mark.parametrize(("edges", "bound"), BY_TRITON.items())
def test_a_step_by_kernels_in_triton_is_the_plain_one_without_a_wait(
    watched, make_graph, quick_config, monkeypatch, edges, bound
):
    on_cuda = pytest.importorskip("pyg_lth.kernels.on_cuda", exc_type=ImportError)
    if "TRITON_INTERPRET" not in os.environ:
        pytest.skip("Triton does not interpret its kernels where there is a CUDA device")
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_PROGRAM", edges)
    monkeypatch.setattr(on_cuda, "EDGES_OF_A_LISTED", edges)
    interpret_kernels(monkeypatch)
    graph = make_graph(3, 4, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 3), (2, 0)], [(2, 1)])
    problems = [
        prepare(graph, quick_config(batch_size=3, negatives=2, select_on="test", propagation=name))
        for name in ("csr", "triton")
    ]
    initial, batches = problems[0].initialize(), draw(problems[0])
    mask = Mask(torch.rand(initial[TABLE].shape) < 0.6)
    plain, recorded = (Training(problem, initial, mask, round=0) for problem in problems)
    step = recorded.quickest_step()
    assert is_recorded(step) and step.recorded == recorded._bpr_step
    for number, batch in enumerate(batches):
        for training in (plain, recorded):
            training._update.set_rate(0.05 / (1 + number))
        assert step(batch).item() == pytest.approx(plain.step(batch).item(), abs=1e-5)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(recorded.tensors()[name], value, atol=1e-5, rtol=1e-5)
    with watched.without_waiting(), watched.counting() as kernels:
        recorded._bpr_step(batches[0])
    assert len(kernels) <= bound, kernels


@pytest.mark.parametrize(
    "slip",
    [
        lambda loss: loss * loss.item(),
        lambda loss: loss + float(loss.detach()),
        lambda loss: loss if loss > 0 else -loss,
        lambda loss: loss + loss.view(1).nonzero().sum(),
        lambda loss: loss + loss.detach().unique().sum(),
        lambda loss: loss.view(1)[loss.view(1) > 0].sum(),
        lambda loss: loss.cpu().cuda(),
        lambda loss: loss.to("cpu").to("cuda"),
        lambda loss: loss + torch.tensor(3.0, device=loss.device),
        lambda loss: loss + loss.new_tensor([3.0]).sum(),
        lambda loss: loss + sum(loss.view(1).tolist()),
        lambda loss: loss.view(1).repeat_interleave(torch.ones_like(loss).long().view(1)).sum(),
        lambda loss: loss + torch.tensor(3.0),
        lambda loss: torch.empty_like(loss).fill_(torch.tensor(3.0)) + loss,
        lambda loss: loss.view(1)[torch.tensor([0])].sum(),
        lambda loss: loss.view(1).index_put((torch.zeros_like(loss).long(),), torch.tensor(3.0)),
        lambda loss: torch.where(torch.tensor(True), loss, loss),
    ],
)
def test_a_step_that_waits_is_found(watched, taste_graph, quick_config, monkeypatch, slip):
    training, batch, plain = slipping(taste_graph, quick_config, monkeypatch, slip)
    with watched.without_waiting(), pytest.raises(Wait):
        training.step(batch)
    with pytest.warns(UserWarning, match="without a CUDA graph: .* wait"):
        assert training.quickest_step() == training.step
    monkeypatch.setattr(losses, "l2", plain)
    with watched.without_waiting():
        training.step(batch)


def test_a_step_with_a_tensor_of_the_host_is_found(watched, taste_graph, quick_config, monkeypatch):
    slip = lambda loss: loss + torch.ones(1).sum(0, keepdim=True)  # noqa: E731
    training, batch, _ = slipping(taste_graph, quick_config, monkeypatch, slip)
    with pytest.raises(Mixed):
        training.step(batch)


def slipping(graph, quick_config, monkeypatch, slip):
    """A training whose loss is computed with a slip, a batch, and how it is without."""
    problem = prepare(graph, quick_config())
    plain = losses.l2
    monkeypatch.setattr(losses, "l2", lambda ego: slip(plain(ego)))
    return begin(problem), draw(problem)[0], plain


def test_a_number_of_the_host_stays_what_it_was_in_a_recording(watched, taste_graph, quick_config):
    problem = prepare(taste_graph, quick_config())
    plain, recorded = begin(problem), begin(problem)
    for training in (plain, recorded):
        training._update._optimizer.param_groups[0]["lr"] = 0.05
    step = recorded.quickest_step()
    batch = draw(problem)[0]
    for training in (plain, recorded):
        training._update.set_rate(0.01)
    plain.step(batch)
    step(batch)
    assert not torch.equal(plain.weights()[TABLE].cpu(), recorded.weights()[TABLE].cpu())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model", list(BACKBONES))
def test_a_finished_training_is_freed_without_the_collector(
    watched, small_graph, quick_config, model, device
):
    problem = prepare(small_graph, quick_config(model=model, max_epochs=2), device)
    gc.collect()
    gc.disable()
    try:
        training = begin(problem)
        training.run()
        left = [weakref.ref(training), weakref.ref(training._model.embedding)]
        left += [weakref.ref(value) for value in training._update.tensors().values()]
        del training
        assert [one() for one in left] == [None] * len(left)
    finally:
        gc.enable()


def test_what_a_step_makes_anew_is_made_anew_in_a_replay(watched):
    def step(batch):
        sums = torch.zeros(2, device="cuda") + batch.new_zeros(2)
        sums += torch.arange(2, device=batch.device)
        return sums.add_(batch)

    recorded = record(step, dict, torch.tensor([1, 2]).cuda())
    for batch in ([1, 2], [5, 7]):
        assert recorded(torch.tensor(batch).cuda()).tolist() == [batch[0], batch[1] + 1]
