"""Methods by name: MSG U-Net, one file for each method in `baselines`, and files of a user's own."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgunet.core.errors import UserError
from msgunet.core.registry import Registry, nearest, register
from msgunet.methods.method_file import TABLES, MethodFile, load_method_file

if TYPE_CHECKING:
    from msgunet.core.settings import Network, RunSettings
    from msgunet.methods.method import Method

_REGISTRY: Registry["Method"] = Registry("method", "msgunet.methods.msgunet", "baselines")

methods = _REGISTRY.all


def register_method(name: str) -> Callable[[type], type]:
    """Decorator: make a `Method` known to suites, tables and tests under `name`.

    A method in a user's own file is known to the entries of a suite that name this file, and to nobody else.
    """

    def add(cls: type) -> type:
        own = TABLES.get(cls.__module__)
        if own is None:
            return _REGISTRY.register(name)(cls)
        if name in own:
            raise ValueError(f"{name!r} is registered twice")
        return register(own, name, cls)

    return add


def custom_methods(file: str, code: str | None = None, again: bool = False) -> MethodFile:
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
        UserError: there is none; it suggests the nearest name.

    """
    if file is None:
        return _REGISTRY.get(name)
    known = custom_methods(file, code).methods
    if name not in known:
        raise UserError(f"unknown method '{name}' in {file}: {nearest(name, known)}")
    return known[name]


def method_of(settings: "RunSettings | Network") -> type["Method"]:
    """The method of a run or of a network in the cost table."""
    return get_method(settings.method, settings.file, settings.code)


def build_method(settings: "RunSettings | Network") -> "Method":
    """The method of a run or of a network in the cost table, with its options validated."""
    cls = method_of(settings)
    return cls(cls.Options.model_validate(settings.options), settings.size, settings.channels)
