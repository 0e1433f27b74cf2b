"""Finding classes by name: what the registries of methods and data sets have in common."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import Generic, TypeVar

import lazy_loader

from msgunet.core.errors import UserError

Class = TypeVar("Class")


class Registry(Generic[Class]):
    """Classes by name, registered by a decorator in the modules of some packages.

    Modules whose name ends in `networks` are left out: they import torch, and are loaded when a network is built.
    """

    def __init__(self, what: str, *places: str) -> None:
        """`what` errors call a class; `places`: modules and packages that register classes."""
        self._what = what
        self._places = places
        self._classes: dict[str, type[Class]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[type], type]:
        """Decorator: register a class under `name`, which becomes its attribute `name`.

        Raises:
            ValueError: another module has registered this name.

        """
        return lambda cls: register(self._classes, name, cls)

    def all(self) -> dict[str, type[Class]]:
        """All registered classes, by name."""
        if not self._complete:
            for place in self._places:
                # A module has no modules in it, a package has.
                inside = getattr(importlib.import_module(place), "__path__", ())
                for module in pkgutil.iter_modules(inside):
                    if not module.name.endswith("networks"):
                        importlib.import_module(f"{place}.{module.name}")
            self._complete = True
        return dict(sorted(self._classes.items()))

    def get(self, name: str) -> type[Class]:
        """The class registered under `name`.

        Raises:
            UserError: there is none; it suggests the nearest name.

        """
        known = self.all()
        if name not in known:
            raise UserError(f"unknown {self._what} '{name}': {nearest(name, known)}")
        return known[name]


def register(table: dict[str, type[Class]], name: str, cls: type[Class]) -> type[Class]:
    """Put a class into a table of names; see `Registry.register`."""
    if name in table and table[name].__module__ != cls.__module__:
        raise ValueError(f"{name!r} is registered twice: in {table[name].__module__} and in {cls.__module__}")
    cls.name = name
    table[name] = cls
    return cls


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not in `known`: the nearest one, or all of them."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known are: {', '.join(names)}" if names else "there are none"


def lazy_import(name: str) -> ModuleType:
    """Import a module when it is first used: method files stay free of torch until a network is built."""
    return lazy_loader.load(name, error_on_import=True, suppress_warning=True)
