"""The original ids of users and items: their type, and the table that keeps them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DatasetError, shown
from .files import read_text, replaced

# What lies beside published splits: the original id of every index.
ID_LISTS = ("user_list.txt", "item_list.txt")


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


def read_id_list(path: Path, number: int | None = None) -> npt.NDArray[Any]:
    """Reads the list that published splits have beside them: `user_list.txt`, `item_list.txt`.

    Its header names the columns, an original id and a `remap_id` first; a line follows for each
    index from 0 on. What comes after the two is not looked at.

    Args:
        path: The list.
        number: How many indices there are; by default as many as lines.

    Raises:
        DatasetError: If the file is bad or an index is missing, repeated or too large.
    """
    header, *lines = read_text(path).decode().replace("\r\n", "\n").split("\n")
    names = header.split()
    if names[1:2] != ["remap_id"]:
        raise DatasetError(f"{path}, line 1: no header 'org_id remap_id'; repair it")
    if number is None:
        number = sum(bool(text.strip()) for text in lines)
    ids: list[str | None] = [None] * number
    for line, text in enumerate(lines, start=2):
        if not text.strip():
            continue
        fields = text.rsplit(" ", len(names) - 1)
        index = (
            int(fields[1])
            if len(fields) > 1 and fields[1].isascii() and fields[1].isdigit()
            else -1
        )
        if not 0 <= index < number or ids[index] is not None:
            raise DatasetError(
                f"{path}, line {line}: {shown(text)} is no id with an index of its own below "
                f"{number}; repair the line, or take the list away"
            )
        ids[index] = fields[0]
    missing = [index for index, value in enumerate(ids) if value is None]
    if missing:
        raise DatasetError(
            f"{path}: index {missing[0]} has no id; add its line, or take the list away"
        )
    return as_integers([value for value in ids if value is not None])


def write_id_list(path: Path, ids: npt.NDArray[Any]) -> None:
    """Writes what :func:`read_id_list` reads.

    Args:
        path: The list.
        ids: The id of every index.

    Raises:
        DatasetError: If an id has a line end in it.
    """
    values = [str(value) for value in ids.tolist()]
    bad = next((value for value in values if "\n" in value or "\r" in value), None)
    if bad is not None:
        raise DatasetError(f"{path}: id {shown(bad)} holds a line end; convert to Parquet instead")
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write("org_id remap_id\n")
        file.writelines(f"{value} {index}\n" for index, value in enumerate(values))
