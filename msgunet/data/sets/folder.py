"""A user's own pairs: two folders with the same file names, or one folder of images with a pair side by side."""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from msgunet.core.errors import UserError
from msgunet.core.files import json_hash
from msgunet.core.settings import RGB, ImageFormat, later
from msgunet.data.base import DataSet, DataSetOptions, Fit, Kind, RawPair, Split
from msgunet.data.decode import FormatError
from msgunet.data.find import (
    SPLITS,
    SUFFIXES,
    find,
    folders_of,
    images_by_name,
    looks_like_a_split,
    name_of,
    not_read,
    unread,
)
from msgunet.data.images import fit_shape, read
from msgunet.data.outside import MOST
from msgunet.data.registry import register_dataset
from msgunet.data.sets.maps import load_side_by_side

_LISTED = 10
# In bytes. File names of 255 bytes have room for a longer id, which is cut to the other length.
_LONGEST_ID, _CUT_ID = 230, 120


class FolderOptions(DataSetOptions):
    """The folders of the images, and how the pairs are split."""

    source: str | None = Field(
        None,
        description="folder of the source images; 'target' has the same file names; FOLDER/*A stands for the folders "
        "trainA and testA in it",
    )
    target: str | None = Field(None, description="folder of the target images")
    pairs: str | None = Field(
        None, description="instead of 'source' and 'target': folder of images that contain a pair side by side"
    )
    source_side: Literal["left", "right"] = Field(
        "left", description="side of the source in images that contain a pair"
    )
    source_kind: Kind = Field(
        "photo", description="labels are resized with nearest neighbour, so that colours never mix"
    )
    target_kind: Kind = Field("photo", description="the same for the target")
    source_format: ImageFormat = Field(RGB, description="channels and value range of the source images")
    target_format: ImageFormat = Field(RGB, description="the same for the target images")
    fit: Fit = later(
        "stretch",
        "images of another aspect ratio than 'size': stretch changes their shape, crop keeps their centre, pad "
        "continues them as in a mirror; the same for both images of a pair",
    )
    allow_outside: bool = later(
        False,
        f"cut any number of values outside the range; by default, more than {100 * MOST:g} % of an image's pixels, or "
        "any of labels, are an error",
    )
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share of the pairs for testing, unless there are folders train and test (or val)"
    )
    split_seed: int = Field(0, ge=0, description="seed of the choice of test pairs")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.pairs is None) == (self.source is None) or (self.source is None) != (self.target is None):
            raise ValueError("give either 'source' and 'target', or 'pairs'")
        if self.pairs is not None and self.source_format != self.target_format:
            raise ValueError("in images that contain a pair, source_format and target_format must be the same")
        return self


@register_dataset("folder")
class Folder(DataSet):
    """Pairs matched by file name without extension; the subfolders train and test (or val) define the split."""

    title = "Custom images"
    licence = "the user's own"
    source_url = "a folder"
    redistributable = True
    version = 2
    Options = FolderOptions

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return options.source_kind, options.target_kind

    @classmethod
    def formats(cls, options: Any) -> tuple[ImageFormat, ImageFormat]:
        return options.source_format, options.target_format

    @classmethod
    def shaped(cls, options: Any) -> str:
        return {
            "crop": "images of other shapes cropped to their centre (fit: crop)",
            "pad": "images of other shapes padded as in a mirror (fit: pad)",
        }.get(options.fit, "")

    @classmethod
    def allows_outside(cls, options: Any) -> bool:
        return options.allow_outside

    @classmethod
    def own_files(cls, options: Any) -> list[tuple[str, int, int]]:
        found = ((str(path), path.stat()) for path in _all_images(options))
        return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in found]

    def inputs(self) -> list[Path]:
        return _all_images(self.options)

    def count(self) -> tuple[int, int]:
        splits = [pair.split for pair in self.pairs(Path())]
        return splits.count("train"), splits.count("test")

    def missing(self, downloads: bool = False) -> list[str]:
        return [f"{self.name}: there is no folder {place}" for place in _places(self.options) if not folders_of(place)]

    def pairs(self, work: Path) -> list[RawPair]:
        places = _places(self.options)
        found = [images_by_name(place) for place in places]
        names = sorted({name for images in found for name in images})
        if not names:
            raise UserError(
                f"no images in {' and '.join(map(str, places))} ({', '.join(sorted(SUFFIXES))})", *unread_in(places)
            )
        problems = []
        for place, images in zip(places, found, strict=True):
            if unpaired := [name for name in names if name not in images]:
                listed = ", ".join(unpaired[:_LISTED])
                images = "1 image has" if len(unpaired) == 1 else f"{len(unpaired)} images have"
                problems += [f"{images} no counterpart in {place}: {listed}", *not_read(_others(place, unpaired))]
        if problems:
            raise UserError(*problems)
        splits, ids = self._splits(names), _ids(names)
        pairs = []
        for name in names:
            paths = [images[name] for images in found]
            if len(paths) == 1:
                left = self.options.source_side == "left"
                load = functools.partial(load_side_by_side, paths[0], str(paths[0]), left, self.options.source_format)
            else:
                load = functools.partial(_load, *paths, *self.formats(self.options))
            load = functools.partial(_fitted, load, self.size, self.options.fit)
            title, files = " and ".join(map(str, paths)), (str(paths[0]), str(paths[-1]))
            pairs.append(RawPair(ids[name], splits[name], load, name=title, files=files))
        return pairs

    def _splits(self, names: list[str]) -> dict[str, Split]:
        tops = {name: name.split("/")[0].lower() for name in names}
        outside = [name for name, top in tops.items() if top not in SPLITS or "/" not in name]
        if not outside:
            return {name: SPLITS[top] for name, top in tops.items()}
        if len(outside) < len(names):
            raise UserError(
                f"{len(outside)} images are outside the folders train and test (or val), which define the split: "
                f"{', '.join(outside[:_LISTED])}; move them into one of these folders or elsewhere"
            )
        check_no_split(" and ".join(map(str, _places(self.options))), names)
        # Keyed by the names, so that an image nearly always keeps its split when others are added or removed.
        seed = self.options.split_seed
        order = sorted(names, key=lambda name: hashlib.sha256(_encoded(f"{seed}/{name}")).digest())
        tests = set(order[: max(1, round(self.options.test_share * len(order)))])
        return {name: "test" if name in tests else "train" for name in names}


