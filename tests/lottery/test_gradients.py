import pytest
import torch

from pyg_lth import LightGCN
from pyg_lth.config import TrainConfig
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.gradients import loss_gradient
from pyg_lth.nn.backbones import TABLE
from pyg_lth.training.problem import Problem

CPU = torch.device("cpu")


@pytest.mark.parametrize("loss", ["bpr", "softmax", "sampled-softmax"])
@pytest.mark.parametrize("model", ["lightgcn", "mf"])
def test_the_gradient_is_the_mean_over_an_epoch_of_batches(small_graph, model, loss):
    """Against autograd through PyG's own propagation, batch by batch."""
    config = TrainConfig(model=model, loss=loss, dim=4, batch_size=64)
    split = InteractionSplit.from_data(small_graph)
    problem = Problem.prepare(split, config, CPU)
    weight = torch.randn(70, 4)
    stock = LightGCN(70, 4, config.layers)
    with torch.no_grad():
        stock.embedding.weight.copy_(weight)
    expected = torch.zeros(70, 4)
    for batch in problem.sampler.epoch(torch.Generator().manual_seed(3)):
        stock.zero_grad()
        out = stock.get_embedding(split.joint_edge_index())
        problem.loss(out[torch.cat([batch[:64], batch[64:] + 40])], batch).backward()
        expected += stock.embedding.weight.grad / problem.sampler.steps
    gradient = loss_gradient(problem, {TABLE: weight}, torch.Generator().manual_seed(3))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_masked_entry_has_a_gradient_too(small_graph):
    problem = Problem.prepare(InteractionSplit.from_data(small_graph), TrainConfig(dim=4), CPU)
    weight = torch.randn(70, 4)
    weight[::2, 1] = 0
    gradient = loss_gradient(problem, {TABLE: weight}, torch.Generator().manual_seed(0))
    assert gradient[::2, 1].abs().min() > 0
