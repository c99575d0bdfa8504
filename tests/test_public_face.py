import ast
import subprocess
import sys
from pathlib import Path

import pyg_lth


def test_every_public_name_can_be_imported():
    assert all(getattr(pyg_lth, name) is not None for name in pyg_lth.__all__)


def test_completion_shows_the_public_names_and_nothing_else():
    script = """
import rlcompleter
import pyg_lth
import pyg_lth.datasets, pyg_lth.cli, pyg_lth.pruning.masks
pyg_lth.find_tickets
assert dir(pyg_lth) == sorted(pyg_lth.__all__), dir(pyg_lth)
completer = rlcompleter.Completer({"pyg_lth": pyg_lth})
found = []
while (match := completer.complete("pyg_lth.", len(found))) is not None:
    found.append(match.removeprefix("pyg_lth.").rstrip("()"))
assert sorted(found) == dir(pyg_lth), found
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_message_of_the_library_names_a_flag():
    """Only the command line knows flags; the library names settings."""
    package = Path(pyg_lth.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                texts = [n.value for n in ast.walk(node.exc) if isinstance(n, ast.Constant)]
                found += [text for text in texts if isinstance(text, str) and " --" in f" {text}"]
    assert [text for text in found if "pip install" not in text] == []