def check_no_split(place: str, names: Sequence[str]) -> None:
    """Refuse names with a folder that looks like a split but defines none, before its images are mixed with others."""
    folders = sorted({part for name in names for part in name.split("/")[:-1] if looks_like_a_split(part)})
    if folders:
        known = {split: ", ".join(name for name in SPLITS if SPLITS[name] == split) for split in ("train", "test")}
        raise UserError(
            f"{place}: is {' or '.join(folders[:_LISTED])} a split? Only folders directly in the folder of sources and "
            f"in that of targets define it, by the names {known['train']} (for training) and {known['test']} (for "
            "testing); move or rename them to one of these, or to names that do not begin like these"
        )


def _ids(names: Sequence[str]) -> dict[str, str]:
    """Return a distinct id of limited length for each name, made of letters, digits, `_`, `.` and `-`."""
    ids = {name: re.sub(r"[^\w.-]+", "_", name) for name in names}
    # Some file systems do not distinguish A from a.
    counts = Counter(key.casefold() for key in ids.values())
    for name, key in ids.items():
        # A hash only where it is needed, so that most ids can be read.
        if len(key.encode()) > _LONGEST_ID:
            ids[name] = f"{key.encode()[:_CUT_ID].decode(errors='ignore')}-{json_hash(name)[:8]}"
        elif counts[key.casefold()] > 1 and key != name:
            ids[name] = f"{key}-{json_hash(name)[:8]}"
    return ids


def _encoded(text: str) -> bytes:
    """Encode names of files, which need not be UTF-8."""
    return text.encode(errors="surrogateescape")


def _places(options: Any) -> list[Path]:
    given = [options.pairs] if options.pairs else [options.source, options.target]
    return [Path(folder).expanduser() for folder in given]


def _all_images(options: Any) -> list[Path]:
    folders = [folder for place in _places(options) for folder in folders_of(place).values()]
    return [path for folder in folders for path in find(folder).images]


def unread_in(places: Sequence[Path]) -> list[str]:
    """Return a sentence about files that look like images but are not read, or an empty list."""
    return unread([folder for place in places for folder in folders_of(place).values()])


def _others(place: Path, names: Sequence[str]) -> list[Path]:
    """Return the files that have the names of missing images but are not read."""
    wanted = set(names)
    return [
        path
        for before, folder in folders_of(place).items()
        for path in find(folder).others
        if name_of(path, folder, before) in wanted
    ]


def _fitted(load: Callable[[], dict[str, np.ndarray]], size: tuple[int, int], fit: Fit) -> dict[str, np.ndarray]:
    """Load a pair, and crop or pad both images to the aspect ratio of `size`."""
    try:
        images = load()
    except FormatError as error:
        advice = "save all images in one format, or declare it (source_format and target_format: channels and range)"
        raise UserError(*(f"{problem}; {advice}" for problem in error.problems)) from error
    if len({image.shape[:2] for image in images.values()}) > 1:
        # An error of the preparation, which names both sizes as they are.
        return images
    return {role: fit_shape(image, size, fit) for role, image in images.items()}


def _load(source: Path, target: Path, source_format: ImageFormat, target_format: ImageFormat) -> dict[str, np.ndarray]:
    return {
        "source": read(source, str(source), source_format, clip=False),
        "target": read(target, str(target), target_format, clip=False),
    }
