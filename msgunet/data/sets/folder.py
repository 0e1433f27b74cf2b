"""A user's own pairs: two folders with the same file names, or one with images that hold both, side by side."""

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
    """Where the images are, and how they are split."""

    source: str | None = Field(None, description="folder of the sources; 'target' has the same names")
    target: str | None = Field(None, description="folder of the targets")
    pairs: str | None = Field(None, description="instead of both: folder of images that hold a pair side by side")
    source_side: Literal["left", "right"] = Field("left", description="of the source in such an image")
    source_kind: Kind = Field("photo", description="labels: resized by nearest neighbour, so that colours never mix")
    target_kind: Kind = Field("photo", description="the same for the target")
    source_format: ImageFormat = Field(RGB, description="channels and range of the sources' values")
    target_format: ImageFormat = Field(RGB, description="the same of the targets'")
    test_share: float = Field(
        0.2, gt=0, lt=1, description="of the pairs for testing, unless there are folders train and test (or val)"
    )
    split_seed: int = Field(0, ge=0, description="of that choice")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.pairs is None) == (self.source is None) or (self.source is None) != (self.target is None):
            raise ValueError("give either 'source' and 'target', or 'pairs'")
        if self.pairs is not None and self.source_format != self.target_format:
            raise ValueError("in images that hold a pair, source_format and target_format are the same")
        return self


@register_dataset("folder")
class Folder(DataSet):
    """Pairs by file name without its ending, below the folder; subfolders train and test (or val) are the split."""

    title = "Own images"
    licence = "one's own"
    source_url = "a folder"
    shareable = True
    Options = FolderOptions

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return options.source_kind, options.target_kind

    @classmethod
    def formats(cls, options: Any) -> tuple[ImageFormat, ImageFormat]:
        return options.source_format, options.target_format

    @classmethod
    def listing(cls, options: Any) -> str:
        # An image that is only replaced is noticed by its time.
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
        folders = [by_name(folder) for folder in _folders(self.options)]
        everything = sorted({name for found in folders for name in found})
        for folder, found in zip(_folders(self.options), folders, strict=True):
            lonely = [name for name in everything if name not in found]
            if lonely:
                raise UserError(f"{len(lonely)} images have no partner in {folder}: {', '.join(lonely[:10])}")
        splits = self._splits(everything)
        pairs = []
        for name in everything:
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
                f"{len(outside)} images are beside the folders train and test (or val), which are the split: "
                f"{', '.join(outside[:10])}; move them into one of these or away"
            )
        # Keyed by the names, so that an image keeps its split, nearly always, when others come or go.
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
    """All images below a folder, in order; hidden files are passed over."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def by_name(folder: Path) -> dict[str, Path]:
    """The images of a folder by path and name without ending, in Unicode's composed form.

    Raises:
        UserError: two have the same name, also but for case or Unicode form.

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
        raise UserError(f"{len(twice)} names stand twice in {folder}:", *twice[:10])
    return found


def _load(source: Path, target: Path, of_source: ImageFormat, of_target: ImageFormat) -> dict[str, np.ndarray]:
    return {"source": read(source, str(source), of_source), "target": read(target, str(target), of_target)}
