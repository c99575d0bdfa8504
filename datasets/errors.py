"""The error that every data set raises for bad input."""

LONGEST_SHOWN = 60


def visible(text: str) -> str:
    """Returns text with every control character and other unprintable one written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """Returns a value as an error shows it: quoted if it is text, and cut where it is long."""
    if isinstance(value, str):
        return repr(value[:LONGEST_SHOWN]) + ("…" if len(value) > LONGEST_SHOWN else "")
    text = str(value)
    return text[:LONGEST_SHOWN] + ("…" if len(text) > LONGEST_SHOWN else "")


class DatasetError(ValueError):
    r"""Bad input or a missing file: one line that names the file, the row and the remedy.

    Example:
        >>> from pathlib import Path
        >>> from pyg_lth.datasets import DatasetError, InteractionFile
        >>> _ = Path("log.csv").write_text("user_id,item_id\nanna,7\nben,\n")
        >>> try:
        ...     InteractionFile("data", "log.csv")
        ... except DatasetError as error:
        ...     print(error)
        log.csv, line 3: empty id in column 'item_id'; give every row one, or set `drop_missing`
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))
