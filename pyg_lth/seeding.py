"""Independent random streams from one seed, so that a resumed run needs no generator state."""

import hashlib

import torch


def generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator whose stream depends on ``seed`` and ``purpose`` and nothing else.

    Args:
        seed: The seed of the run.
        *purpose: What the draws are for, such as ``"sampling"``, round, epoch.
        device: Where the draws are made.

    Example:
        >>> import torch
        >>> from pyg_lth.seeding import generator
        >>> first, again = (torch.rand(3, generator=generator(0, "sampling", 7)) for _ in range(2))
        >>> torch.equal(first, again)
        True
    """
    label = "/".join(str(part) for part in (seed, *purpose))
    digest = hashlib.blake2b(label.encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "big") >> 1)
