"""A file of settings, YAML or JSON, read alike."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pyg_lth.errors import InputError


class _Loader(yaml.SafeLoader):
    """Leaves all values but null as they are written, and refuses a key that stands twice.

    YAML 1.1 takes ``1e-3`` for text and ``no`` for a truth value; the settings know better what
    they are.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dictionary of a mapping."""
        keys = [key.value for key, _ in node.value]
        for key, (place, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{key} stands there twice", problem_mark=place.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_settings(file: Path) -> dict[str, Any]:
    """Read a file of settings; every value but null is text, as it is written there.

    Args:
        file: One JSON object, or one YAML mapping.

    Raises:
        InputError: If it is neither, or a name stands there twice.

    Example:
        >>> from pathlib import Path
        >>> from pyg_lth.settings_file import read_settings
        >>> _ = Path("a.yaml").write_text("lr: 1e-3  # of Adam")
        >>> _ = Path("b.json").write_text('{"lr": 1e-3}')
        >>> read_settings(Path("a.yaml")) == read_settings(Path("b.json")) == {"lr": "1e-3"}
        True
    """
    try:
        content = _parse(file.read_text(encoding="utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{file}{line}: {error.problem}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file} is neither YAML nor JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold one 'name: value' a line, or one JSON object")
    return content


def _parse(text: str) -> Any:
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(
            text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_mapping
        )
    # A SafeLoader, which builds no objects.
    return yaml.load(text, _Loader)  # nosec B506


def _mapping(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key} stands there twice")
        found[key] = value
    return found
