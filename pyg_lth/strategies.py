"""Strategies by name: those of this package, a caller's own, and those of installed plugins.

A name is known before its strategy is imported, so that ``--help`` does not wait for torch.
"""

import dataclasses
import functools
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator

Strategy = TypeVar("Strategy")
Defaults = Mapping[str, Any]

# A distribution announces in this group of entry points the modules that register what it brings.
GROUP = "pyg_lth.plugins"


class PluginWarning(UserWarning):
    """An installed plugin that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Guest:
    """A strategy that this package does not bring.

    Args:
        kind: ``method``, ``backbone`` or ``loss``.
        name: What the settings call it.
        origin: The module that registered it.
        distribution: Name and version of what was installed, :obj:`None` for a caller's own module.
    """

    kind: str
    name: str
    origin: str
    distribution: str | None

    def __str__(self) -> str:
        source = self.origin if self.distribution is None else f"{self.distribution}, {self.origin}"
        return f"{self.kind} {self.name} ({source})"


@dataclasses.dataclass(frozen=True)
class Plugin:
    """An entry point of the group ``pyg_lth.plugins``.

    Args:
        name: Of the entry point.
        distribution: Name and version of what it was installed with.
        error: Why it cannot be used, :obj:`None` where it can.
    """

    name: str
    distribution: str
    error: str | None


class Registry(Generic[Strategy]):
    """The strategies of one kind.

    Args:
        kind: What it is a registry of, in the singular.
        module: The module of this package that registers its own when it is imported.
        builtin: Their names, each with the settings whose defaults follow from it.
    """

    def __init__(self, kind: str, module: str, builtin: Mapping[str, Defaults]):
        self._kind = kind
        self._module = module
        self._builtin = builtin
        self._known: dict[str, Strategy] = {}
        self._guests: dict[str, tuple[Guest, Defaults]] = {}

    def extend(self, module: str, strategies: Mapping[str, Strategy]) -> None:
        """Add what a module of this package brings."""
        for name, strategy in strategies.items():
            self.register(name, strategy, module, {})

    def register(self, name: str, strategy: Strategy, origin: str, defaults: Defaults) -> None:
        """Add a strategy.

        Raises:
            ValueError: If the name is malformed or taken.
        """
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(
                f"{name!r} cannot name a {self._kind}: take lower-case letters and digits, words "
                "joined by hyphens"
            )
        ours = name in self._builtin and origin == self._module
        if not ours and (name in self._known or name in self._builtin):
            raise ValueError(f"there is a {self._kind} {name!r} already: take another name")
        self._known[name] = strategy
        if name not in self._builtin:
            guest = Guest(self._kind, name, origin, _loading)
            self._guests[name] = guest, MappingProxyType(dict(defaults))

    def __getitem__(self, name: str) -> Strategy:
        if name in self._builtin:
            import_module(self._module)
        return self._known[self.check(name)]

    def names(self) -> list[str]:
        """All names, this package's first."""
        plugins()
        return [*self._builtin, *self._guests]

    def check(self, name: str) -> str:
        """Return a name that is known.

        Raises:
            ValueError: If it is not.
        """
        if name in self._builtin or name in self._guests or name in self.names():
            return name
        raise ValueError(
            f"there is no {self._kind} {name!r}: known are {', '.join(self.names())}; one of your "
            "own is known where it was registered, a plugin's everywhere"
        )

    def defaults(self, name: str) -> Defaults:
        """The settings whose defaults follow from a name; none from one that is not known."""
        if name in self._builtin:
            return self._builtin[name]
        plugins()
        return self._guests[name][1] if name in self._guests else {}

    def guest(self, name: str) -> Guest | None:
        """Where a strategy comes from, :obj:`None` if it is this package's own."""
        return self._guests[name][0] if name in self._guests else None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


# Of what type they are, the modules say that bring them.
METHODS: Registry[Any] = Registry(
    "method",
    "pyg_lth.lottery.methods",
    {
        **{"imp": {}, "oneshot": {}, "random": {}, "reinit": {}, "finetune": {}, "lr-rewind": {}},
        **{"rotate": {}, "rotate-lr-rewind": {}, "pep": {}, "snip": {}, "dynamic": {}},
        **{"narrow": {}, "shuffle": {}},
    },
)
BACKBONES: Registry[Any] = Registry(
    "backbone", "pyg_lth.nn.backbones", {"lightgcn": {"layers": 3}, "mf": {"layers": 0}}
)
# What trains cosines ranks by them too.
LOSSES: Registry[Any] = Registry(
    "loss",
    "pyg_lth.training.losses",
    {
        "bpr": {},
        "softmax": {"score": "cosine"},
        "corrected-softmax": {"score": "cosine"},
        "sampled-softmax": {"score": "cosine", "negatives": 1024},
        "ccl": {"score": "cosine", "negatives": 1024},
    },
)

MethodName = Annotated[str, AfterValidator(METHODS.check), METHODS]
ModelName = Annotated[str, AfterValidator(BACKBONES.check), BACKBONES]
LossName = Annotated[str, AfterValidator(LOSSES.check), LOSSES]


def guests_in(settings: Mapping[str, Any]) -> list[Guest]:
    """What settings name that this package does not bring."""
    named: dict[str, Registry[Any]] = {"model": BACKBONES, "loss": LOSSES, "method": METHODS}
    found = (kind.guest(settings[key]) for key, kind in named.items() if key in settings)
    return [guest for guest in found if guest is not None]


# What is being loaded, so that what it registers is known to be its own.
_loading: str | None = None


@functools.cache
def plugins() -> tuple[Plugin, ...]:
    """Load what other distributions announce; one that fails is warned of, and left out."""
    global _loading
    found = []
    for entry in metadata.entry_points(group=GROUP):
        release = entry.dist
        _loading = "?" if release is None else f"{release.name} {release.version}"
        error = None
        try:
            entry.load()
        except Exception as failure:  # Whatever a stranger's code may raise.
            error = " ".join(f"{type(failure).__name__}: {failure}".split())
            warnings.warn(
                f"plugin {entry.name} of {_loading} cannot be used: {error}",
                PluginWarning,
                stacklevel=2,
            )
        found.append(Plugin(entry.name, _loading, error))
    _loading = None
    return tuple(found)


def calling_module() -> str:
    """Name of the module that called the function that asks."""
    name: str = sys._getframe(2).f_globals.get("__name__", "?")
    return name
