"""The command line in a process of its own, which finds code exactly as this process does."""

import json
import sys

# Isolated, Python leaves the current folder out of the search: a file there may be called as a
# module is. Then the search is that of the parent.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {} import main; main()"
)


def command_line(*arguments: str, module: str = "pyg_lth.cli") -> list[str]:
    """The program and its arguments that run ``main`` of a module, by default ``pyg-lth``."""
    return [sys.executable, "-I", "-c", _PROGRAM.format(module), json.dumps(sys.path), *arguments]
