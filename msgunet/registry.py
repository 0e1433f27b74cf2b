"""Where methods and data sets are found by name.

A class registers itself by a decorator. Every module of `baselines` and of `msgunet.data.sets` is looked through, so
a new method or data set is a new file there and nothing else. A file of a user's own, which a suite names, keeps its
methods to itself (`msgunet/method_file.py`).
"""

import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from msgunet.errors import UserError
from msgunet.method_file import TABLES, MethodFile, load_method_file

if TYPE_CHECKING:
    from pathlib import Path

    from msgunet.config import DataSetSettings, Network, RunSettings
    from msgunet.data.base import DataSet, Remote
    from msgunet.method import Method

_METHODS: dict[str, type["Method"]] = {}
_DATASETS: dict[str, type["DataSet"]] = {}


def lazy_import(name: str) -> ModuleType:
    """Import a module when it is first used: method files stay free of torch until a network is built."""
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


def _register(table: dict[str, Any], name: str) -> Callable[[type], type]:
    def add(cls: type) -> type:
        if name in table and table[name].__module__ != cls.__module__:
            raise ValueError(f"{name!r} is registered twice: in {table[name].__module__} and in {cls.__module__}")
        cls.name = name
        table[name] = cls
        return cls

    return add


def register_method(name: str) -> Callable[[type], type]:
    """Decorator: make a `msgunet.method.Method` known to suites, tables and tests under `name`."""

    def add(cls: type) -> type:
        own = TABLES.get(cls.__module__)
        if own is not None and name in own:
            raise ValueError(f"{name!r} is registered twice")
        return _register(_METHODS if own is None else own, name)(cls)

    return add


def register_dataset(name: str) -> Callable[[type], type]:
    """Decorator: make a `msgunet.data.base.DataSet` known under `name`."""
    return _register(_DATASETS, name)


@functools.cache
def _import_all(package: str) -> None:
    # Modules of networks import torch; methods load them when a network is built.
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.name.endswith("networks"):
            importlib.import_module(f"{package}.{module.name}")


def methods() -> dict[str, type["Method"]]:
    """All registered methods by name."""
    importlib.import_module("msgunet.model")
    _import_all("baselines")
    return dict(sorted(_METHODS.items()))


def datasets() -> dict[str, type["DataSet"]]:
    """All registered data sets by name."""
    _import_all("msgunet.data.sets")
    return dict(sorted(_DATASETS.items()))


def nearest(name: str, known: list[str]) -> str:
    """A hint for a name that is not in `known`: the nearest right one, or all of them."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(known)}"


def own_methods(file: str, code: str | None = None, again: bool = False) -> MethodFile:
    """What a user's own file registers (see `load_method_file`).

    Raises:
        UserError: it cannot be loaded, its code is not `code`, or a name in it is that of a method of the project.

    """
    found = load_method_file(file, code, again)
    if taken := sorted(found.methods.keys() & methods().keys()):
        names = ", ".join(f"'{name}'" for name in taken)
        raise UserError(f"{file} registers {names}, which the project has already; choose another name")
    return found


def get_method(name: str, file: str | None = None, code: str | None = None) -> type["Method"]:
    """The method called `name`, of the project or of a user's own `file` with this `code`.

    Raises:
        UserError: there is none; it names the nearest that there is.

    """
    known = methods() if file is None else own_methods(file, code).methods
    if name not in known:
        raise UserError(f"unknown method '{name}'{f' in {file}' if file else ''}: {nearest(name, list(known))}")
    return known[name]


def get_dataset(name: str) -> type["DataSet"]:
    """The data set called `name`, or a UserError with the nearest right name."""
    known = datasets()
    if name not in known:
        raise UserError(f"unknown data set '{name}': {nearest(name, list(known))}")
    return known[name]


def remote_files() -> dict[str, "Remote"]:
    """The published files of all data sets, by their name."""
    return {r.name: r for cls in datasets().values() for r in cls.remotes(cls.Options.model_construct())}


def build_dataset(settings: "DataSetSettings", archives: "Path") -> "DataSet":
    """The data set that `settings` describe, on the folder with its published files.

    Raises:
        UserError: there is no such data set, or its options are wrong.

    """
    cls = get_dataset(settings.kind)
    try:
        return cls(cls.Options.model_validate(settings.options), settings.size, archives)
    except ValidationError as error:
        problems = (f"{settings.kind}: {'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        raise UserError(*problems) from error


def method_of(settings: "RunSettings | Network") -> type["Method"]:
    """The method of a run or of a row of the cost table."""
    return get_method(settings.method, settings.file, settings.code)


def build_method(settings: "RunSettings | Network") -> "Method":
    """The method of a run or of a row of the cost table, with its options validated."""
    cls = method_of(settings)
    return cls(cls.Options.model_validate(settings.options), settings.size, settings.channels)
