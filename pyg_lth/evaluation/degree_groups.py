"""Where a mask has its living entries, whom its ranking serves, and how far two masks agree."""

from collections.abc import Iterable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pyg_lth.errors import InputError
from pyg_lth.evaluation.evaluator import Evaluator
from pyg_lth.interactions import InteractionSplit
from pyg_lth.pruning.masks import Mask
from pyg_lth.workers import ALONE, Workers

NUM_GROUPS = 10

Means = list[float | None]


class GroupSizes(BaseModel):
    """The size of each degree group of the users, or of the items, lowest degrees first.

    Args:
        nodes: Nodes of each group.
        interactions: Train interactions of each group.
    """

    model_config = ConfigDict(frozen=True)

    nodes: list[int]
    interactions: list[int]


class Groups(BaseModel):
    """The degree groups that an :class:`Analysis` speaks of: the same in every round.

    Args:
        users: Of the users.
        items: Of the items.
    """

    model_config = ConfigDict(frozen=True)

    users: GroupSizes
    items: GroupSizes


class Analysis(BaseModel):
    """Where a mask's living entries are, and whom its ranking serves.

    Lists by group start with the lowest degrees (see :func:`degree_groups`); :obj:`None` stands
    where a group has no node or, for a metric, no ground truth.

    Args:
        density_by_user_group: Share of living entries in the rows of each user group, in [0, 1].
        density_by_item_group: The same for each item group.
        density_by_column: Share of living entries in each of the ``dim`` columns, in [0, 1].
        empty_users: Share of the users whose whole row is masked, in [0, 1].
        empty_items: The same of the items.
        metrics_by_user_group: Each metric, keyed ``name@k``: its mean over the users of each group
            who have ground truth.
        metrics_by_item_group: Each metric of the same ranked lists with the items of one group
            alone as ground truth: its mean over the users who have any there.
    """

    model_config = ConfigDict(frozen=True)

    density_by_user_group: Means
    density_by_item_group: Means
    density_by_column: list[float]
    empty_users: float
    empty_items: float
    metrics_by_user_group: dict[str, Means]
    metrics_by_item_group: dict[str, Means]


class Overlap(BaseModel):
    """How far two masks agree.

    Args:
        jaccard: Entries that live in both, as a share of those that live in either.
        chance: What ``jaccard`` is expected to be for independent random masks of the same two
            densities.
    """

    model_config = ConfigDict(frozen=True)

    jaccard: float
    chance: float


class Analyst:
    """Analyses the rounds of a search by degree group.

    Args:
        split: The interactions, on the device to compute on.
        evaluator: Of the same split; its ground truth is what the ranked lists are held against.
        workers: Who has which columns of the masks.

    Attributes:
        groups: The sizes of the groups.
    """

    def __init__(self, split: InteractionSplit, evaluator: Evaluator, workers: Workers = ALONE):
        user_degree, item_degree = (
            torch.bincount(index, minlength=size)
            for index, size in zip(split.train, (split.num_users, split.num_items), strict=True)
        )
        self._users, self._items = _members(user_degree), _members(item_degree)
        self.groups = Groups(
            users=_sizes(user_degree, self._users), items=_sizes(item_degree, self._items)
        )
        self._num_users = split.num_users
        self._evaluator = evaluator
        self._workers = workers

    def __call__(self, mask: Mask, ranked: Tensor) -> Analysis:
        """Analyse one round.

        Args:
            mask: The mask of the round.
            ranked: What ``evaluator.rank`` returned for its embeddings, shape ``[n, k]``, int64.
        """
        # Sums of float32 ones are exact here, and take half the time of those of booleans.
        table = mask.table.to(ranked.device, torch.float)
        column = self._workers.cat(table.sum(dim=0)).double() / table.size(0)
        row = self._workers.sum(table.sum(dim=1)).double() / column.numel()
        users, items = row[: self._num_users], row[self._num_users :]
        everyone = self._evaluator.per_user(ranked)
        by_item_group = [self._evaluator.per_user(ranked, among) for among in self._items]
        return Analysis(
            density_by_user_group=_means(users[members] for members in self._users),
            density_by_item_group=_means(items[members] for members in self._items),
            density_by_column=column.tolist(),
            empty_users=float((users == 0).double().mean()),
            empty_items=float((items == 0).double().mean()),
            metrics_by_user_group={
                name: _means(value[members[self._evaluator.users]] for members in self._users)
                for name, value in everyone.items()
            },
            metrics_by_item_group={
                name: _means(values[name] for values in by_item_group) for name in everyone
            },
        )


