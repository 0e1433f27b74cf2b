"""Methods by name: MSG U-Net, the methods in `baselines` (one file each), and custom methods."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgunet.core.bugs import MethodBug
from msgunet.core.errors import UserError
from msgunet.core.registry import Registry, register, suggest
from msgunet.methods.method_file import REGISTERED, MethodFile, load_method_file

if TYPE_CHECKING:
    from msgunet.core.settings import Network, RunSettings
    from msgunet.methods.method import Method

_REGISTRY: Registry["Method"] = Registry("method", "msgunet.methods.msgunet", "baselines")

methods = _REGISTRY.all


def register_method(name: str) -> Callable[[type], type]:
    """Return a decorator that registers a `Method` under `name` for suites, tables and tests.

    A custom method is visible only to the suite entries that name its file.
    """

    def add(cls: type) -> type:
        table = REGISTERED.get(cls.__module__)
        if table is None:
            return _REGISTRY.register(name)(cls)
        if name in table:
            raise ValueError(f"{name!r} is registered twice")
        return register(table, name, cls)

    return add


def custom_methods(file: str, code: str | None = None, reload: bool = False) -> MethodFile:
    """Return the custom methods in a file (see `load_method_file`).

    Raises:
        UserError: the file cannot be loaded, the hash of its code is not `code`, or it registers the name of a built-in
            method.

    """
    loaded = load_method_file(file, code, reload)
    if taken := sorted(loaded.methods.keys() & methods().keys()):
        names = ", ".join(f"'{name}'" for name in taken)
        raise UserError(f"{file} registers {names}, already the name of a built-in method; choose another name")
    return loaded


def get_method(name: str, file: str | None = None, code: str | None = None) -> type["Method"]:
    """Return the built-in method called `name`, or the custom one in `file`, whose code must have the hash `code`.

    Raises:
        UserError: the method does not exist; the message suggests the nearest name.

    """
    if file is None:
        return _REGISTRY.get(name)
    try:
        known = custom_methods(file, code).methods
    except MethodBug as bug:
        if bug.method:
            raise
        raise bug.of(name) from bug
    if name not in known:
        raise UserError(f"unknown method '{name}' in {file}: {suggest(name, known)}")
    return known[name]


def method_of(settings: "RunSettings | Network") -> type["Method"]:
    """Return the method of a run or of a network in the cost table."""
    return get_method(settings.method, settings.file, settings.code)


def build_method(settings: "RunSettings | Network") -> "Method":
    """Build the method of a run or of a network in the cost table, with validated options."""
    cls = method_of(settings)
    return cls(cls.Options.model_validate(settings.options), settings.size, settings.channels)
