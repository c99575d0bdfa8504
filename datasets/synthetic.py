"""Generated interactions: no download, and small enough for a demonstration."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import BipartiteDataset, Interactions, Transform
from .errors import DatasetError
from .splitting import TEST, TRAIN, VALID, split_per_user

NUM_GENRES = 16
NOISE = 0.1


class Synthetic(BipartiteDataset):
    """Generated interactions with power-law popularity and latent taste.

    Each item belongs to one of 16 genres, and its popularity in it falls with its rank as
    1 / (rank + 10). Each user has a few favoured genres. An interaction draws a user (half of
    them evenly, half by a power law of activity), then a genre by the user's taste, then an item
    by popularity; a tenth of all items are drawn evenly, as noise. Repeated pairs are drawn anew.
    The split is 7:1:2 per user.

    The generator uses nothing but exactly rounded arithmetic, so that a seed gives the same data
    on every machine.

    Args:
        root: The folder of the data set.
        num_users: The number of users.
        num_items: The number of items.
        num_interactions: The number of interactions, train, validation and test together; at
            most half of all pairs.
        seed: The seed of generation and split.
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Raises:
        DatasetError: If the numbers don't fit together.

    Example:
        >>> from pyg_lth.datasets import Synthetic
        >>> dataset = Synthetic("data/synthetic", num_users=50, num_items=40, num_interactions=500)
        >>> dataset.counts
        Counts(users=50, items=40, train=391, valid=26, test=83)
        >>> dataset[0]
        InteractionGraph(
          user={ num_nodes=50 },
          item={ num_nodes=40 },
          (user, rates, item)={
            edge_index=[2, 391],
            val_edge_label_index=[2, 26],
            edge_label_index=[2, 83],
          }
        )
    """

    name = "synthetic"
    title = "generated, power-law popularity and latent taste"
    licence = "MIT, as this package"
    citation = "this package"
    source = "generated"

    def __init__(
        self,
        root: str | Path,
        num_users: int = 1000,
        num_items: int = 800,
        num_interactions: int = 30_000,
        seed: int = 0,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        if min(num_users, num_items) < 2 or not 10 <= num_interactions <= num_users * num_items / 2:
            raise DatasetError(
                f"synthetic: {num_interactions} interactions of {num_users} users and {num_items} "
                "items; at least 2 users, 2 items and 10 interactions are needed, and at most half "
                "of all pairs can interact"
            )
        self.num_users = num_users
        self.num_items = num_items
        self.num_interactions = num_interactions
        self.seed = seed
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_file_names(self) -> list[str]:
        """None: there are no raw files."""
        return []

    @property
    def options(self) -> dict[str, Any]:
        """The numbers and the seed."""
        return {
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_interactions": self.num_interactions,
            "seed": self.seed,
        }

    def read(self) -> Interactions:
        """Generates the interactions."""
        pairs = generate(self.num_users, self.num_items, self.num_interactions, self.seed)
        part = split_per_user(pairs[0], self.seed)
        train, valid, test = (pairs[:, part == which] for which in (TRAIN, VALID, TEST))
        return Interactions(train, valid, test, self.num_users, self.num_items)


def generate(
    num_users: int, num_items: int, num_interactions: int, seed: int
) -> npt.NDArray[np.int64]:
    """Generates the interactions of :class:`Synthetic`.

    Args:
        num_users: The number of users.
        num_items: The number of items.
        num_interactions: The number of pairs.
        seed: The seed.

    Returns:
        Distinct (user, item) pairs, int64 of shape [2, num_interactions], sorted.
    """
    random = np.random.Generator(np.random.PCG64(seed))

    def shuffled(number: int) -> npt.NDArray[np.int64]:
        return np.argsort(random.random(number), kind="stable")

    activity = np.cumsum(1.0 / (shuffled(num_users) + 10))
    activity /= activity[-1]
    # Items stand genre by genre on one line, each as long as it is popular.
    by_genre = shuffled(num_items)
    genre_starts = np.arange(NUM_GENRES + 1) * num_items // NUM_GENRES
    popularity = np.cumsum(np.append(0.0, 1.0 / (shuffled(num_items) + 10)))
    # Taste is a uniform number to the power of 8: a few genres take most of it.
    taste = random.random((num_users, NUM_GENRES))
    for _ in range(3):
        taste *= taste
    taste *= np.diff(genre_starts) > 0
    taste = np.cumsum(taste, axis=1)
    taste = (taste / taste[:, -1:]) + np.arange(num_users)[:, None]

    def draw(number: int) -> npt.NDArray[np.int64]:
        users = np.searchsorted(activity, random.random(number), side="right")
        evenly = random.random(number) < 0.5
        users[evenly] = (random.random(int(evenly.sum())) * num_users).astype(np.int64)
        genres = np.searchsorted(taste.ravel(), users + random.random(number), side="right")
        genres = np.minimum(genres - users * NUM_GENRES, NUM_GENRES - 1)
        start, end = popularity[genre_starts[genres]], popularity[genre_starts[genres + 1]]
        places = np.searchsorted(
            popularity, start + random.random(number) * (end - start), side="right"
        )
        items = by_genre[np.minimum(places - 1, num_items - 1)]
        noisy = random.random(number) < NOISE
        items[noisy] = (random.random(int(noisy.sum())) * num_items).astype(np.int64)
        keys: npt.NDArray[np.int64] = users * num_items + items
        return keys

    keys = np.empty(0, dtype=np.int64)
    while keys.size < num_interactions:
        # NumPy's `unique` hashes integers of late, several times slower than sorting them.
        keys = np.sort(np.append(keys, draw(2 * (num_interactions - keys.size) + 100)))
        keys = keys[np.diff(keys, prepend=-1) > 0]
    keys = np.sort(keys[shuffled(keys.size)[:num_interactions]])
    return np.stack(np.divmod(keys, num_items))
