"""The settings that a run folder keeps: in ``config.json``, and once more in ``report.json``."""

import warnings
from pathlib import Path
from typing import Any

from pyg_lth import whole_files
from pyg_lth.errors import InputError, RunWarning
from pyg_lth.results.checksums import Checksums, Damaged


def read_kept_settings(folder: Path, checksums: Checksums) -> dict[str, Any]:
    """The settings of a run; those of its report, with a warning, where ``config.json`` is damaged.

    Args:
        folder: The run folder, or that of a seed in it.
        checksums: Its checksums.

    Raises:
        InputError: If the folder holds no run.
        Damaged: If ``config.json`` is, and the report cannot be read or has no settings.
    """
    path = folder / "config.json"
    if not checksums.there_or_missed(path):
        raise InputError(f"{folder} holds no run: there is no {path.name} in it")
    try:
        return whole_files.parse_json(checksums.read(path), path)
    except Damaged as damaged:
        try:
            report = folder / "report.json"
            settings = whole_files.parse_json(checksums.read(report), report)["config"]
        except (InputError, KeyError):
            raise damaged from None
        if not isinstance(settings, dict):
            raise damaged from None
        message = f"{path} is damaged: the settings that report.json has are taken; `resume` of "
        warnings.warn(f"{message}{folder} writes it again", RunWarning, stacklevel=3)
        return settings
