"""The error that every data set raises for bad input."""


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
        log.csv, line 3: empty id in column 'item_id'; give every row a user and an item
    """
