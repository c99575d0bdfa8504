"""Fetching a raw file that the user has not put in place."""

from pathlib import Path

import pooch

from .errors import DatasetError


def download(url: str, path: Path, checksum: str | None) -> None:
    """Downloads one file; it appears under its name only when it is complete and right.

    Args:
        url: Where the file is.
        path: Where it goes.
        checksum: Its SHA-256, or `None` where none is known.

    Raises:
        DatasetError: If the file cannot be had or is not the one the checksum belongs to.
    """
    try:
        pooch.retrieve(
            url,
            known_hash=None if checksum is None else f"sha256:{checksum}",
            fname=path.name,
            path=path.parent,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"cannot download {url} ({reason}); fetch it by other means and put it at {path}"
        ) from error
