"""Inspect a folder of a user's own images: pairs, sizes, formats, and whether they are photos or labels."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB
from msgunet.core.text import printable
from msgunet.data.decode import open_image, upright_size
from msgunet.data.decoder_notes import collected_notes
from msgunet.data.find import SPLITS, SUFFIXES, find, images_by_name, looks_like_a_split, unread
from msgunet.data.images import read_raw
from msgunet.data.sets.folder import Folder, FolderOptions, check_no_split, unread_in
from msgunet.new_suite.look import look

# Problems that an error lists.
_LISTED = 10
# With fewer training pairs, networks learn them by heart.
_FEW_PAIRS = 20
_SOURCE_WORDS = {"source", "src", "input", "inputs", "in", "a", "x", "before", "from", "raw", "noisy", "degraded", "lr"}
_SOURCE_WORDS |= {"low", "label", "labels", "mask", "masks", "seg", "semantic", "sketch", "sketches", "edges"}
_TARGET_WORDS = {"target", "tgt", "output", "outputs", "out", "b", "y", "after", "to", "clean", "sharp", "hr", "high"}
_TARGET_WORDS |= {"photo", "photos", "image", "images", "gt", "truth", "real", "reference"}
_LAYOUTS = """expected one of
  FOLDER/NAME/1.png and FOLDER/OTHER/1.png: two folders with the same file names, one of sources and one of targets
  FOLDER/1.png, as wide as two images: source and target side by side
  FOLDER/trainA/1.png, FOLDER/trainB/1.png, FOLDER/testA/2.png, FOLDER/testB/2.png: the same names in A and B
the first two with subfolders train and test (or val) if you have a split; or pass --source FOLDER --target FOLDER"""


@dataclass(frozen=True)
class Discovery:
    """The result of inspecting a folder.

    Attributes:
        options: options for the data set `folder`.
        size: most common width and height of the sources.
        other_sizes: number of sources of any other size.
        counts: training and test pairs.
        notes: sentences about everything that was guessed.

    """

    options: dict[str, Any]
    size: tuple[int, int]
    other_sizes: int
    counts: tuple[int, int]
    notes: tuple[str, ...]


@collected_notes()
def discover(folder: Path | None, source: Path | None = None, target: Path | None = None) -> Discovery:
    """Inspect a folder of pairs, or a folder of sources and one of targets.

    Raises:
        UserError: there are no pairs, names or sizes do not match, or images are damaged or differ in format.

    """
    if (folder and (source or target)) or bool(source) != bool(target):
        raise UserError("pass either --data FOLDER, or both --source FOLDER and --target FOLDER")
    if source and target:
        options, notes = {"source": str(source), "target": str(target)}, []
    else:
        options, notes = _layout(folder)
    side_by_side = "pairs" in options
    places = {role: Path(options["pairs" if side_by_side else role]).expanduser() for role in ("source", "target")}
    for place in places.values():
        if printable(str(place)) != str(place):
            raise UserError(f"{place}: a suite cannot hold this name; rename it to printable characters in UTF-8")
    dataset = Folder(FolderOptions.model_validate(options), (8, 8), Path())
    if missing := dataset.missing():
        raise UserError(*missing)
    counts = dataset.count()
    if 0 in counts:
        raise UserError(
            f"{counts[0]} pairs for training and {counts[1]} for testing; each split needs at least one",
            *unread_in(set(places.values())),
        )
    if counts[0] < _FEW_PAIRS:
        notes.append(f"Only {counts[0]} training pairs: enough to try the commands, too few to compare methods.")
    notes += [f"{note}." for note in unread_in(set(places.values()))]
    # Source and target of a pair have the same name.
    files = {role: [path for _, path in sorted(images_by_name(place).items())] for role, place in places.items()}
    sizes = {role: _sizes(paths) for role, paths in files.items() if not (side_by_side and role == "target")}
    if not side_by_side:
        _same_sizes(files, sizes)
    common, count = Counter(sizes["source"]).most_common(1)[0]
    for role, paths in files.items():
        if side_by_side and role == "target":
            # Both sides are in the same files.
            options |= {"target_format": options["source_format"]} if "source_format" in options else {}
            continue
        image_format, found, kind = look(paths, "image" if side_by_side else role)
        notes += found
        if image_format != RGB:
            options[f"{role}_format"] = image_format.model_dump(mode="json")
        if kind == "labels" and not side_by_side:
            options[f"{role}_kind"] = kind
            notes.append(f"The {role}s have few colours each and are treated as labels, whose colours are never mixed.")
    size = (common[0] // 2, common[1]) if side_by_side else common
    # Names of files can hold anything, and notes become comments of one line.
    lines = tuple(printable(note).replace("\n", "\\n") for note in notes)
    return Discovery(options, size, len(sizes["source"]) - count, counts, lines)


def _layout(folder: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Return the layout of the pairs in a folder, as options of the data set, and notes on what was guessed."""
    if folder is None:
        raise UserError("no images named: pass --data FOLDER, or --source FOLDER and --target FOLDER")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    subfolders = _folders_with_images(folder)
    if endings := _endings(subfolders):
        first, second = sorted(endings, key=lambda ending: (_leaning(ending), ending))
        notes = [f"Sources are in train{first}, targets in train{second}. If it is the other way round, swap them."]
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
        notes = [f"Sources are in {first.name}, targets in {second.name}. If it is the other way round, swap them."]
        return {"source": str(first), "target": str(second)}, notes
    if roles:
        names = ", ".join(path.name for path in roles)
        raise UserError(f"{folder} has images in {len(roles)} folders ({names}); {_LAYOUTS}", *unread([folder]))
    files = find(folder).images
    if not files:
        raise UserError(f"{folder}: no images ({', '.join(sorted(SUFFIXES))}); {_LAYOUTS}", *unread([folder]))
    width, height = Counter(_sizes(files)).most_common(1)[0][0]
    if width < 1.2 * height:
        raise UserError(
            f"{folder}: single images of {width}x{height}, and no second folder with the same names; {_LAYOUTS}"
        )
    notes = [
        "Each image is treated as a pair with the source on the left. If it is on the right, set source_side: right."
    ]
    return {"pairs": str(folder)}, notes


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


def _leaning(name: str) -> int:
    """Return -1 for a typical name of a source, 1 for one of a target, 0 otherwise."""
    words = set(name.lower().replace("-", "_").split("_")) | {name.lower()}
    return bool(words & _TARGET_WORDS) - bool(words & _SOURCE_WORDS)


def _sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Return width and height of each image, from its header where Pillow supports the format."""
    sizes, problems = [], []
    for file in files:
        try:
            with open_image(file, str(file)) as image:
                sizes.append(upright_size(image))
        except UserError:
            try:
                sizes.append(read_raw(file, str(file)).shape[1::-1])
            except UserError as error:
                problems += error.problems
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise UserError(*problems[:_LISTED], *more)
    return sizes


def _same_sizes(files: dict[str, list[Path]], sizes: dict[str, list[tuple[int, int]]]) -> None:
    # Both lists are sorted by name, and source and target of a pair have the same name.
    pairs = zip(files["source"], sizes["source"], sizes["target"], strict=True)
    problems = ["{}: the source is {}x{}, the target {}x{}".format(file, *a, *b) for file, a, b in pairs if a != b]
    if problems:
        raise UserError(
            f"source and target differ in size in {len(problems)} pairs; resize them first:", *problems[:_LISTED]
        )
