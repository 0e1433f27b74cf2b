"""What a folder of somebody's own images holds: pairs, sizes, formats, and whether they are photos or labels."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, ImageFormat
from msgunet.data.base import DAMAGED, Kind, decode
from msgunet.data.images import as_8_bits, as_pixels, read_raw
from msgunet.data.sets.folder import SPLITS, SUFFIXES, Folder, FolderOptions, by_name, images

_SHOWN = 10
# Images that are decoded to find out what they are.
_LOOKED_AT = 12
# Labels have few colours; photographs have more even in a corner.
_MOST_COLOURS = 64
_SOURCE_WORDS = {"source", "src", "input", "inputs", "in", "a", "x", "before", "from", "raw", "noisy", "degraded", "lr"}
_SOURCE_WORDS |= {"low", "label", "labels", "mask", "masks", "seg", "semantic", "sketch", "sketches", "edges"}
_TARGET_WORDS = {"target", "tgt", "output", "outputs", "out", "b", "y", "after", "to", "clean", "sharp", "hr", "high"}
_TARGET_WORDS |= {"photo", "photos", "image", "images", "gt", "truth", "real", "reference"}
_LAYOUTS = """expected is one of
  FOLDER/NAME/1.png and FOLDER/OTHER/1.png: two folders with the same file names, sources and targets
  FOLDER/1.png, as wide as two images: both side by side
with subfolders train and test (or val) in these where the split is given; or say --source FOLDER --target FOLDER"""


@dataclass(frozen=True)
class Discovery:
    """What there is.

    options: of the data set `folder`. size: width and height that most sources have. sizes: how many others there are.
    counts: training and test pairs. notes: what was guessed, in sentences.
    """

    options: dict[str, Any]
    size: tuple[int, int]
    sizes: int
    counts: tuple[int, int]
    notes: tuple[str, ...]


def discover(folder: Path | None, source: Path | None = None, target: Path | None = None) -> Discovery:
    """Look at a folder with pairs, or at one of sources and one of targets.

    Raises:
        UserError: there are no pairs, names or sizes do not match, images are damaged or of several formats.

    """
    if (folder and (source or target)) or bool(source) != bool(target):
        raise UserError("say where the images are either by --data FOLDER, or by --source FOLDER --target FOLDER")
    if source and target:
        options, notes = {"source": str(source), "target": str(target)}, []
    else:
        options, notes = _layout(folder)
    beside = "pairs" in options
    places = {role: Path(options["pairs" if beside else role]).expanduser() for role in ("source", "target")}
    dataset = Folder(FolderOptions.model_validate(options), (8, 8), Path())
    if missing := dataset.missing():
        raise UserError(*missing)
    counts = dataset.count()
    if 0 in counts:
        raise UserError(f"{counts[0]} pairs for training and {counts[1]} for testing: there must be some of both")
    # Partners have the same names.
    files = {role: [path for _, path in sorted(by_name(place).items())] for role, place in places.items()}
    sizes = {role: _sizes(found) for role, found in files.items() if not (beside and role == "target")}
    if not beside:
        _same_sizes(files, sizes)
    common, times = Counter(sizes["source"]).most_common(1)[0]
    for role, found in files.items():
        given, kind = _look(found, role)
        if beside:
            kind = "photo"
        if given.bits == 16 and not (beside and role == "target"):
            notes.append(f"The {role}s have 16 bits. The end of their range is guessed; what is above is cut off.")
        if given != RGB:
            options[f"{role}_format"] = given.model_dump(mode="json")
        if kind == "labels":
            options[f"{role}_kind"] = kind
            notes.append(f"The {role}s have few colours each and are taken for labels, whose colours never mix.")
    size = (common[0] // 2, common[1]) if beside else common
    return Discovery(options, size, len(sizes["source"]) - times, counts, tuple(notes))


def _layout(folder: Path | None) -> tuple[dict[str, Any], list[str]]:
    """How the pairs lie in a folder, as options of the data set, and what was guessed."""
    if folder is None:
        raise UserError("say where the images are: --data FOLDER, or --source FOLDER --target FOLDER")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    inside = _folders_with_images(folder)
    roles = [path for path in inside if path.name.lower() not in SPLITS]
    within = [path for split in inside if split not in roles for path in _folders_with_images(split)]
    if within and not roles:
        names = sorted({path.name for path in within})
        moves = " && ".join(
            f"mkdir -p {_quoted(folder / p.name)} && mv {_quoted(p)} {_quoted(folder / p.name / p.parent.name)}"
            for p in sorted(within)
        )
        raise UserError(
            f"{folder}: the split is above the folders {', '.join(names)}, it must be below them; this moves them:\n"
            f"  {moves}"
        )
    if len(roles) == 2:
        first, second = sorted(roles, key=lambda path: (_leaning(path.name), path.name))
        notes = [f"Sources are in {first.name}, targets in {second.name}. Where it is the other way round, swap them."]
        return {"source": str(first), "target": str(second)}, notes
    if roles:
        names = ", ".join(path.name for path in roles)
        raise UserError(f"{folder} has images in {len(roles)} folders ({names}); {_LAYOUTS}")
    found = images(folder)
    if not found:
        raise UserError(f"{folder}: no images ({', '.join(sorted(SUFFIXES))}); {_LAYOUTS}")
    width, height = Counter(_sizes(found)).most_common(1)[0][0]
    if width < 1.2 * height:
        raise UserError(
            f"{folder}: single images of {width}x{height}, and no second folder with the same names; {_LAYOUTS}"
        )
    notes = ["Images are taken for pairs side by side, the source on the left. Otherwise: source_side: right."]
    return {"pairs": str(folder)}, notes


def _folders_with_images(folder: Path) -> list[Path]:
    found = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    return [path for path in found if images(path)]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _leaning(name: str) -> int:
    """-1 for a name that sources have, 1 for one that targets have."""
    words = set(name.lower().replace("-", "_").split("_")) | {name.lower()}
    return bool(words & _TARGET_WORDS) - bool(words & _SOURCE_WORDS)


def _sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Width and height of each image, by its header where Pillow knows the format."""
    sizes, problems = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                sizes.append(image.size[::-1] if turned else image.size)
        except DAMAGED:
            try:
                sizes.append(read_raw(file, str(file)).shape[1::-1])
            except UserError as error:
                problems += error.problems
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(*problems[:_SHOWN], *more)
    return sizes


