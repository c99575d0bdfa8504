"""The exceptions for what a user can put right, and the warning for what a user should know."""


class InputError(ValueError):
    """A graph, setting or run folder that cannot be used as given.

    Its message is one line that names what is wrong and the remedy; the command line prints it and
    exits with code 2.

    Example:
        >>> import pyg_lth
        >>> from torch_geometric.data import HeteroData
        >>> try:
        ...     pyg_lth.train(HeteroData())
        ... except pyg_lth.InputError as error:
        ...     print(error)
        the graph needs node types 'user' and 'item' and edge type ('user', 'rates', 'item'); ...
    """


# The exit code of a command whose run folder another process has.
IN_USE = 3


# What Python calls not printable and a terminal shows as space or end of line.
SPACES = "\n\u00a0\u3000"


def printable(text: str) -> str:
    """A text whose control characters and the like are written as escapes."""
    return "".join(c if c.isprintable() or c in SPACES else ascii(c)[1:-1] for c in text)


def encodable(text: str) -> str:
    """A text without what UTF-8 has no bytes for, such as the bytes of a file name in no code."""
    return text.encode(errors="backslashreplace").decode()


class FolderInUse(InputError):
    """A run folder that another process owns; the command line exits with code 3."""


class RunWarning(UserWarning):
    """What a user should know of a run: what was damaged and is done again, or was not checked."""


# The exit code of a command that stopped because another worker of its run had.
LOST = 4


class WorkerLost(InputError):
    """Another worker of the run has ended; the command line exits with code 4."""
