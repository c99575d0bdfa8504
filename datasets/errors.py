"""The error that every data set raises for bad input."""


class DatasetError(ValueError):
    """Bad input or a missing file: one line that names the file, the row and the remedy."""
