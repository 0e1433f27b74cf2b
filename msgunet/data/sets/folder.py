"""A user's own pairs: two folders with the same file names, or one folder of images with a pair side by side."""

import functools
import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from msgunet.core.errors import UserError
from msgunet.core.files import canonical_json
from msgunet.core.settings import RGB, ImageFormat
from msgunet.data.base import DataSet, DataSetOptions, Kind, RawPair, Split
from msgunet.data.images import read
from msgunet.data.registry import register_dataset
from msgunet.data.sets.maps import load_side_by_side

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
SPLITS: dict[str, Split] = {"train": "train", "test": "test", "val": "test"}


class FolderOptions(DataSetOptions):
    """The folders of the images, and how the pairs are split."""

    source: str | None = Field(None, description="folder of the source images; 'target' has the same file names")
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
    Options = FolderOptions

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return options.source_kind, options.target_kind

    @classmethod
    def formats(cls, options: Any) -> tuple[ImageFormat, ImageFormat]:
        return options.source_format, options.target_format

    @classmethod
    def listing(cls, options: Any) -> str:
        # An image replaced by one of the same size is noticed by its modification time.
        files = [(str(path), path.stat().st_size) for path in _all_images(options)]
        return hashlib.sha256(canonical_json(files).encode()).hexdigest()

    def inputs(self) -> list[Path]:
        return _all_images(self.options)

    def count(self) -> tuple[int, int]:
        splits = [pair.split for pair in self.pairs(Path())]
        return splits.count("train"), splits.count("test")

    def missing(self, downloads: bool = False) -> list[str]:
        return [f"{self.name}: there is no folder {folder}" for folder in _folders(self.options) if not folder.is_dir()]

    def pairs(self, work: Path) -> list[RawPair]:
        folders = [images_by_name(folder) for folder in _folders(self.options)]
        names = sorted({name for found in folders for name in found})
        for folder, found in zip(_folders(self.options), folders, strict=True):
            unpaired = [name for name in names if name not in found]
            if unpaired:
                raise UserError(f"{len(unpaired)} images have no counterpart in {folder}: {', '.join(unpaired[:10])}")
        splits = self._splits(names)
        pairs = []
        for name in names:
            paths = [found[name] for found in folders]
            if len(paths) == 1:
                left = self.options.source_side == "left"
                load = functools.partial(load_side_by_side, paths[0], str(paths[0]), left, self.options.source_format)
            else:
                load = functools.partial(_load, *paths, *self.formats(self.options))
            key = re.sub(r"[^\w.-]+", "_", name)
            pairs.append(RawPair(key, splits[name], load, name=" and ".join(map(str, paths))))
        return pairs

    def _splits(self, names: list[str]) -> dict[str, Split]:
        tops = {name: name.split("/")[0].lower() for name in names}
        outside = [name for name, top in tops.items() if top not in SPLITS or "/" not in name]
        if not outside:
            return {name: SPLITS[top] for name, top in tops.items()}
        if len(outside) < len(names):
            raise UserError(
                f"{len(outside)} images are outside the folders train and test (or val), which define the split: "
                f"{', '.join(outside[:10])}; move them into one of these folders or elsewhere"
            )
        # Keyed by the names, so that an image nearly always keeps its split when others are added or removed.
        seed = self.options.split_seed
        order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        tests = set(order[: max(1, round(self.options.test_share * len(order)))])
        return {name: "test" if name in tests else "train" for name in names}


def _folders(options: Any) -> list[Path]:
    given = [options.pairs] if options.pairs else [options.source, options.target]
    return [Path(folder).expanduser() for folder in given]


def _all_images(options: Any) -> list[Path]:
    return [path for folder in _folders(options) if folder.is_dir() for path in images(folder)]


def images(folder: Path) -> list[Path]:
    """Return all images below a folder, sorted. Hidden files are skipped."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def images_by_name(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by path below it without file extension, in Unicode's composed form (NFC).

    Raises:
        UserError: two images have the same name, or names that differ only in case or Unicode form.

    """
    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    twice = []
    for path in images(folder):
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if name.casefold() in seen:
            twice.append(f"{path} and {seen[name.casefold()]}")
        found[name] = seen[name.casefold()] = path
    if twice:
        raise UserError(f"{len(twice)} names occur twice in {folder}:", *twice[:10])
    return found


def _load(source: Path, target: Path, source_format: ImageFormat, target_format: ImageFormat) -> dict[str, np.ndarray]:
    return {"source": read(source, str(source), source_format), "target": read(target, str(target), target_format)}
