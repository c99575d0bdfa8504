"""Published splits in LightGCN text, each checked against the counts known for it."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .adjacency import read_adjacency
from .base import BipartiteDataset, Counts, Interactions
from .download import download
from .errors import DatasetError
from .files import fingerprint, has_checksum
from .ids import ID_LISTS, read_id_list
from .registry import DATASETS

_LIGHTGCN_DATA = (
    "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/"
    "07e2ac6d10b42ce446c9b337d41ee9c4be4b1cf6/data"
)
_LIGHTGCN = (
    "Xiangnan He, Kuan Deng, Xiang Wang, Yan Li, Yongdong Zhang, Meng Wang. LightGCN: Simplifying "
    "and Powering Graph Convolution Network for Recommendation. SIGIR 2020. arXiv:2002.02126"
)

MOST_ROWS_PER_ID = 10


def read_split(folder: Path) -> Interactions:
    """Reads `train.txt`, `test.txt` and, where it is there, `valid.txt` of a folder.

    Args:
        folder: The folder of the LightGCN text files.

    Returns:
        The interactions; users and items are numbered up to the largest id in any file.

    Raises:
        DatasetError: If a file is missing or bad.
    """
    valid_path = folder / "valid.txt"
    train, test = (_part(folder / name) for name in ("train.txt", "test.txt"))
    valid = _part(valid_path) if valid_path.exists() else None
    nodes = np.concatenate([part for part in (train, valid, test) if part is not None], axis=1)
    num_users, num_items = (nodes.max(axis=1) + 1).tolist()
    for what, number, used in zip(("user", "item"), (num_users, num_items), nodes, strict=True):
        # Ids are indices here, and an absurd one would have a row for each below it.
        distinct = np.unique(used).size
        if number > MOST_ROWS_PER_ID * distinct + 1000:
            raise DatasetError(
                f"{folder}: {what} {number - 1:,} is far beyond the {distinct:,} {what}s there "
                "are; number them from 0 on, or read the folder by its path"
            )
    return Interactions(train, valid, test, num_users, num_items)


def _part(path: Path) -> npt.NDArray[np.int64]:
    text = read_adjacency(path)
    if text.repeats:
        raise DatasetError(f"{path}, {'; '.join(text.repeats)}; repair the file")
    return text.pairs


class PublishedSplit(BipartiteDataset):
    """The base class of the published splits.

    Raw files that are in `raw` already are used as they are; missing ones are downloaded. Where
    `user_list.txt` and `item_list.txt` lie beside them, the original ids are taken from there.
    Processing then checks them by what is known of them: checksums and counts.

    Attributes:
        url: The folder to download from.
        checksums: The SHA-256 or git blob id of the raw files, where known.
    """

    url: ClassVar[str]
    checksums: ClassVar[dict[str, str]] = {}

    @property
    def raw_file_names(self) -> list[str]:
        """The LightGCN text files."""
        return list(DATASETS[self.name].raw_files[0])

    @property
    def keeps_ids(self) -> bool:
        """Whether the lists of original ids lie beside the split."""
        return all(Path(self.raw_dir, name).exists() for name in ID_LISTS)

    @property
    def options(self) -> dict[str, Any]:
        """The state of the lists of ids, where they are."""
        if not self.keeps_ids:
            return {}
        return {"lists": [fingerprint(Path(self.raw_dir, name)) for name in ID_LISTS]}

    def download(self) -> None:
        """Downloads the raw files that are missing.

        Raises:
            DatasetError: If one cannot be had.
        """
        for name, path in zip(self.raw_file_names, map(Path, self.raw_paths), strict=True):
            if not path.exists():
                download(f"{self.url}/{name}", path, self.checksums[name])

    @property
    def remedy(self) -> str:
        """What to do about a raw file that is not the published one."""
        return f"delete it, and it is downloaded again from {self.url}"

    def read(self) -> Interactions:
        """Reads and checks the raw files.

        Raises:
            DatasetError: If one is bad or not the published one.
        """
        for name, checksum in self.checksums.items():
            path = Path(self.raw_dir, name)
            if not has_checksum(path, checksum):
                raise DatasetError(f"{path}: not the published file (checksum); {self.remedy}")
        interactions = read_split(Path(self.raw_dir))
        entry = DATASETS[self.name]
        expected = Counts(entry.users, entry.items, *entry.parts)
        valid = interactions.valid
        found_counts = Counts(
            interactions.num_users,
            interactions.num_items,
            interactions.train.shape[1],
            0 if valid is None else valid.shape[1],
            interactions.test.shape[1],
        )
        for what, number, known in zip(Counts._fields, found_counts, expected, strict=True):
            if number != known:
                where = f"{what}.txt" if f"{what}.txt" in self.raw_file_names else ""
                raise DatasetError(
                    f"{Path(self.raw_dir, where)}: {number:,} {what} where {self.name} has "
                    f"{known:,}; {self.remedy}"
                )
        if not self.keeps_ids:
            return interactions
        return interactions._replace(
            user_ids=read_id_list(Path(self.raw_dir, ID_LISTS[0]), entry.users),
            item_ids=read_id_list(Path(self.raw_dir, ID_LISTS[1]), entry.items),
        )


class Yelp2018(PublishedSplit):
    """The Yelp 2018 challenge, 10-core, in the split of NGCF and LightGCN.

    31,668 users, 38,048 items, 1,237,259 training and 324,147 test interactions. The raw files
    are `train.txt` and `test.txt` of the `"LightGCN" <https://arxiv.org/abs/2002.02126>`_ code,
    checked by SHA-256; the URL names a fixed commit.

    Args:
        root: The folder of the data set.
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Raises:
        DatasetError: If the raw files cannot be had or are not the published ones.

    Example:
        >>> from pyg_lth.datasets import DatasetOptions, describe
        >>> about = describe(DatasetOptions(dataset="yelp2018"))  # this downloads nothing
        >>> about["title"]
        'Yelp 2018 challenge, NGCF/LightGCN split'
    """

    name = "yelp2018"
    title = "Yelp 2018 challenge, NGCF/LightGCN split"
    licence = "the terms of the Yelp dataset; read them at Yelp"
    citation = _LIGHTGCN
    source = url = f"{_LIGHTGCN_DATA}/yelp2018"
    checksums: ClassVar[dict[str, str]] = {
        "train.txt": "1e9568725a9e833d0ac3bae01c94cd95367f73b3bb6104fd26b5f65ea5054093",
        "test.txt": "9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
    }


class Gowalla(PublishedSplit):
    """Check-ins of the Gowalla network, 10-core, in the split of NGCF and LightGCN.

    29,858 users, 40,981 items, 810,128 training and 217,242 test interactions. The raw files
    are `train.txt` and `test.txt` of the `"LightGCN" <https://arxiv.org/abs/2002.02126>`_ code,
    checked by SHA-256.

    Args:
        root: The folder of the data set.
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Raises:
        DatasetError: If the raw files cannot be had or are not the published ones.

    Example:
        >>> from pyg_lth.datasets import DatasetOptions, describe
        >>> about = describe(DatasetOptions(dataset="gowalla"))  # this downloads nothing
        >>> about["title"]
        'Gowalla check-ins, NGCF/LightGCN split'
    """

    name = "gowalla"
    title = "Gowalla check-ins, NGCF/LightGCN split"
    licence = "not known to this package; ask the publishers"
    citation = _LIGHTGCN
    source = url = f"{_LIGHTGCN_DATA}/gowalla"
    checksums: ClassVar[dict[str, str]] = {
        "train.txt": "7244696fdeb23911319cf7b689f2e15a3c4c92549c873a5677b44e3f13cc3e62",
        "test.txt": "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
    }


class AmazonBook(PublishedSplit):
    """PyG's :class:`torch_geometric.datasets.AmazonBook` in the form of this package.

    52,643 users, 91,599 items (PyG's `book`), 2,380,730 training and 603,378 test interactions.
    The raw files `train.txt` and `test.txt` are PyG's, so a `raw` folder of PyG's serves as it is;
    its processed file, a pickle, is not touched. They come from a fixed commit of the
    `"LightGCN" <https://arxiv.org/abs/2002.02126>`_ code and are checked by their git blob ids.

    Args:
        root: The folder of the data set.
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Raises:
        DatasetError: If the raw files cannot be had or are not the published ones.

    Example:
        >>> from pyg_lth.datasets import DatasetOptions, describe
        >>> about = describe(DatasetOptions(dataset="amazon-book"))  # this downloads nothing
        >>> about["title"]
        'Amazon book reviews, NGCF/LightGCN split, as in PyG'
    """

    name = "amazon-book"
    title = "Amazon book reviews, NGCF/LightGCN split, as in PyG"
    licence = "not known to this package; ask the publishers"
    citation = _LIGHTGCN
    source = url = f"{_LIGHTGCN_DATA}/amazon-book"
    checksums: ClassVar[dict[str, str]] = {
        "train.txt": "6ef55159c5f1fd7f6d86eb9ff290d0cc2854ac99",
        "test.txt": "09e5da4e0bf46c751c4ba0f4375e414fd13512cd",
    }


class TikTokMMSSL(PublishedSplit):
    """The public TikTok subset of MMSSL, also used by DiffMM.

    9,308 users, 6,710 items, 59,541 training, 3,051 validation and 6,130 test interactions. Some
    users and items have no training interaction. MMSSL publishes sparse matrices in pickles, so
    nothing is downloaded: `raw` has to hold `train.txt`, `valid.txt` and `test.txt`, converted
    from `train_mat`, `val_mat` and `test_mat` of https://github.com/HKUDS/MMSSL to LightGCN text.

    Args:
        root: The folder of the data set.
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As in :class:`BipartiteDataset`.
        force_reload: As in :class:`BipartiteDataset`.

    Raises:
        DatasetError: If a raw file is missing or is not the published one.

    Example:
        >>> from pyg_lth.datasets import TikTokMMSSL
        >>> TikTokMMSSL("data/tiktok-mmssl")
        Traceback (most recent call last):
        pyg_lth.datasets.errors.DatasetError: ...train.txt: missing; take train_mat, val_mat and ...
    """

    name = "tiktok-mmssl"
    title = "TikTok micro-videos, the public subset of MMSSL"
    licence = "not known to this package; ask the publishers"
    citation = (
        "Wei Wei, Chao Huang, Lianghao Xia, Chuxu Zhang. Multi-Modal Self-Supervised Learning for "
        "Recommendation. WWW 2023. arXiv:2302.10632"
    )
    source = "https://github.com/HKUDS/MMSSL"

    def download(self) -> None:
        """Says where the missing raw files come from.

        Raises:
            DatasetError: Always.
        """
        missing = next(path for path in map(Path, self.raw_paths) if not path.exists())
        raise DatasetError(f"{missing}: missing; {self.remedy}")

    @property
    def remedy(self) -> str:
        """Where the raw files come from."""
        return (
            "take train_mat, val_mat and test_mat of the TikTok data of "
            f"{self.source}, write each as LightGCN text (a line: user id, then item ids) and put "
            f"train.txt, valid.txt and test.txt in {self.raw_dir}"
        )
