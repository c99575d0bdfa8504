"""Tables in several files, some columns in each: what the file in a table's place lists."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import Tensor

# Under this name the header of a file lists the files that hold its tables.
SHARDS = "shards"

# What a table is called in a model, in a training and in the file of a mask.
NAMES = ("embedding.weight", "weight", "mask")

_NAME = re.compile(r"\.[0-9a-f]{16}(?=\.safetensors$)")


class Shard(BaseModel):
    """A file of some columns.

    Args:
        file: Its name, in the folder of the file that lists it. It holds a part of the checksum, so
            that another content has another name.
        columns: How many columns of each table are in it.
        sha256: Its checksum.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    columns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, columns: int, content: bytes) -> "Shard":
        """The file for some columns of the tables of ``path``."""
        found = hashlib.sha256(content).hexdigest()
        return cls(file=f"{path.stem}.{found[:16]}{path.suffix}", columns=columns, sha256=found)

    def holds(self, content: bytes) -> bool:
        """Whether that is what was written."""
        return hashlib.sha256(content).hexdigest() == self.sha256


_LIST = TypeAdapter(list[Shard])


def shards_of(content: bytes) -> list[Shard]:
    """The files that a safetensors file lists, first columns first; none where it is whole.

    Args:
        content: Of a file that safetensors can read.
    """
    size = int.from_bytes(content[:8], "little")
    listed = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(SHARDS, "[]")
    return _LIST.validate_json(listed)


def tables_in(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those tensors that have the shape of the table, and so are split as it is."""
    shapes = [tensors[name].shape for name in NAMES if name in tensors]
    return [name for name, value in tensors.items() if shapes and value.shape == shapes[0]]


def is_shard(path: Path) -> bool:
    """Whether a file is one of some columns, by its name."""
    return _NAME.search(path.name) is not None


def listed_by(path: Path) -> str:
    """The name of the file that lists this one, its own if none does."""
    return _NAME.sub("", path.name)


def drop_shards(path: Path, kept: set[str]) -> None:
    """Delete the files that ``path`` listed once, but for those that it still lists."""
    for file in path.parent.glob(f"{path.stem}.*{path.suffix}"):
        if is_shard(file) and listed_by(file) == path.name and file.name not in kept:
            file.unlink()
