"""The data of a run: what its folder keeps, or the data set that the flags name."""

from pathlib import Path
from typing import Any

from pyg_lth.cli.datasets import opened
from pyg_lth.cli.settings import build
from pyg_lth.datasets import DATASETS, DatasetOptions
from pyg_lth.errors import InputError
from pyg_lth.results.run_folder import RunFolder

PATHS = ("dataset", "root", "valid_file", "test_file")


def of_options(options: DatasetOptions) -> dict[str, Any]:
    """Graph, original ids and notes of a data set, named as the library's arguments."""
    dataset = opened(options)
    ids = {"user_ids": dataset.user_ids, "item_ids": dataset.item_ids}
    return {"data": dataset[0], **ids, "notes": dataset.notes}


def of_run(run: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Graph, original ids and notes of a run.

    Args:
        run: Its folder.
        given: Flags that name the data set anew, :obj:`None` where not given.

    Raises:
        InputError: If the folder neither keeps the graph nor says which data set it is.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    flags = {name: value for name, value in given.items() if value is not None}
    if not flags and folder.has_data:
        kept = folder.read_data()
        return {
            "data": kept.split.to_data(),
            "user_ids": kept.user_ids,
            "item_ids": kept.item_ids,
            "notes": kept.notes,
        }
    own = {name: config[name] for name in DatasetOptions.model_fields if name in config}
    if "dataset" not in own | flags:
        raise InputError(f"{run} was begun from Python: name its data set with --dataset, --root")
    for name in PATHS:
        if own.get(name) is not None and own[name] not in DATASETS:
            own[name] = str(folder.locate(own[name]))
    return of_options(build(DatasetOptions, None, own | flags))
