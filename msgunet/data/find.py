"""Find the images in a user's folders, and their names. Does not import torch."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgunet.core.errors import UserError
from msgunet.data.base import Split

# Those of the formats that are read (`FORMATS`).
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
TIFF = (".tif", ".tiff")
SUFFIXES = frozenset({*JPEG, *TIFF, ".png", ".apng", ".bmp", ".webp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm"})
# Those of images, volumes and arrays that are not read. Files with other suffixes are passed over without a word.
_UNREAD = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".jxr", ".qoi", ".svg", ".eps"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".psd", ".xcf"),
    *(".exr", ".hdr", ".pfm", ".dds", ".tga", ".pcx", ".sgi", ".ico", ".icns", ".dib", ".npy", ".npz", ".mat"),
    *(".dcm", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".fit", ".fits", ".czi", ".lif", ".nd2", ".svs", ".ndpi"),
)
_LISTED = 10

SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev"), "test"),
}
_LIKE_A_SPLIT = re.compile(r"train|trn|test|tst|val$|valid|eval$|evaluat|dev$|holdout")


class Found(NamedTuple):
    """The files below a folder, sorted: the images, and all others. Hidden files and folders are left out."""

    images: list[Path]
    others: list[Path]


def find(folder: Path) -> Found:
    """Return the files below a folder. Links to folders are followed, except to a folder that contains the link.

    Raises:
        UserError: a folder cannot be read.

    """
    found = Found([], [])
    for path in _files(folder):
        (found.images if path.suffix.lower() in SUFFIXES and path.is_file() else found.others).append(path)
    for paths in found:
        paths.sort()
    return found


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}; its images would be missing") from error

    # The real paths of each folder, of those above it, and of those on the way to it.
    within = {folder: frozenset({folder.resolve(), *folder.resolve().parents})}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        above = within.pop(Path(place))
        reals = {name: Path(place, name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = [name for name, real in reals.items() if real not in above]
        within |= {Path(place, name): above | {reals[name], *reals[name].parents} for name in folders}
        yield from (Path(place, name) for name in names if not name.startswith("."))


def unread(folders: Iterable[Path]) -> list[str]:
    """Return a sentence about the files below folders that look like images but are not read; else an empty list."""
    files = [path for folder in folders if folder.is_dir() for path in find(folder).others]
    return not_read([path for path in files if path.name.lower().endswith((*_UNREAD, *SUFFIXES))])


def not_read(files: Sequence[Path]) -> list[str]:
    """Return a sentence about files that are not read, with their suffixes; an empty list if there are none."""
    if not files:
        return []
    kinds = sorted({"broken link" if not path.exists() else path.suffix.lower() or "no suffix" for path in files})
    listed = ", ".join(map(str, files[:_LISTED])) + (", …" if len(files) > _LISTED else "")
    count = "1 file was" if len(files) == 1 else f"{len(files)} files were"
    return [f"{count} not read ({', '.join(kinds)}): {listed}; convert such files to PNG or TIFF"]


def folders_of(place: Path) -> dict[str, Path]:
    """Return the folders that `place` stands for, each by what precedes its images' names.

    `FOLDER` stands for itself. `FOLDER/*A` stands for `FOLDER/trainA`, `FOLDER/testA` and so on, where the star is the
    name of a split.
    """
    if place.is_dir() or not place.name.startswith("*") or not place.parent.is_dir():
        return {"": place} if place.is_dir() else {}
    ending = place.name[1:]
    found = {path.name.removesuffix(ending): path for path in sorted(place.parent.iterdir()) if path.is_dir()}
    return {name: path for name, path in found.items() if name.lower() in SPLITS and path.name == name + ending}


def images_by_name(place: Path) -> dict[str, Path]:
    """Return the images of a place (see `folders_of`) by path below it without suffix, in Unicode's composed form.

    Raises:
        UserError: two images have the same name, or names that differ only in case or Unicode form.

    """
    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    twice = []
    for before, folder in folders_of(place).items():
        for path in find(folder).images:
            name = name_of(path, folder, before)
            if name.casefold() in seen:
                twice.append(f"{path} and {seen[name.casefold()]}")
            found[name] = seen[name.casefold()] = path
    if twice:
        raise UserError(f"{len(twice)} names occur twice in {place}:", *twice[:_LISTED])
    return found


def name_of(path: Path, folder: Path, before: str = "") -> str:
    """Return the name of an image below a folder, as `images_by_name` does."""
    return unicodedata.normalize("NFC", Path(before, path.relative_to(folder)).with_suffix("").as_posix())


def looks_like_a_split(name: str) -> bool:
    """Return whether a folder's name is that of a split, known or not: `val`, `train2017`, `valA`, `my_test`."""
    return any(_LIKE_A_SPLIT.match(word.lower()) for word in re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name))
