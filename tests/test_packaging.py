import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """An sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return folder


def test_the_wheel_holds_the_mapped_packages_and_types(distributions):
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "pyg_lth/__init__.py",
        "pyg_lth/py.typed",
        "pyg_lth/cli/__init__.py",
        "pyg_lth/datasets/__init__.py",
    } <= names
    assert not [name for name in names if name.startswith(("cli/", "datasets/", "tests/"))]


def test_the_installed_wheel_works_away_from_the_repository(distributions, tmp_path):
    (wheel,) = distributions.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", "site", wheel],
        cwd=tmp_path,
        check=True,
    )
    script = (
        "import pyg_lth, pyg_lth.datasets, sys; from pyg_lth.cli import main;"
        "assert 'site' in pyg_lth.datasets.__file__;"
        "sys.argv = ['pyg-lth', 'datasets', 'list', '--json']; main()"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
