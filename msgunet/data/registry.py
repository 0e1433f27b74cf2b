"""Data sets by name: a new one is a new file in `msgunet/data/sets`."""

from typing import TYPE_CHECKING

from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from msgunet.core.settings import DataSetSettings
    from msgunet.data.base import DataSet, Remote

_REGISTRY: Registry["DataSet"] = Registry("data set", "msgunet.data.sets")

register_dataset = _REGISTRY.register
datasets = _REGISTRY.all
get_dataset = _REGISTRY.get


def remote_files() -> dict[str, "Remote"]:
    """The published files of all data sets, by their name."""
    return {r.name: r for cls in datasets().values() for r in cls.remotes(cls.Options.model_construct())}


def build_dataset(settings: "DataSetSettings", archives: "Path") -> "DataSet":
    """The data set that `settings` describe; `archives`: the folder with its published files.

    Raises:
        UserError: there is no such data set, or its options are wrong.

    """
    cls = get_dataset(settings.kind)
    try:
        return cls(cls.Options.model_validate(settings.options), settings.size, archives)
    except ValidationError as error:
        problems = (f"{settings.kind}: {'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        raise UserError(*problems) from error
