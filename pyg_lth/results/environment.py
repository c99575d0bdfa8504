"""What this machine has, as far as it can change a result or a time."""

import platform
from importlib import metadata
from typing import Any

import psutil
import torch

from pyg_lth import kernels
from pyg_lth.nn.propagation import BACKENDS, Propagation


def describe_environment() -> dict[str, Any]:
    """Versions of packages and Python, platform, threads, kernels or not, memory (bytes), GPU."""
    packages = ("pyg-lth", "torch", "torch-geometric", "numpy")
    cuda = torch.cuda.is_available()
    return {
        "packages": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "native_kernels": kernels.usable(torch.device("cpu")),
        "memory": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
    }


def differences(begun: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Hold what is here against where a run was begun.

    Args:
        begun: What :func:`describe_environment` said then.

    Returns:
        What forbids to continue the run here, and what may only change its last digits.
    """
    here = describe_environment()
    then, now = begun.get("packages", {}), here["packages"]
    refused = [
        f"{name} {then[name]}, and here is {now[name]}"
        for name in now
        # Runs of older releases of this package are continued as they were begun.
        if name != "pyg-lth" and name in then and _release(then[name]) != _release(now[name])
    ]
    told = [
        f"{name} {begun[key]}, and goes on with {here[key]}"
        for name, key in (("threads", "threads"), ("GPU", "gpu"), ("kernels", "native_kernels"))
        if key in begun and begun[key] != here[key]
    ]
    return refused, told


def _release(version: str) -> str:
    """A version without what tells builds apart, such as for a GPU."""
    return str(version).partition("+")[0]


def check_backends() -> dict[str, str]:
    """Try every propagation backend on a small graph, on the GPU where there is one.

    ``native`` is for the CPU and tried there in any case.

    Returns:
        For each backend ``ok``, or what is wrong with it.
    """
    edge_index = torch.tensor([[0, 0, 1, 2, 3, 4], [2, 3, 4, 0, 0, 1]])
    # As wide as it takes for every way in which the native product sums.
    x = torch.arange(250.0).view(5, 50)
    expected = torch.zeros(5, 5)
    degree = torch.bincount(edge_index[0]).float()
    expected[edge_index[0], edge_index[1]] = degree[edge_index].prod(dim=0).rsqrt()
    findings: dict[str, str] = {}
    for name in BACKENDS:
        device = "cuda" if torch.cuda.is_available() and name != "native" else "cpu"
        try:
            product = (Propagation(edge_index.to(device), 5, name) @ x.to(device)).cpu()
        except Exception as error:  # whatever a library here fails with is what is to be told
            findings[name] = str(error).partition("\n")[0] or type(error).__name__
        else:
            same = torch.allclose(product, expected @ x, rtol=0.01 if "bfloat16" in name else 1e-5)
            findings[name] = "ok" if same else "computes wrong products here: do not use it"
    return findings
