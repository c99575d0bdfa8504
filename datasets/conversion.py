"""Writing a data set, or a log as it is, in another form."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from .errors import DatasetError
from .files import replaced
from .graph import EDGE_TYPE, PARTS
from .ids import ID_LISTS, write_id_list
from .layouts import DEFAULT_COLUMNS, Layout, read_columns
from .registry import DATASETS, DatasetOptions, load_dataset

if TYPE_CHECKING:
    from .base import BipartiteDataset

# What shapes a data set but not the log it is made from.
_SHAPING = ("min_rating", "core", "split", "split_seed", "repeats", "drop_cold")


def convert(options: DatasetOptions, out: Path) -> tuple[list[Path], Sequence[str]]:
    """Writes a data set, or a file of one's own, in another form.

    Args:
        options: What to read, and how.
        out: With the suffix `.parquet`: a row for each row of a log, in its order, with the columns
            `user_id`, `item_id`, `time` and `rating` as far as they are named; of a given split or
            a published data set, `user_id`, `item_id` and `part`. With `.txt`: all interactions in
            LightGCN text. Else a folder for `train.txt`, `valid.txt` and `test.txt` in LightGCN
            text. Beside LightGCN text stand `user_list.txt` and `item_list.txt`: the original id of
            every index.

    Returns:
        The files that were written, and notes on what was dropped, merged or guessed at.

    Raises:
        DatasetError: If something is there already, or as :func:`load_dataset`.
    """
    suffix = out.suffix.lower()
    written = [out] if suffix == ".parquet" else []
    if suffix == ".txt":
        written = [out, *(out.with_name(name) for name in ID_LISTS)]
    for path in written or [out]:
        if path.exists() or path.is_symlink():
            raise DatasetError(f"{path}: is there already; name another place")
    out.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".parquet":
        table, notes = _rows(options)
        with replaced(out) as temporary:
            pa.parquet.write_table(table, temporary)
        return written, notes
    dataset = load_dataset(options)
    edges = dataset[0][EDGE_TYPE]
    parts = {name: edges[key].numpy() for name, key in PARTS.items() if key in edges}
    if suffix == ".txt":
        _write_lists(out.parent, dataset)
        _write_adjacency(out, np.concatenate(list(parts.values()), axis=1))
        return written, dataset.notes
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary, "folder")
        folder.mkdir()
        for name, pairs in parts.items():
            _write_adjacency(folder / f"{name}.txt", pairs)
        _write_lists(folder, dataset)
        folder.rename(out)
    return sorted(out.iterdir()), dataset.notes


def _rows(options: DatasetOptions) -> tuple[pa.Table, Sequence[str]]:
    """Returns the rows of a log, or the interactions of a split with their parts."""
    path = Path(options.dataset)
    layout = Layout(options.separator, bool(options.no_header))
    is_split = options.test_file or (path.is_dir() and (path / "train.txt").exists())
    if not (options.dataset in DATASETS or is_split or layout.is_lightgcn(path)):
        return _rows_of_log(path, layout, options)
    dataset = load_dataset(options)
    edges = dataset[0][EDGE_TYPE]
    tables = [
        pa.table(
            {
                "user_id": pa.array(dataset.user_ids[users]),
                "item_id": pa.array(dataset.item_ids[items]),
                "part": pa.array([name] * len(users)),
            }
        )
        for name, (users, items) in (
            (name, edges[key].numpy()) for name, key in PARTS.items() if key in edges
        )
    ]
    return pa.concat_tables(tables), dataset.notes


def _rows_of_log(
    path: Path, layout: Layout, options: DatasetOptions
) -> tuple[pa.Table, Sequence[str]]:
    for name in _SHAPING:
        if getattr(options, name) is not None:
            raise DatasetError(
                f"{path}: `{name}` shapes a data set, and Parquet gets the log as it is; leave it "
                "out, or convert to a folder"
            )
    first, second = DEFAULT_COLUMNS[layout.no_header]
    names = {
        "user_id": options.user_col or first,
        "item_id": options.item_col or second,
        "time": options.time_col,
        "rating": options.rating_col,
    }
    used = [name for name in names.values() if name]
    columns = read_columns(path, used, layout)
    if options.drop_missing:
        columns = columns.without_missing(used)
    table: dict[str, pa.Array] = {}
    for name in ("user_id", "item_id"):
        codes, ids = columns.ids(names[name] or "", options.ids or "auto")
        table[name] = pa.array(ids).take(pa.array(codes))
    if names["time"]:
        table["time"] = columns.time_array(names["time"])
    if names["rating"]:
        table["rating"] = pa.array(columns.numbers(names["rating"]))
    return pa.table(table), columns.notes


def _write_adjacency(path: Path, pairs: npt.NDArray[np.int64]) -> None:
    users, items = pairs[:, np.lexsort(pairs[::-1])]
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    lines = (
        " ".join(map(str, [user, *own.tolist()])) + "\n"
        for user, own in zip(users[starts].tolist(), np.split(items, starts[1:]), strict=True)
    )
    with replaced(path) as temporary, temporary.open("w") as file:
        file.writelines(lines)


def _write_lists(folder: Path, dataset: "BipartiteDataset") -> None:
    for name, ids in zip(ID_LISTS, (dataset.user_ids, dataset.item_ids), strict=True):
        write_id_list(folder / name, ids)
