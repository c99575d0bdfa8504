import torch
import torch.nn.functional as F

from pyg_lth.pruning.rotation import quartimax


def test_a_sparse_table_is_found_again_behind_a_rotation():
    source = torch.Generator().manual_seed(0)
    sparse = torch.randn(400, 6, generator=source) * (torch.rand(400, 6, generator=source) < 0.3)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=source))[0]
    found = (sparse @ turn) @ quartimax(sparse @ turn)
    # Up to the order of the columns and their signs.
    cosine = F.normalize(sparse, dim=0).t() @ F.normalize(found, dim=0)
    assert cosine.abs().max(dim=0).values.min() > 0.95
    assert (found.abs() < 0.1).float().mean() > 0.6 > ((sparse @ turn).abs() < 0.1).float().mean()


def test_it_is_a_rotation_that_never_lowers_the_fourth_powers():
    for seed in range(5):
        table = torch.randn(30, 5, generator=torch.Generator().manual_seed(seed))
        basis = quartimax(table)
        assert torch.allclose(basis @ basis.t(), torch.eye(5), atol=1e-5)
        assert ((table @ basis) ** 4).sum() > (table**4).sum()


def test_a_table_of_zeros_stays_where_it_is():
    assert torch.equal(quartimax(torch.zeros(4, 3)), torch.eye(3))
