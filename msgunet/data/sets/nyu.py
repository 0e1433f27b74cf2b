"""NYU Depth V2: coloured labels to indoor photographs, from the labelled `.mat` file (HDF5) and the official splits."""

import colorsys
import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msgunet.data.base import DataSet, Kind, RawPair, missing_archives
from msgunet.errors import UserError
from msgunet.registry import register_dataset

_PAIRS, _SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"


@register_dataset("nyu")
class NYU(DataSet):
    """Raw label ids in well-separated colours, unlabelled pixels black."""

    title = "NYU Indoor RGBD"
    licence = "NYU Depth V2, for research"
    source_url = "http://horatio.cs.nyu.edu/mit/silberman/"

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return "labels", "photo"

    def missing(self) -> list[str]:
        wanted = {
            _PAIRS: f"2.97 GB, from {self.source_url}nyu_depth_v2/{_PAIRS}",
            _SPLITS: f"from {self.source_url}indoor_seg_sup/{_SPLITS}",
        }
        return missing_archives(self.mirror, wanted, "nyu")

    def pairs(self, work: Path) -> list[RawPair]:
        import h5py
        from scipy.io import loadmat

        try:
            file = h5py.File(self.mirror / _PAIRS, "r")
            splits = loadmat(str(self.mirror / _SPLITS))
            numbers = {"train": splits["trainNdxs"].ravel() - 1, "test": splits["testNdxs"].ravel() - 1}
            count = len(file["images"])
        except (OSError, KeyError, ValueError, NotImplementedError) as error:
            raise UserError(f"{self.mirror}: {_PAIRS} or {_SPLITS} is damaged ({error}); download again") from error
        found = []
        for split, indices in numbers.items():
            for index in sorted(int(i) for i in indices if i < count):
                decoders = functools.partial(_labels, file, index), functools.partial(_photo, file, index)
                found.append(RawPair(f"{index + 1:04d}", split, *decoders, name=f"{_PAIRS}, picture {index + 1}"))
        return found


def palette(count: int) -> np.ndarray:
    """Colours (count, 3) uint8 for label ids; id 0 (unlabelled) is black. Hues by the golden angle, three shades."""
    colours = np.zeros((count, 3), np.uint8)
    for i in range(1, count):
        rgb = colorsys.hsv_to_rgb(i * 0.618033988749895 % 1, (1.0, 0.55, 0.8)[i % 3], (1.0, 0.9, 0.6)[i // 3 % 3])
        colours[i] = [round(255 * v) for v in rgb]
    return colours


def _photo(file: Any, index: int) -> Image.Image:
    # MATLAB's axes arrive reversed: (3, width, height).
    return Image.fromarray(np.ascontiguousarray(file["images"][index].transpose(2, 1, 0)))


def _labels(file: Any, index: int) -> Image.Image:
    ids = file["labels"][index].T
    return Image.fromarray(palette(max(895, int(ids.max()) + 1))[ids])
