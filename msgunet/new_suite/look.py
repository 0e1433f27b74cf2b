"""Look at the images of one side: their format, range and kind. Does not import torch."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError
from tqdm import tqdm

from msgunet.core.errors import UserError, collected
from msgunet.core.pipeline import usable_cores
from msgunet.core.settings import RGB, ImageFormat
from msgunet.core.text import first_of
from msgunet.data.base import Kind
from msgunet.data.decode import decode
from msgunet.data.find import JPEG
from msgunet.data.images import as_pixels, header_if_8_bit, read_raw

# Images that are decoded to determine format and kind. Only where their values may need a range, all are.
_SAMPLED = 12
# Labels have few colours; photographs have more, even in a corner.
_MOST_COLOURS = 64
# Problems that an error lists, and files that a sentence names.
_LISTED, _NAMED = 10, 5


def look(files: Sequence[Path], role: str) -> tuple[ImageFormat, list[str], Kind]:
    """Return the format of the images, notes on what was guessed, and the kind.

    A mix of grey and RGB images counts as RGB. The range of 16-bit images, and that of grey images with few values, is
    chosen for the values of all images.

    Raises:
        UserError: the images have several formats, or are damaged.

    """
    formats: dict[ImageFormat, list[Path]] = {}
    # Whether each value occurs.
    values = np.zeros(1 << 16, bool)
    seen = set()

    def add(file: Path) -> np.ndarray:
        given, pixels = decoded(file)
        formats.setdefault(given, []).append(file)
        values[pixels] = True
        seen.add(file)
        return pixels

    def add_format(file: Path) -> None:
        stored = header_if_8_bit(file, str(file))
        if stored is None or stored.has_transparency_data:
            # The reader says whether alpha is dropped.
            add(file)
        else:
            formats.setdefault(_format_of(stored), []).append(file)

    # Lossy compression adds intermediate colours.
    lossy = any(file.suffix.lower() in (*JPEG, ".webp") for file in files)
    sampled = {files[round(i)]: None for i in np.linspace(0, len(files) - 1, _SAMPLED)}
    few = not lossy
    problems: list[str] = []
    for file in sampled:
        with collected(problems):
            pixels = add(file)
            few = few and _few_colours(pixels)
    with collected(problems):
        _for_all([file for file in files if file not in sampled], add_format, f"formats of the {role}s")
    if formats:
        with collected(problems):
            image_format, notes = _one_format(formats, role)
    if problems:
        raise UserError(*problems)
    if image_format.bits == 16 or (not lossy and _label_ends(values, image_format)):
        _for_all([file for file in files if file not in seen], add, f"values of the {role}s")
    if not lossy and (ends := _label_ends(values, image_format)):
        given, found = _labels(image_format, values, ends, role)
        return given, notes + found, "labels"
    if image_format.bits == 8:
        return image_format, notes, "labels" if few else "photo"
    (found,) = values.nonzero()
    given = image_format.model_copy(update={"range": _sensor_range(int(found[0]), int(found[-1]))})
    key = "source_format and target_format" if role == "image" else f"{role}_format"
    note = (
        f"The {role}s have 16 bits. Networks see the range {list(given.range)} from black to white: a guess from the "
        f"values of all {len(files)} images, which are between {found[0]} and {found[-1]}. If you know the lowest and "
        f"highest value that your device can give, write them in {key}; values outside the range are refused or cut "
        "(docs/own-data.md)."
    )
    return given, [*notes, note], "photo"


def _one_format(formats: dict[ImageFormat, list[Path]], role: str) -> tuple[ImageFormat, list[str]]:
    """Return the format of all images, and a note if grey images are read as RGB."""
    total = sum(map(len, formats.values()))
    *others, (common, files) = sorted(formats.items(), key=lambda item: (len(item[1]), item[0].channels))
    listed = [f"{len(found)} of {total} are {given}: {_names(found)}" for given, found in others]
    if set(formats) == {RGB, ImageFormat(channels=1)}:
        grey = formats[ImageFormat(channels=1)]
        return RGB, [f"{len(grey)} of {total} {role}s are grey and are read as RGB: {_names(grey)}."]
    if listed:
        raise UserError(
            f"the {role}s have several formats, convert them to one: {'; '.join(listed)}; {len(files)} are {common}"
        )
    return common, []


def _names(files: Sequence[Path]) -> str:
    return ", ".join(sorted(str(file) for file in files)[:_NAMED]) + (", …" if len(files) > _NAMED else "")


def _for_all(files: Sequence[Path], function: Callable[[Path], object], about: str) -> None:
    """Call a function for each file, in threads (the decoders release the GIL); report all problems together."""
    problems: list[str] = []
    interval = 0.5 if sys.stderr.isatty() else 30
    with ThreadPoolExecutor(usable_cores()) as pool:
        futures = [pool.submit(function, file) for file in files]
        bar = tqdm(as_completed(futures), about, len(futures), unit="image", delay=2, mininterval=interval)
        for future in bar:
            with collected(problems):
                future.result()
    if problems:
        raise UserError(*first_of(problems, _LISTED))


def _sensor_range(lowest: int, highest: int) -> tuple[int, int]:
    """Return the range of a sensor of 10, 12, 14 or 16 bits, or the values' ends if they fill less than a quarter."""
    high = next(2**bits - 1 for bits in (10, 12, 14, 16) if highest < 2**bits)
    return (0, high) if highest == lowest or highest - lowest >= high / 4 else _range_of_16_bits(lowest, highest)


