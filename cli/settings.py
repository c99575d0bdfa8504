"""Settings of a command: options made from pydantic fields, defaults < file < flags."""

import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pyg_lth.config import PruneConfig, TrainConfig
from pyg_lth.datasets import DatasetOptions
from pyg_lth.errors import InputError
from pyg_lth.settings_file import read_settings
from pyg_lth.strategies import Registry

Settings = TypeVar("Settings", bound=BaseModel)
Function = TypeVar("Function", bound=Callable[..., Any])


class TrainSettings(TrainConfig, DatasetOptions):
    """Everything that shapes a dense training, the data set included."""


class PruneSettings(PruneConfig, DatasetOptions):
    """Everything that shapes a ticket search, the data set included."""


class InOrder(click.Group):
    """Commands in the order in which they were added, the main one first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


def options_of(
    model: type[BaseModel], skip: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Decorate a command with one option for each field of ``model``.

    An option that is not given is :obj:`None`, so that it can be told from a given default.

    Args:
        model: Settings whose field names are the flags.
        skip: Fields without a flag.
    """

    def decorate(function: Function) -> Function:
        for name, field in reversed(model.model_fields.items()):
            if name not in skip:
                form = _click_type(field)
                # A flag that is not given says nothing, so that a file can still say something.
                # What is off unless a file or a preset says otherwise can be put off again.
                back = f"/--no-{flag(name)[2:]}" if field.default is False else ""
                function = click.option(
                    flag(name) + back,
                    name,
                    type=form,
                    is_flag=form is bool,
                    default=None,
                    help=_help(field),
                )(function)
        return function

    return decorate


def build(
    model: type[Settings],
    file: Path | None,
    given: dict[str, Any],
    base: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda chosen: {},
) -> Settings:
    """Build settings from defaults, a preset, then a file, then the flags that were given.

    Args:
        model: The settings to build.
        file: A YAML or JSON file whose keys are fields of ``model``, if there is one.
        given: Values of the flags, :obj:`None` where not given.
        base: Takes what file and flags say and changes some of the other defaults, of fields that
            ``model`` may lack.

    Raises:
        InputError: If the file is not such a file, or a value is refused.
    """
    flags = {name: value for name, value in given.items() if value is not None}
    chosen = {**({} if file is None else read_settings(file)), **flags}
    known = {name: value for name, value in base(chosen).items() if name in model.model_fields}
    try:
        return model.model_validate({**known, **chosen})
    except ValidationError as error:
        raise InputError(
            explain(error, lambda name: flag(name) if name in flags else f"{file}: {name}")
        ) from None


def explain(error: ValidationError, name_of: Callable[[str], str]) -> str:
    """Tell the first of the problems in one line.

    Args:
        error: The problems.
        name_of: What the user calls a field.
    """
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = name_of(str(problem["loc"][0]))
    if problem["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    return f"{name} {problem['input']}: {message}"


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def written(settings: Mapping[str, Any]) -> list[str]:
    """The options that give settings their values, an argument each; a flag not set gives none."""
    given = ((flag(name), value) for name, value in settings.items() if value is not False)
    return [option if value is True else f"{option}={value}" for option, value in given]


def in_flags(message: str) -> str:
    """Turn the settings that a message of the library names, as in `lr=0.1`, into flags."""

    def turn(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in _FLAGS:
            return found[0]
        return _FLAGS[name] if value is None else f"{_FLAGS[name]} {value}"

    return re.sub("`([a-z_]+)(?:=([^`]*))?`", turn, message)


_FLAGS = {name: flag(name) for name in PruneSettings.model_fields}
# What the library is told beside the settings.
_FLAGS |= {"run_dir": "--out", "resume": "--resume", "round": "--round", "workers": "--workers"}
_FLAGS |= {
    name: flag(name) for name in ("engine", "jobs", "cpus_per_run", "gpus_per_run", "ray_address")
}


def _click_type(field: FieldInfo) -> Any:
    for registry in field.metadata:
        if isinstance(registry, Registry):
            return click.Choice(registry.names())
    annotation = field.annotation
    if get_origin(annotation) in (types.UnionType, Union):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    return annotation


def _help(field: FieldInfo) -> str:
    default = "" if field.default is None else f"  [default: {field.default}]"
    return in_flags(f"{field.description}{default}")
