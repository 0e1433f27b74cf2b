"""Inspect a folder of a user's own images: pairs, sizes, formats, and whether they are photos or labels."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgunet.core.errors import UserError
from msgunet.core.metrics import FEWEST_IMAGES
from msgunet.core.settings import RGB
from msgunet.core.text import printable
from msgunet.data.decoder_notes import collected_notes
from msgunet.data.find import images_by_name
from msgunet.data.sets.folder import Folder, FolderOptions, unread_in
from msgunet.new_suite.layout import SIDES, image_sizes, layout_of
from msgunet.new_suite.look import look
from msgunet.report.statistics import fewest_images

# Problems that an error lists.
_LISTED = 10
# With fewer training pairs, networks learn them by heart.
_FEW_PAIRS = 20
# The pairs that the suite's four methods can be compared in.
_COMPARISONS = 6
_SPLITS = ("training", "test")


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
    training, testing = (f"{n} {split} pair{'s' if n > 1 else ''}" for n, split in zip(counts, _SPLITS, strict=True))
    if counts[0] < _FEW_PAIRS:
        notes.append(f"Only {training}: enough to try the commands, too few to compare methods.")
    if counts[1] < (fewest := fewest_images(_COMPARISONS)):
        intervals = f", and intervals need {FEWEST_IMAGES}" if counts[1] < FEWEST_IMAGES else ""
        notes.append(f"Only {testing}: to tell four methods apart, tests need at least {fewest}{intervals}.")
    notes += [f"{note}." for note in unread_in(set(places.values()))]
    # Source and target of a pair have the same name.
    files = {role: [path for _, path in sorted(images_by_name(place).items())] for role, place in places.items()}
    sizes = {role: image_sizes(paths) for role, paths in files.items() if not (side_by_side and role == "target")}
    if not side_by_side:
        _same_sizes(files, sizes)
    counted = Counter((width // 2 if side_by_side else width, height) for width, height in sizes["source"])
    size = counted.most_common(1)[0][0]
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
    # Names of files can hold anything, and notes become comments of one line.
    lines = tuple(printable(note).replace("\n", "\\n") for note in notes)
    return Discovery(options, size, dict(counted), counts, lines)


def _same_sizes(files: dict[str, list[Path]], sizes: dict[str, list[tuple[int, int]]]) -> None:
    # Both lists are sorted by name, and source and target of a pair have the same name.
    pairs = zip(files["source"], sizes["source"], sizes["target"], strict=True)
    problems = ["{}: the source is {}x{}, the target {}x{}".format(file, *a, *b) for file, a, b in pairs if a != b]
    if problems:
        count = f"{len(problems)} pair{'s' * (len(problems) > 1)}"
        raise UserError(f"source and target differ in size in {count}; resize them first:", *problems[:_LISTED])