def _range_of_16_bits(lowest: int, highest: int) -> tuple[int, int]:
    # A range that ends below 256 would mean 8 bits.
    return lowest, max(highest, 256)


def _label_ends(values: np.ndarray, given: ImageFormat) -> tuple[int, int] | None:
    """Return the lowest and highest value of grey images if they are few and close, as ids of labels are; else None.

    The highest value of all can mark pixels without a label, and does not count.
    """
    (found,) = values[: 2**given.bits - 1].nonzero()
    if given.channels != 1 or not 2 <= len(found) <= _MOST_COLOURS or found[-1] - found[0] >= _MOST_COLOURS:
        return None
    return int(found[0]), int(found[-1])


def _labels(given: ImageFormat, values: np.ndarray, ends: tuple[int, int], role: str) -> tuple[ImageFormat, list[str]]:
    """Return the format of grey images of label ids, and a note on how to give the labels colours."""
    low, high = ends
    top = 2**given.bits - 1
    also = f" and {top}" if values[top] else ""
    if not also:
        given = given.model_copy(update={"range": ends if given.bits == 8 else _range_of_16_bits(*ends)})
    spread = f"the range {low} to {high} spreads them from black to white, and " if given.range == ends else ""
    note = (
        f"The {role}s are grey and hold only values from {low} to {high}{also}, as label ids do, which are nearly one "
        f"colour in the range 0 to {top}: {spread}an 8-bit PNG with a palette gives each its own colour "
        "(docs/own-data.md)."
    )
    return given, [note]


def _few_colours(pixels: np.ndarray) -> bool:
    if pixels.dtype != np.uint8 or pixels.size <= 4096:
        return False
    return len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) <= _MOST_COLOURS


def decoded(file: Path) -> tuple[ImageFormat, np.ndarray]:
    """Return the format and the pixels of an image, as the preparation would read them."""
    stored = header_if_8_bit(file, str(file))
    if stored is not None:
        return _format_of(stored), as_pixels(decode(file, str(file)))
    pixels = read_raw(file, str(file))
    try:
        return ImageFormat(channels=pixels.shape[2], range=(0, 2 ** (8 * pixels.dtype.itemsize) - 1)), pixels
    except ValidationError as error:
        raise UserError(f"{file}: {pixels.shape[2]} channels, at most 16 are supported") from error


def _format_of(stored: Image.Image) -> ImageFormat:
    """Return the format of an 8-bit image, from its header."""
    return ImageFormat(channels=1 if stored.mode in ("L", "LA", "1") else 3)
