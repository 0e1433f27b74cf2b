"""The registry of data sets. To add one, add a file to `msgunet/data/sets`."""

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
    """Return the published files of all data sets by file name."""
    return {r.name: r for cls in datasets().values() for r in cls.remotes(cls.Options.model_construct())}


def build_dataset(settings: "DataSetSettings", archives: "Path") -> "DataSet":
    """Build the data set that `settings` describe. `archives` is the folder with its published files.

    Raises:
        UserError: the data set does not exist, or its options are invalid.

    """
    cls = get_dataset(settings.kind)
    try:
        dataset = cls(cls.Options.model_validate(settings.options), settings.size, archives)
    except ValidationError as error:
        problems = (f"{settings.kind}: {'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        raise UserError(*problems) from error
    dataset.resampling, dataset.train_size = settings.resampling, settings.train_size
    return dataset
