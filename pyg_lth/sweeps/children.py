"""The command line in a process of its own, which finds code exactly as this process does."""

import json
import sys

# Isolated, Python leaves the current folder out of the search: a file there may be called as a
# module is. Then the search is that of the parent.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from pyg_lth.cli import main; main()"
)


def command_line(*arguments: str) -> list[str]:
    """The program and its arguments that run ``pyg-lth`` with some arguments."""
    return [sys.executable, "-I", "-c", _PROGRAM, json.dumps(sys.path), *arguments]