def degree_groups(degree: Tensor, num_groups: int = NUM_GROUPS) -> Tensor:
    """Group nodes by degree, so that all groups have about as many interactions, as in the paper.

    The nodes are lined up by degree, equal ones by index. Cut :math:`t` falls between two nodes,
    where the interactions of those below come nearest to :math:`t/g` of all (the upper of two such
    places); but where single nodes have more than :math:`1/g` of all, low enough to leave one node
    at least to each group above. Fewer nodes than groups are a group each, and the last groups are
    empty.

    Args:
        degree: Interactions of each node, shape ``[n]``, int64.
        num_groups: Number of groups :math:`g`.

    Returns:
        The group of each node, 0 for the lowest degrees, shape ``[n]``, int64.
    """
    num_nodes = degree.numel()
    num_groups = min(num_groups, num_nodes)
    ordered, order = degree.sort(stable=True)
    cut = torch.arange(1, num_groups, device=degree.device)
    # A node is below a cut if the middle of its interactions is: all doubled to stay in integers.
    middle = (2 * ordered.cumsum(0) - ordered) * num_groups
    place = torch.searchsorted(middle, 2 * degree.sum() * cut, right=True)
    # Two cuts meet at nodes of more than a share only. As all above them have as much, there are
    # too few of these for their groups, and this parts the cuts again.
    place = place.minimum(num_nodes - num_groups + cut)
    group = torch.empty_like(order)
    position = torch.arange(num_nodes, device=degree.device)
    group[order] = torch.searchsorted(place, position, right=True)
    return group


def overlap(first: Mask, second: Mask) -> Overlap:
    r"""Compare two masks of the same table, such as those of two seeds or of two methods.

    For random masks of densities :math:`p` and :math:`q` the chance is
    :math:`pq / (p + q - pq)`, the expected number of entries in both over that in either. The
    expectation of the ratio itself is larger by about one part in :math:`2Np` for
    :math:`p = q \ll 1` and :math:`N` entries, which is nothing for an embedding table. Two masks
    without a living entry are equal, and so overlap wholly.

    Args:
        first: A mask.
        second: Another.

    Raises:
        InputError: If their shapes differ.
    """
    if first.table.shape != second.table.shape:
        raise InputError(
            f"a mask of shape {list(first.table.shape)} has no overlap with one of shape "
            f"{list(second.table.shape)}: compare runs of one data set and one dimension"
        )
    p, q, both = first.remaining, second.remaining, (first & second).remaining
    if p + q == 0:
        return Overlap(jaccard=1.0, chance=1.0)
    chance = p * q / (first.table.numel() * (p + q) - p * q)
    return Overlap(jaccard=both / (p + q - both), chance=chance)


def _members(degree: Tensor) -> list[Tensor]:
    """Which nodes are in each group, as booleans of shape ``[n]``."""
    group = degree_groups(degree)
    return [group == number for number in range(NUM_GROUPS)]


def _sizes(degree: Tensor, groups: list[Tensor]) -> GroupSizes:
    return GroupSizes(
        nodes=[int(members.sum()) for members in groups],
        interactions=[int(degree[members].sum()) for members in groups],
    )


def _means(parts: Iterable[Tensor]) -> Means:
    """The mean of each part, :obj:`None` for an empty one, where torch has NaN."""
    return [float(part.mean()) if part.numel() else None for part in parts]
