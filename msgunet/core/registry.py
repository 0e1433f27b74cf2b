"""Look-up of classes by name, shared by the registries of methods and data sets."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import Generic, TypeVar

from msgunet.core.errors import UserError
from msgunet.core.text import control_characters

Class = TypeVar("Class")


class Registry(Generic[Class]):
    """Classes by name, which the modules of given packages register with a decorator.

    Modules whose name ends in `networks` are skipped: they import torch, and are loaded only when a network is built.
    """

    def __init__(self, noun: str, *locations: str) -> None:
        """Create an empty registry.

        Args:
            noun: what error messages call a registered class, such as `method`.
            locations: modules and packages whose classes are registered; of a package, all modules in it.

        """
        self._noun = noun
        self._locations = locations
        self._classes: dict[str, type[Class]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[type], type]:
        """Return a decorator that registers a class under `name` and sets its attribute `name`.

        Raises:
            ValueError: another module has already registered this name, or a text for reports has control characters.

        """
        return lambda cls: register(self._classes, name, cls)

    def all(self) -> dict[str, type[Class]]:
        """Return all registered classes by name."""
        if not self._complete:
            for location in self._locations:
                # Only a package has a __path__; importing is enough for a plain module.
                search_path = getattr(importlib.import_module(location), "__path__", ())
                for module in pkgutil.iter_modules(search_path):
                    if not module.name.endswith("networks"):
                        importlib.import_module(f"{location}.{module.name}")
            self._complete = True
        return dict(sorted(self._classes.items()))

    def get(self, name: str) -> type[Class]:
        """Return the class registered under `name`.

        Raises:
            UserError: there is none; the message suggests the nearest name.

        """
        known = self.all()
        if name not in known:
            raise UserError(f"unknown {self._noun} '{name}': {suggest(name, known)}")
        return known[name]


def register(table: dict[str, type[Class]], name: str, cls: type[Class]) -> type[Class]:
    """Add a class to a table of names; see `Registry.register`.

    Raises:
        ValueError: another module has registered this name, or a text for reports has control characters.

    """
    for key in ("title", "reference", "licence", "source_url"):
        if found := control_characters(str(getattr(cls, key, ""))):
            raise ValueError(f"the {key} of {name!r} has the control character {', '.join(found)}; remove it")
    if name in table and table[name].__module__ != cls.__module__:
        raise ValueError(f"{name!r} is registered twice: in {table[name].__module__} and in {cls.__module__}")
    cls.name = name
    table[name] = cls
    return cls


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that is not in `known`: the nearest known name, or all of them."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"the known names are {', '.join(names)}" if names else "there are none"


def lazy_import(name: str) -> ModuleType:
    """Return a module that is imported on its first use, so that method files import no torch until a network is built.

    Raises:
        ModuleNotFoundError: there is no such module.

    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module
