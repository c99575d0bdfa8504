"""The best unseen items of every user, without all scores at once."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import cumsum

from pyg_lth import kernels

# Scores held at once in the plain way, in entries: 64 MiB with their keys, whatever the data set.
SCORES_AT_ONCE = 1 << 22

# The same on a GPU, which has to be given more to do at a time: 600 MiB.
SCORES_AT_ONCE_ON_CUDA = 1 << 26

# Items that the kernel scores at once, its LANES.
PANEL = 16

# The bits of -inf as the plain way turns them, below those of every number.
LOWEST = -0x7F800001

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
    users, items = users.float(), items.float()
    ranked = seen[0].new_empty(users.size(0), k)
    contested = torch.zeros_like(ranked[:, 0], dtype=torch.bool)
    for some, scores in _scores(users, items, seen):
        ranked[some], contested[some] = _best(scores, k)
    left = contested.nonzero().view(-1)
    if left.numel():
        for some, scores in _scores(users[left], items, _of_rows(seen, contested)):
            ranked[left[some]] = _best_by_key(scores, k)
    return ranked


def _scores(
    users: Tensor, items: Tensor, seen: tuple[Tensor, Tensor]
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the scores of some users at a time, -inf where none counts; they may be overwritten."""
    num_users, num_items = users.size(0), items.size(0)
    rowptr, seen_item = seen
    row = torch.arange(num_users, device=users.device)
    seen_row = row.repeat_interleave(rowptr.diff(), output_size=seen_item.numel())
    at_once = SCORES_AT_ONCE_ON_CUDA if users.is_cuda else SCORES_AT_ONCE
    # Half as many, since a key takes twice as much as its score.
    chunk = min(max(1, at_once // (2 * num_items)), max(1, num_users))
    # On the host before the loop, so that nothing in it waits for the device.
    starts = [*rowptr[::chunk].tolist(), seen_item.numel()]
    scores = users.new_empty(chunk, num_items)
    # On the device already: a number would be copied there, and waited for, in every chunk.
    never = scores.new_tensor(-torch.inf)
    for i, first in enumerate(range(0, num_users, chunk)):
        part = scores[: num_users - first]
        torch.mm(users[first : first + chunk], items.t(), out=part)
        edges = slice(starts[i], starts[i + 1])
        part[seen_row[edges] - first, seen_item[edges]] = never
        part.nan_to_num_(-torch.inf, torch.inf, -torch.inf)
        yield slice(first, first + part.size(0)), part


def _of_rows(seen: tuple[Tensor, Tensor], chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The rows chosen of what is in CSR form, in that form."""
    rowptr, item = seen
    degree = rowptr.diff()
    return cumsum(degree[chosen]), item[chosen.repeat_interleave(degree)]


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the best items of each row, and where the last place is contested by equal scores.

    ``topk`` orders equal values at will, and takes any of them; what it took is put in order here.
    """
    num_items = scores.size(1)
    value, item = scores.add_(0.0).topk(min(k + 1, num_items))  # -0.0 is 0.0 now
    last, next_best = value[:, k - 1], value[:, -1]
    contested = (last == next_best) & (last > -torch.inf) & (k < num_items)
    item, order = item[:, :k].sort()
    value = value.gather(1, order)
    value, order = value.sort(dim=1, descending=True, stable=True)
    return item.gather(1, order).masked_fill_(value == -torch.inf, num_items), contested


def _best_by_key(scores: Tensor, k: int) -> Tensor:
    """Return the best items of each row, whatever scores are equal; overwrites the scores.

    ``topk`` is given keys of which no two are equal. The upper half are the bits of the score,
    which ascend as it does once those below the sign are turned round where that is set; the lower
    half counts the items from the last to the first.
    """
    num_items = scores.size(1)
    bits = scores.add_(0.0).view(torch.int32)
    key = bits.bitwise_xor_((bits >> 31).bitwise_and_(2**31 - 1)).long().bitwise_left_shift_(32)
    key.add_(torch.arange(num_items - 1, -1, -1, device=key.device))
    best = key.topk(k).values
    item = num_items - 1 - (best & (2**32 - 1))
    return item.masked_fill_(best >> 32 == LOWEST, num_items)


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
