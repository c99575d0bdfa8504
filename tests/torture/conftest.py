"""What the tortures share: how to compare what runs leave."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("seconds")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def written_in(folder: Path) -> dict[str, Any]:
    """What stands in the tensors, JSON and JSON lines of a folder, apart from times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        # An auxiliary table is needed by no round that is done.
        if path.name in ("auxiliary.safetensors", "data.json"):
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            lines = path.read_bytes().splitlines()
            found[name] = [without_times(json.loads(line)) for line in lines]
    return found


@pytest.fixture(scope="session")
def written() -> Callable[[Path], dict[str, Any]]:
    return written_in
