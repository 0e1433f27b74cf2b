"""NYU Depth V2: coloured labels to indoor photographs, from the labelled `.mat` file (HDF5) and the official splits."""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from msgunet.core.errors import UserError
from msgunet.core.permissions import explain
from msgunet.data.base import DataSet, DataSetOptions, Kind, RawPair, Remote
from msgunet.data.registry import register_dataset

_PAIRS, _SPLITS, _CLASSES = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
_RAW_IDS = 894
_SITE = "http://horatio.cs.nyu.edu/mit/silberman/"


class NYUOptions(DataSetOptions):
    """The labels that are coloured. The paper does not report which labels it used."""

    classes: Literal["raw", "40"] = Field(
        "raw", description=f"all {_RAW_IDS} label ids, or the 40 classes of Gupta et al. 2013 ({_CLASSES})"
    )


@register_dataset("nyu")
class NYU(DataSet):
    """Label ids as well-separated colours, with unlabelled pixels black."""

    title = "NYU Indoor RGBD"
    licence = "NYU Depth V2, for research"
    source_url = _SITE
    Options = NYUOptions

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return "labels", "photo"

    @classmethod
    def remotes(cls, options: Any) -> tuple[Remote, ...]:
        pairs, splits = f"{_SITE}nyu_depth_v2/{_PAIRS}", f"{_SITE}indoor_seg_sup/{_SPLITS}"
        md5 = ("md5:520609c519fba3ba5ac58c8fefcc3530", "md5:08e3c3aea27130ac7c01ffd739a4535f")
        remotes = [
            Remote(_PAIRS, (pairs,), f"2.97 GB, from {pairs}", size=2_972_037_809, checksum=md5[0]),
            Remote(_SPLITS, (splits,), f"from {splits}", checksum=md5[1]),
        ]
        if options.classes == "40":
            remotes.append(Remote(_CLASSES, (), "the mapClass table of Gupta et al. 2013, from its authors"))
        return tuple(remotes)

    def count(self) -> tuple[int, int]:
        return 795, 654

    def pairs(self, work: Path) -> list[RawPair]:
        import h5py
        from scipy.io import loadmat

        try:
            file = h5py.File(self.archives / _PAIRS, "r")
            splits = loadmat(str(self.archives / _SPLITS))
            numbers = {"train": splits["trainNdxs"].ravel() - 1, "test": splits["testNdxs"].ravel() - 1}
            count = min(len(file["images"]), len(file["labels"]))
            table = np.arange(_RAW_IDS + 1)
            if self.options.classes == "40":
                table[1:] = loadmat(str(self.archives / _CLASSES))["mapClass"].ravel()
        except PermissionError as error:
            # HDF5's error does not say which file.
            raise UserError(explain(error, error.filename or self.archives / _PAIRS)) from error
        except (OSError, KeyError, ValueError, NotImplementedError) as error:
            files = ", ".join(remote.name for remote in self.remotes(self.options))
            raise UserError(f"{self.archives}: one of {files} is damaged ({error}); fetch them again") from error
        beyond = [int(i) + 1 for indices in numbers.values() for i in indices if not 0 <= i < count]
        if beyond:
            raise UserError(f"{_SPLITS} lists {len(beyond)} images beyond the {count} of {_PAIRS}: {beyond[:10]}")
        colours = palette(_RAW_IDS + 1)[table]
        return [
            RawPair(f"{index + 1:04d}", split, functools.partial(_load, file, index, colours), f"{_PAIRS}, {index + 1}")
            for split, indices in numbers.items()
            for index in sorted(map(int, indices))
        ]


def palette(count: int) -> np.ndarray:
    """Return colours (count, 3), uint8, for up to 1000 label ids.

    Any two colours differ by at least 28 levels in a channel. Id 0 is black. The colours form a grid of ten levels per
    channel, ordered so that neighbouring ids are far apart.
    """
    levels = np.linspace(0, 255, 10).round().astype(np.uint8)
    cell = np.arange(count) * 619 % 1000  # 619 and 1000 are coprime, so that no cell occurs twice
    return levels[np.stack((cell // 100, cell // 10 % 10, cell % 10), 1)]


def _load(file: Any, index: int, colours: np.ndarray) -> dict[str, Image.Image]:
    # HDF5 returns MATLAB's axes reversed: (3, width, height) and (width, height).
    try:
        ids, photo = file["labels"][index].T, file["images"][index].transpose(2, 1, 0)
    except OSError as error:
        raise UserError(f"{_PAIRS}, image {index + 1} is damaged ({error}); fetch the file again") from error
    if ids.max() >= len(colours):
        raise UserError(
            f"{_PAIRS}, image {index + 1}: label id {ids.max()} is above the largest id, {len(colours) - 1}"
        )
    return {"source": Image.fromarray(colours[ids]), "target": Image.fromarray(np.ascontiguousarray(photo))}
