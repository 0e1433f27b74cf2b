"""The layout of a user's pairs in their folder, and what it says about their roles. Does not import torch."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgunet.core.errors import UserError, collected
from msgunet.core.text import first_of
from msgunet.data.decode import open_image, upright_size
from msgunet.data.find import SPLITS, SUFFIXES, find, looks_like_a_split, unread
from msgunet.data.images import read_raw
from msgunet.data.sets.folder import check_no_split
from msgunet.new_suite.halves import pairs_among

# Names that say which side is the source; the further words of each side are only more usual there.
_SAY_SOURCE = {"source", "sources", "src", "input", "inputs", "in", "before", "from"}
_SAY_TARGET = {"target", "targets", "tgt", "output", "outputs", "out", "after", "to", "gt", "truth"}
_SOURCE_WORDS = _SAY_SOURCE | {"a", "x", "raw", "noisy", "degraded", "lr", "low", "label", "labels", "mask", "masks"}
_SOURCE_WORDS |= {"seg", "semantic", "sketch", "sketches", "edges"}
_TARGET_WORDS = _SAY_TARGET | {"b", "y", "clean", "sharp", "hr", "high", "photo", "photos", "image", "images"}
_TARGET_WORDS |= {"real", "reference"}
SIDES = "Each image is treated as a pair with the source on the left. If it is on the right, set source_side: right."
# How many times wider than high images must be to be taken for pairs side by side.
_WIDER = 1.2
_LISTED = 10
LAYOUTS = """these layouts are understood:
  two folders with the same file names   FOLDER/before/1.png  2.png  3.png    sources
                                         FOLDER/after/1.png   2.png  3.png    targets
  the same, with a split                 FOLDER/before/train/1.png  2.png     sources
                                         FOLDER/before/test/3.png
                                         FOLDER/after/train/1.png   2.png     targets
                                         FOLDER/after/test/3.png
  CycleGAN's                             FOLDER/trainA/1.png  2.png           sources
                                         FOLDER/testA/3.png
                                         FOLDER/trainB/1.png  2.png           targets
                                         FOLDER/testB/3.png
  source left and target right in one    FOLDER/1.png  2.png  3.png           pairs
  the same, with a split                 FOLDER/train/1.png  2.png            pairs
                                         FOLDER/test/3.png
  elsewhere                              --source FOLDER --target OTHER"""


def layout_of(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the layout of the pairs in a folder, as options of the data set, and notes on what was guessed."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    subfolders = _folders_with_images(folder)
    if endings := _endings(subfolders):
        first, second = sorted(endings, key=lambda ending: (_leaning(ending), ending))
        notes = [_roles(f"train{first}", f"train{second}", said=False)]
        return {"source": str(folder / f"*{first}"), "target": str(folder / f"*{second}")}, notes
    roles = [path for path in subfolders if path.name.lower() not in SPLITS]
    check_no_split(str(folder), [f"{path.name}/" for path in roles])
    below_splits = [path for split in subfolders if split not in roles for path in _folders_with_images(split)]
    if below_splits and not roles:
        names = sorted({path.name for path in below_splits})
        moves = " && ".join(
            f"mkdir -p {_quoted(folder / p.name)} && mv {_quoted(p)} {_quoted(folder / p.name / p.parent.name)}"
            for p in sorted(below_splits)
        )
        raise UserError(
            f"{folder}: the split is above the folders {', '.join(names)}, but must be below them; this moves them:\n"
            f"  {moves}"
        )
    if len(roles) == 2:
        first, second = sorted(roles, key=lambda path: (_leaning(path.name), path.name))
        said = bool(_words(first.name) & _SAY_SOURCE and _words(second.name) & _SAY_TARGET)
        notes = [_roles(first.name, second.name, said)]
        return {"source": str(first), "target": str(second)}, notes
    if roles:
        names = ", ".join(path.name for path in roles)
        raise UserError(f"{folder} has images in {len(roles)} folders ({names}); {LAYOUTS}", *unread([folder]))
    files = find(folder).images
    if not files:
        raise UserError(f"{folder}: no images ({', '.join(sorted(SUFFIXES))}); {LAYOUTS}", *unread([folder]))
    damaged: list[str] = []
    sizes = []
    for file in files:
        with collected(damaged):
            sizes.append(image_size(file))
    if damaged:
        raise UserError(*first_of(damaged, _LISTED))
    if problems := _unlike_pairs(files, sizes):
        seen = "; ".join(problems)
        raise UserError(
            f"{folder}: {len(files)} single images, and no second folder with the same names. They are not taken for "
            f"pairs side by side, because {seen}. If they are, pass --pairs FOLDER instead; {LAYOUTS}",
            *unread([folder]),
        )
    return {"pairs": str(folder)}, [SIDES]


def _unlike_pairs(files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Return why images are no pairs side by side, or an empty list if they can be."""
    shapes = {
        f"are not clearly wider than high ({_WIDER} times)": lambda width, height: width < _WIDER * height,
        "have an odd width": lambda width, height: width % 2 == 1,
    }
    problems = []
    for words, matches in shapes.items():
        found = [(file, size) for file, size in zip(files, sizes, strict=True) if matches(*size)]
        if found:
            listed = ", ".join("{} ({}x{})".format(file.name, *size) for file, size in found[:3])
            problems.append(f"{len(found)} {words}: {listed}{', …' if len(found) > 3 else ''}")
    if problems:
        return problems
    count, sampled = pairs_among(files)
    if 2 * count > sampled:
        return []
    return [
        f"in only {count} of {sampled} images that were compared, the halves are more alike than with each other "
        "shifted or mirrored, and than with halves of other images"
    ]


def _folders_with_images(folder: Path) -> list[Path]:
    folders = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    return [path for path in folders if find(path).images]


def _endings(subfolders: Sequence[Path]) -> list[str]:
    """Return A and B if the folders are trainA, trainB, testA, testB or the like; else an empty list."""
    splits: dict[str, set[str]] = {}
    names = "|".join(sorted(SPLITS, key=len, reverse=True))
    for path in subfolders:
        match = re.fullmatch(rf"({names})([-_]?[a-z]+)", path.name, re.IGNORECASE)
        if match is None or path.name.lower() in SPLITS or looks_like_a_split(match[2]):
            return []
        splits.setdefault(match[2], set()).add(match[1])
    return list(splits) if len(splits) == 2 and len({frozenset(found) for found in splits.values()}) == 1 else []


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _roles(source: str, target: str, said: bool) -> str:
    """Say which folder has which role; `said`: the names leave no doubt."""
    return f"Sources are in {source}, targets in {target}." + (
        "" if said else " If it is the other way round, swap them."
    )


def _words(name: str) -> set[str]:
    return set(name.lower().replace("-", "_").split("_")) | {name.lower()}


def _leaning(name: str) -> int:
    """Return -1 for a typical name of a source, 1 for one of a target, 0 otherwise."""
    words = _words(name)
    return bool(words & _TARGET_WORDS) - bool(words & _SOURCE_WORDS)


def image_size(file: Path) -> tuple[int, int]:
    """Return width and height of an image, from its header where Pillow supports the format."""
    try:
        with open_image(file, str(file)) as image:
            return upright_size(image)
    except UserError:
        height, width = read_raw(file, str(file)).shape[:2]
        return width, height
