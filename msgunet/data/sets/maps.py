"""Aerial photographs to maps (Isola et al. 2017), from `maps.tar.gz`."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from msgunet.core.settings import RGB, ImageFormat
from msgunet.data.base import DataSet, RawPair, Remote
from msgunet.data.images import read
from msgunet.data.registry import register_dataset
from msgunet.data.unpack import unpack_tar

_MEMBER = re.compile(r"maps/(train|val)/(\d+)\.jpg")
_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/maps.tar.gz"
# The address where it was first published.
_OLD_URL = "https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets/maps.tar.gz"


@register_dataset("maps")
class Maps(DataSet):
    """Each image contains the photograph on the left and the map on the right."""

    title = "Aerial Images to Maps"
    licence = "Google Maps imagery, published by the authors of Pix2Pix for research"
    source_url = _URL

    @classmethod
    def remotes(cls, options: Any) -> tuple[Remote, ...]:
        # No checksum is published. gzip's own checksum detects a damaged archive, and every image is decoded.
        return (Remote("maps.tar.gz", (_URL, _OLD_URL), f"250 MB, from {_URL}", size=250_242_400),)

    def count(self) -> tuple[int, int]:
        return 1096, 1098

    def pairs(self, work: Path) -> list[RawPair]:
        pairs = []
        for match, file in unpack_tar(self.archives / "maps.tar.gz", work, _MEMBER):
            split = "train" if match[1] == "train" else "test"
            load = functools.partial(load_side_by_side, file, match[0])
            pairs.append(RawPair(f"{match[1]}_{int(match[2]):04d}", split, load, name=match[0]))
        return sorted(pairs, key=lambda pair: pair.id)


def load_side_by_side(
    file: Path, name: str, source_left: bool = True, image_format: ImageFormat = RGB
) -> dict[str, np.ndarray]:
    """Return source and target from one image with both side by side. The middle column of an odd width is dropped.

    Values outside the range are not clipped.
    """
    pixels = read(file, name, image_format, clip=False)
    half = pixels.shape[1] // 2
    left, right = pixels[:, :half], pixels[:, -half:]
    return {"source": left, "target": right} if source_left else {"source": right, "target": left}