def _same_sizes(files: dict[str, list[Path]], sizes: dict[str, list[tuple[int, int]]]) -> None:
    # Sorted alike: partners have the same names.
    pairs = zip(files["source"], sizes["source"], sizes["target"], strict=True)
    wrong = ["{}: the source is {}x{}, the target {}x{}".format(file, *a, *b) for file, a, b in pairs if a != b]
    if wrong:
        raise UserError(f"{len(wrong)} pairs are of two sizes; bring them to one first:", *wrong[:_SHOWN])


def _look(files: Sequence[Path], role: str) -> tuple[ImageFormat, Kind]:
    """Format and kind of some of the images; grey ones among coloured ones count as coloured.

    Raises:
        UserError: they are of several formats.

    """
    found: dict[ImageFormat, Path] = {}
    highest = 0
    # What was ever a JPEG has colours in between.
    few = not any(file.suffix.lower() in (".jpg", ".jpeg", ".webp") for file in files)
    for file in (files[i] for i in sorted({round(i) for i in np.linspace(0, len(files) - 1, _LOOKED_AT)})):
        given, pixels = _decoded(file)
        found.setdefault(given, file)
        highest = max(highest, int(pixels.max()))
        few = few and given.bits == 8 and pixels.size > 4096 and _colours(pixels) <= _MOST_COLOURS
    if set(found) == {RGB, ImageFormat(channels=1)}:
        found = {RGB: files[0]}
    if len(found) > 1:
        kinds = "; ".join(f"{file} is {given}" for given, file in found.items())
        raise UserError(f"the {role}s are of several kinds, bring them to one: {kinds}")
    (given,) = found
    if given.bits == 16:
        # Sensors of 10, 12 and 14 bits write files of 16.
        high = next(2**bits - 1 for bits in (10, 12, 14, 16) if highest < 2**bits)
        given = given.model_copy(update={"range": (0, high)})
    return given, "labels" if few else "photo"


def _decoded(file: Path) -> tuple[ImageFormat, np.ndarray]:
    """An image as a preparation would read it, and the format in which it would."""
    stored = as_8_bits(file, str(file))
    if stored is not None:
        grey = stored.mode in ("L", "LA", "1")
        return ImageFormat(channels=1 if grey else 3), as_pixels(decode(file, str(file)))
    pixels = read_raw(file, str(file))
    try:
        return ImageFormat(channels=pixels.shape[2], range=(0, 2 ** (8 * pixels.dtype.itemsize) - 1)), pixels
    except ValidationError as error:
        raise UserError(f"{file}: {pixels.shape[2]} channels, at most 16 can be used") from error


def _colours(pixels: np.ndarray) -> int:
    return len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0))
