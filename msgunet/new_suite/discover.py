"""Inspect a folder of a user's own images: pairs, sizes, formats, and whether they are photos or labels."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgunet.core.errors import UserError, collected
from msgunet.core.metrics import FEWEST_IMAGES
from msgunet.core.settings import RGB, ImageFormat
from msgunet.core.text import first_of, printable
from msgunet.data.base import Kind
from msgunet.data.decoder_notes import collected_notes
from msgunet.data.find import images_by_name
from msgunet.data.sets.folder import Folder, FolderOptions, unread_in
from msgunet.new_suite.layout import SIDES, image_size, layout_of
from msgunet.new_suite.look import look
from msgunet.report.statistics import fewest_images

# Problems that an error lists.
_LISTED = 10
# With fewer training pairs, networks learn them by heart.
_FEW_PAIRS = 20
# The pairs that the suite's four methods can be compared in.
_COMPARISONS = 6
_SPLITS = ("training", "test")
# Width and height of images by name; format, notes and kind of a side.
Sizes = dict[str, tuple[int, int]]
Look = tuple[ImageFormat, list[str], Kind]


@dataclass(frozen=True)
class Discovery:
    """The result of inspecting a folder.

    Attributes:
        options: options for the data set `folder`.
        size: most common width and height of the sources.
        sizes: number of sources of each width and height.
        counts: training and test pairs.
        notes: sentences about everything that was guessed.

    """

    options: dict[str, Any]
    size: tuple[int, int]
    sizes: dict[tuple[int, int], int]
    counts: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def other_sizes(self) -> int:
        """The number of sources that do not have the most common size."""
        return sum(self.sizes.values()) - self.sizes[self.size]


@collected_notes()
def discover(
    folder: Path | None, source: Path | None = None, target: Path | None = None, pairs: Path | None = None
) -> Discovery:
    """Inspect a folder whose layout is found out; a folder of sources and one of targets; or images that hold pairs.

    Raises:
        UserError: there are no pairs, names or sizes do not match, or images are damaged or differ in format.

    """
    given = [folder is not None, source is not None or target is not None, pairs is not None]
    if sum(given) != 1 or (source is None) != (target is None):
        raise UserError("pass one of: --data FOLDER; --source FOLDER and --target FOLDER; --pairs FOLDER")
    if source and target:
        options, notes = {"source": str(source), "target": str(target)}, []
    elif pairs:
        options, notes = {"pairs": str(pairs)}, [SIDES]
    else:
        options, notes = layout_of(folder)
    # Of the sources and the targets, or of images that hold both.
    places = {role: Path(place).expanduser() for role, place in options.items()}
    for place in places.values():
        if printable(str(place)) != str(place):
            raise UserError(f"{place}: a suite cannot hold this name; rename it to printable characters in UTF-8")
    dataset = Folder(FolderOptions.model_validate(options), (8, 8), Path())
    if missing := dataset.missing():
        raise UserError(*missing)
    problems: list[str] = []
    with collected(problems):
        counts = dataset.count()
        if 0 in counts:
            problems += [
                f"{counts[0]} pairs for training and {counts[1]} for testing; each split needs at least one",
                *unread_in(set(places.values())),
            ]
    sizes, looks = _seen(places, problems)
    if problems:
        raise UserError(*problems)
    training, testing = (f"{n} {split} pair{'s' if n > 1 else ''}" for n, split in zip(counts, _SPLITS, strict=True))
    if counts[0] < _FEW_PAIRS:
        notes.append(f"Only {training}: enough to try the commands, too few to compare methods.")
    if counts[1] < (fewest := fewest_images(_COMPARISONS)):
        intervals = f", and intervals need {FEWEST_IMAGES}" if counts[1] < FEWEST_IMAGES else ""
        notes.append(f"Only {testing}: to tell four methods apart, tests need at least {fewest}{intervals}.")
    notes += [f"{note}." for note in unread_in(set(places.values()))]
    role = next(iter(sizes))
    counted = Counter((width // 2 if role == "pairs" else width, height) for width, height in sizes[role].values())
    size = counted.most_common(1)[0][0]
    for role, (image_format, found, kind) in looks.items():
        notes += found
        if image_format != RGB:
            for side in ("source", "target") if role == "pairs" else (role,):
                options[f"{side}_format"] = image_format.model_dump(mode="json")
        if kind == "labels" and role != "pairs":
            options[f"{role}_kind"] = kind
            notes.append(f"The {role}s have few colours each and are treated as labels, whose colours are never mixed.")
    # Names of files can hold anything, and notes become comments of one line.
    lines = tuple(printable(note).replace("\n", "\\n") for note in notes)
    return Discovery(options, size, dict(counted), counts, lines)


def _seen(places: dict[str, Path], problems: list[str]) -> tuple[dict[str, Sizes], dict[str, Look]]:
    """Return the sizes of each side's images by name, and what they look like; add all that is wrong to `problems`."""
    sizes: dict[str, Sizes] = {role: {} for role in places}
    looks = {}
    for role, place in places.items():
        files: dict[str, Path] = {}
        unreadable: list[str] = []
        unlike: list[str] = []
        with collected(problems):
            files = dict(sorted(images_by_name(place).items()))
        for name, path in files.items():
            with collected(unreadable):
                sizes[role][name] = image_size(path)
        if files:
            with collected(unlike):
                looks[role] = look([*files.values()], "image" if role == "pairs" else role)
        # Those of `look` include the unreadable.
        problems += unlike or first_of(unreadable, _LISTED)
    if len(sizes) == 2:
        problems += _sizes_differ(**sizes)
    return sizes, looks


def _sizes_differ(source: Sizes, target: Sizes) -> list[str]:
    """Return a sentence on pairs whose images differ in size, and these, by name; an empty list if there are none."""
    both = [(name, size, target[name]) for name, size in source.items() if name in target]
    found = ["{}: the source is {}x{}, the target {}x{}".format(name, *a, *b) for name, a, b in both if a != b]
    count = f"{len(found)} pair{'s' * (len(found) > 1)}"
    return (
        [f"source and target differ in size in {count}; resize them first:", *first_of(found, _LISTED)] if found else []
    )
