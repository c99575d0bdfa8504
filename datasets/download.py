"""Fetching a raw file that the user has not put in place."""

from pathlib import Path

import pooch

from .errors import DatasetError
from .files import has_checksum, replaced

TIMEOUT = 30.0  # seconds without a byte


def download(url: str, path: Path, checksum: str) -> None:
    """Downloads one file; it appears under its name only when it is complete and right.

    Args:
        url: Where the file is.
        path: Where it goes.
        checksum: What it has to have, see :func:`~pyg_lth.datasets.files.has_checksum`.

    Raises:
        DatasetError: If the file cannot be had or is not the one the checksum belongs to.
    """
    fetch = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=1 << 16)
    try:
        with replaced(path) as temporary:
            fetch(url, temporary, None)
            if not has_checksum(temporary, checksum):
                raise ValueError("what came has another checksum than the published file")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"cannot download {url} ({reason}); fetch it by other means and put it at {path}"
        ) from error
