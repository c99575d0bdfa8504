import torch

from pyg_lth.pruning import criteria


def test_random_scores_come_from_the_generator_alone():
    weight = torch.ones(4, 2)

    def draw(seed):
        return criteria.random(weight, torch.Generator().manual_seed(seed), torch.zeros_like)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert draw(0).shape == weight.shape
