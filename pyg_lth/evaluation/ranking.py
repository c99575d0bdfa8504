"""The best unseen items of every user, without all scores at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_lth import kernels

# Scores held at once in the plain way, in entries: 16 MiB, whatever the data set.
SCORES_AT_ONCE = 1 << 22

# The same on a GPU, which has to be given more to do at a time: 512 MiB.
SCORES_AT_ONCE_ON_CUDA = 1 << 27

# Items that the kernel scores at once, its LANES.
PANEL = 16

# Items of which the plain way finds the best one first: about the root of how many there are by k.
BLOCK = 32

# The lower half of a key.
LAST = 2**32 - 1

# The kernel inserts into sorted lists, which gets slow where they are long.
LONGEST_NATIVE_LIST = 256


@torch.no_grad()
def rank_items(users: Tensor, items: Tensor, seen: tuple[Tensor, Tensor], k: int) -> Tensor:
    """Rank the items that each user has not seen by inner product, best first.

    A place that no item can take, since too few are unseen or their scores are NaN or -inf, holds
    the number of items :math:`m`: no item's index, and so a miss to PyG's metrics. (An index of -1
    would be none: they would read it as the last item of the user before.)

    Of equal scores the lower index comes first: a user whose row is all zeros, as pruning leaves
    some, is given the first items that they have not seen. On a CPU this package's kernel ranks
    lists that are not very long, where it was compiled; torch does the rest.

    Args:
        users: Embeddings, shape ``[n, dim]``, float.
        items: Embeddings, shape ``[m, dim]``, float.
        seen: The items of each user to leave out in CSR form: row pointers, int64, shape
            ``[n + 1]``, and items, int64, sorted within a user.
        k: Length of the ranked list, at least 1.

    Returns:
        Items, int64, shape ``[n, min(k, m)]``.

    Example:
        >>> import torch
        >>> from pyg_lth.evaluation.ranking import rank_items
        >>> users, items = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [1.0], [2.0]])
        >>> seen = torch.tensor([0, 1, 1]), torch.tensor([0])  # the first user has seen item 0
        >>> rank_items(users, items, seen, k=2)
        tensor([[2, 1],
                [0, 2]])
    """
    k = min(k, items.size(0))
    native = k <= LONGEST_NATIVE_LIST and kernels.usable(users.device)
    return (_native if native else _plain)(users, items, seen, k)


def _plain(users: Tensor, items: Tensor, seen: tuple[Tensor, Tensor], k: int) -> Tensor:
    """Score all items, and look for the best ones of a user in the blocks with the best of all.

    A block that is not among the first :math:`k` by its best item, of equal ones the lower block,
    holds no item of the list: each of those has one that goes before all of its own.
    """
    users, items = users.float(), items.float()
    num_users, num_items = users.size(0), items.size(0)
    rowptr, seen_item = seen
    blocks = -(-num_items // BLOCK)
    filler = blocks * BLOCK - num_items
    # The first items of all blocks, then the second ones: the best of blocks side by side.
    panels = F.pad(items, (0, 0, 0, filler)).view(blocks, BLOCK, items.size(1))
    panels = panels.transpose(0, 1).flatten(0, 1)
    row = torch.arange(num_users, device=users.device)
    seen_row = row.repeat_interleave(rowptr.diff(), output_size=seen_item.numel())
    at_once = SCORES_AT_ONCE_ON_CUDA if users.is_cuda else SCORES_AT_ONCE
    chunk = min(max(1, at_once // panels.size(0)), max(1, num_users))
    # On the host before the loop, so that nothing in it waits for the device.
    starts = [*rowptr[::chunk].tolist(), seen_item.numel()]
    overflows = _may_overflow(users, items)
    scores = users.new_empty(chunk, BLOCK, blocks)
    # On the device already: a number would be copied there, and waited for, in every chunk.
    never = scores.new_tensor(-torch.inf)
    ranked = rowptr.new_empty(num_users, k)
    for i, first in enumerate(range(0, num_users, chunk)):
        part = scores[: num_users - first]
        torch.mm(users[first : first + chunk], panels.t(), out=part.flatten(1))
        some = slice(starts[i], starts[i + 1])
        item = seen_item[some]
        part[seen_row[some] - first, item % BLOCK, item // BLOCK] = never
        part[:, BLOCK - filler :, -1] = never
        if overflows:
            part.nan_to_num_(-torch.inf, torch.inf, -torch.inf)
        ranked[first : first + chunk] = _best(part, k, num_items)
    return ranked


def _may_overflow(users: Tensor, items: Tensor) -> bool:
    """Whether a score may be infinite or NaN, by the greatest lengths; waits for the device."""
    if not users.numel():
        return False
    bound = _norm(users).max() * _norm(items).max()
    return not bool(bound < torch.finfo(torch.float).max / 2)


def _best(scores: Tensor, k: int, num_items: int) -> Tensor:
    """Return the best items of each row, shape ``[n, k]``, of scores ``[n, BLOCK, blocks]``."""
    place, block = (torch.arange(size, device=scores.device) for size in scores.shape[1:])
    chosen = _best_by_key(scores.amax(1), block, min(k, block.numel()))
    chosen = chosen.unsqueeze(1).expand(-1, BLOCK, -1)
    scores = scores.gather(2, chosen).flatten(1)
    item = (chosen * BLOCK + place.unsqueeze(1)).flatten(1)
    return _best_by_key(scores, item.masked_fill_(scores == -torch.inf, num_items), k)


def _best_by_key(scores: Tensor, index: Tensor, k: int) -> Tensor:
    """Return which are the best scores of each row by their index, of equal ones the lower first.

    ``topk`` takes any of equal scores, so it is given keys of which no two are equal. The upper
    half are the bits of the score, which ascend as it does once those below the sign are turned
    round where that is set; the lower half descends with the index.
    """
    bits = (scores + 0.0).view(torch.int32)  # -0.0 is 0.0 now
    key = bits.bitwise_xor_((bits >> 31).bitwise_and_(2**31 - 1)).long().bitwise_left_shift_(32)
    return LAST - (key.add_(LAST - index).topk(k).values & LAST)


def _native(users: Tensor, items: Tensor, seen: tuple[Tensor, Tensor], k: int) -> Tensor:
    users, items = users.float().contiguous(), items.float()
    num_users, (num_items, dim) = users.size(0), items.shape
    # The norms bound the scores, so that most items are never scored for a user who has good ones
    # among the longest already. The little on top covers the rounding of scores and norms.
    lowest, epsilon = torch.finfo(torch.float).min, torch.finfo(torch.float).eps
    norm, order = _norm(items).float().sort(descending=True, stable=True)
    user_norm = (_norm(users) * (1 + (dim + 4) * epsilon)).float()
    filler = -num_items % PANEL
    index, length = (F.pad(x, (0, filler)).view(-1, PANEL) for x in (order, norm))
    panels = F.pad(items[order], (0, 0, 0, filler), value=torch.nan)
    panels = panels.view(-1, PANEL, dim).transpose(1, 2).contiguous()
    best = torch.full((num_users, k), lowest)
    ranked = torch.full((num_users, k), num_items)
    kernels.call(
        "rank_items",
        *(users, user_norm, num_users),
        *(panels, index, length),
        *(len(panels), dim),
        *(part.contiguous() for part in seen),
        *(k, best, ranked),
    )
    return ranked


def _norm(x: Tensor) -> Tensor:
    # In double, where no square of a float is lost.
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return norm
