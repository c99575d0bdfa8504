"""The examples of docstrings and pages, run as a reader would: one by one, in an empty folder."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import pyg_lth
import pyg_lth.datasets

ROOT = Path(__file__).parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
README = (ROOT / "README.md").read_text()


def docstrings():
    """The examples of each docstring, which have to import what they use."""
    found = {
        module.name
        for package in (pyg_lth, pyg_lth.datasets)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    # The kernels are a library, but not one of Python, and those for CUDA need Triton.
    for name in sorted(found - {"pyg_lth.kernels.compiled", "pyg_lth.kernels.on_cuda"}):
        yield from doctest.DocTestFinder().find(importlib.import_module(name), globs={})


def pages():
    """The examples of each page, which go on from one to the next."""
    for path in sorted(ROOT.glob("docs/*.md")):
        # To doctest, the end of a fence would be output.
        text = re.sub("^```.*", "", path.read_text(), flags=re.MULTILINE)
        name = path.relative_to(ROOT).as_posix()
        yield doctest.DocTestParser().get_doctest(text, {}, name, str(path), 0)


EXAMPLES = [test for test in (*docstrings(), *pages()) if test.examples]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_an_example_prints_what_it_says(example):
    printed = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    failed, _ = runner.run(example, out=printed.append, clear_globs=False)
    assert not failed, "".join(printed)


@pytest.mark.parametrize("package", [pyg_lth, pyg_lth.datasets], ids=lambda p: p.__name__)
def test_every_public_name_has_an_example(package):
    public = (getattr(package, name) for name in package.__all__)
    documented = [found for found in public if hasattr(found, "__qualname__")]
    names = {f"{found.__module__}.{found.__qualname__}" for found in documented}
    assert not names - {test.name for test in EXAMPLES}


@pytest.mark.parametrize("code", re.findall("```python\n(.*?)```", README, re.DOTALL))
def test_the_code_of_the_readme_runs(code, monkeypatch):
    monkeypatch.setattr(pyg_lth.datasets, "Gowalla", pyg_lth.datasets.Synthetic, raising=False)
    rows = [f"{user},{item},{(user + item) % 9}" for user in range(9) for item in range(9)]
    Path("log.csv").write_text("\n".join(["user_id,item_id,when", *rows]))
    exec(code.replace("rounds=5", "rounds=1, max_epochs=5"), {})
