"""The original ids of users and items: their type, and the table that keeps them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import replaced


def as_integers(ids: list[str]) -> npt.NDArray[Any]:
    """Turns ids in text form into int64 if that loses nothing for any of them.

    `007` or a number beyond 64 bits would lose; then all stay as they are.

    Args:
        ids: The ids.

    Returns:
        An int64 array, or an object array of the strings.
    """
    text = np.array(ids, dtype=object)
    try:
        numbers = np.array([int(value) for value in ids], dtype=np.int64)
    except (ValueError, OverflowError):
        return text
    return numbers if [str(number) for number in numbers.tolist()] == ids else text


def write_ids(path: Path, ids: npt.NDArray[Any]) -> None:
    """Writes the id of every index as CSV with the columns `index` and `id`."""
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "id"])
        writer.writerows(enumerate(ids.tolist()))


def read_ids(path: Path) -> npt.NDArray[Any]:
    """Reads what :func:`write_ids` wrote: int64 if all ids are integers, else text."""
    with path.open(encoding="utf-8", newline="") as file:
        return as_integers([row[1] for row in list(csv.reader(file))[1:]])
