import torch

from pyg_lth import seeding


def draws(*args):
    return torch.rand(4, generator=seeding.generator(*args)).tolist()


def test_a_stream_depends_on_seed_and_purpose_alone():
    torch.manual_seed(1)
    first = draws(0, "sampling", 2, 3)
    torch.manual_seed(2)
    torch.rand(5)
    assert draws(0, "sampling", 2, 3) == first


def test_different_seeds_and_purposes_have_different_streams():
    labels = [
        (0, "sampling", 1, 2),
        (1, "sampling", 1, 2),
        (0, "sampling", 2, 1),
        (0, "sampling", 12),
        (0, "criterion", 1, 2),
        (0, "sampling", 1),
    ]
    assert len({tuple(draws(*label)) for label in labels}) == len(labels)


def test_the_stream_is_the_same_on_every_machine():
    assert seeding.generator(0, "sampling", 0, 0).initial_seed() == 8746589683583518264
