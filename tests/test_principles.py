"""That the tests which principles and SECURITY.md name exist, and those without another home."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "principles.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
NAMED = re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE + SECURITY)
SOURCES = [path for name in ("pyg_lth", "datasets", "cli") for path in (ROOT / name).rglob("*.py")]


def tree_of(path):
    return ast.parse(path.read_text(), str(path))


def imports_of(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # A module may be imported by its name too.
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize(("file", "test"), NAMED, ids="::".join)
def test_a_test_that_the_page_names_is_there(file, test):
    defined = {node.name for node in tree_of(ROOT / file).body if hasattr(node, "name")}
    assert test in defined


@pytest.mark.parametrize("page", [PAGE, SECURITY.partition("## What is not")[0]])
def test_every_principle_names_a_test(page):
    principles = re.split(r"^\*\*", page, flags=re.MULTILINE)[1:]
    assert len(principles) > 7
    without = [text.partition("**")[0] for text in principles if "::test_" not in text]
    assert not without


def within(name, *packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("pyg_lth", ("pyg_lth.cli", "pyg_lth.datasets", "click")),
        ("pyg_lth/pruning", ("pyg_lth.lottery", "pyg_lth.results", "pyg_lth.reporting")),
        ("pyg_lth/evaluation", ("pyg_lth.lottery", "pyg_lth.results", "pyg_lth.reporting")),
        ("pyg_lth/results", ("pyg_lth.lottery", "pyg_lth.reporting")),
        ("pyg_lth/lottery", ("pyg_lth.reporting", "pyg_lth.tickets", "pyg_lth.sweeps")),
    ],
)
def test_arrows_run_one_way(folder, forbidden):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in files
        for name in imports_of(path)
        if within(name, *forbidden)
    }
    assert not wrong


def test_the_data_sets_know_nothing_of_the_science():
    wrong = {
        (path.name, name)
        for path in (ROOT / "datasets").rglob("*.py")
        for name in imports_of(path)
        if within(name, "pyg_lth") and not within(name, "pyg_lth.datasets")
    }
    assert not wrong


def test_nothing_unpickles():
    for path in SOURCES:
        assert not [name for name in imports_of(path) if within(name, "pickle", "joblib", "dill")]
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        assert "torch.load" not in {ast.unparse(call.func) for call in calls}, path


def calls_in(path):
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    return {ast.unparse(call.func) for call in calls}, calls


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_evaluated_or_handed_to_a_shell(path):
    called, calls = calls_in(path)
    assert not called & {"eval", "exec", "compile", "os.system", "os.popen", "yaml.unsafe_load"}
    assert not [c for c in calls for keyword in c.keywords if keyword.arg == "shell"]
    assert not called & {"subprocess.getoutput", "asyncio.create_subprocess_shell"}


def test_no_archive_is_unpacked():
    for path in SOURCES:
        assert not [name for name in imports_of(path) if within(name, "tarfile", "patoolib")]
        called, _ = calls_in(path)
        assert not {
            name for name in called if name.endswith(("extract", "extractall", "unpack_archive"))
        }


def test_tests_mirror_the_package():
    """Every wing has a folder of tests."""
    wings = {path.name for path in (ROOT / "pyg_lth").iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    assert wings <= folders
