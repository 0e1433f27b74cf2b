"""Open and decode image files. Does not import torch."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from msgunet.core.errors import UserError
from msgunet.core.permissions import explain
from msgunet.core.text import first_line
from msgunet.data.decoder_notes import note, reading, unheard
from msgunet.data.limits import check_size

_opening = threading.Lock()
# Measured with `decode`, which holds three copies of an image for a moment; Pillow takes four bytes for a pixel.
_BYTES_PER_VALUE = 4

# The Pillow modes that can be converted to 8-bit RGB without loss.
RGB_MODES = ("RGB", "RGBA", "P", "PA", "L", "LA", "1")
# The formats that are opened. JPEG includes MPO, the JPEG of many phones.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")


class FormatError(UserError):
    """An image has another format than expected. Only the caller knows what the user can do about it."""


@contextlib.contextmanager
def open_image(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open an image of an allowed format (`FORMATS`), for a context that decodes it.

    Pillow's other formats are refused: some of them start programs (EPS), others are rare and little tested.

    Raises:
        UserError: the file cannot be read, is not an image of an allowed format, is animated or too large (`limits`),
            or the decoder raised anything.

    """
    try:
        with reading(name), _opened(file) as image:
            check_size(name, *image.size, 3, value_bytes=_BYTES_PER_VALUE)
            # The pages of a TIFF are channels, and the further images of an MPO are previews.
            if image.format in ("GIF", "PNG", "WEBP") and (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"{name}: an animation of {frames} frames; save the one that you mean as an image")
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: not an image, or not in one of the formats {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise UserError(explain(error)) from error
    except Exception as error:  # hostile files make decoders raise anything
        raise UserError(f"{name}: the image is damaged ({first_line(error)})") from error


def _opened(file: Path | BinaryIO) -> Image.Image:
    """Open an image of any size: `open_image` checks it. The limit of Pillow stays for all other images."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def claimed_size(file: Path) -> tuple[int, int] | None:
    """Return the width and height that an image's header claims, or None if it cannot be read; nothing is decoded."""
    try:
        with unheard(), _opened(file) as image:
            return image.size
    except Exception:  # whoever reads the image says what is wrong
        return None


def unlike_rgb(image: Image.Image) -> str | None:
    """Return what an opened image has that 8-bit RGB cannot hold, in words; None if `decode` can read it."""
    # Pillow reads 16-bit colours as 8-bit colours. Only what it passes to its decoders reveals their depth.
    passed = [tile.args for tile in getattr(image, "tile", ())]
    deep = any(";16" in str(given) for given in passed)
    deep |= image.format == "PPM" and any(isinstance(given, tuple) and given[-1] > 255 for given in passed)
    if image.mode not in RGB_MODES or deep:
        return f"mode {image.mode}{' (16 bits)' if deep else ''}"
    if channels_of_tiff(image):
        return "several pages or more bands than red, green, blue and alpha"
    return None


def channels_of_tiff(image: Image.Image) -> bool:
    """Return whether an opened image is a TIFF with several pages, or with bands that are neither colours nor alpha.

    Pillow reads only the first page, and drops such bands.
    """
    if image.format != "TIFF":
        return False
    tags = image.tag_v2
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    colours = {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric, 1)
    extra = max(0, tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) - colours)
    # 1 and 2 are alpha.
    alpha = extra == 1 and tags.get(TiffImagePlugin.EXTRASAMPLES) in ((1,), (2,))
    return image.is_animated or (extra > 0 and not alpha)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image once its EXIF orientation is applied."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    # Pillow has already turned the size of a TIFF that has the tag.
    return image.size[::-1] if turned and ExifTags.Base.Orientation not in getattr(image, "tag_v2", {}) else image.size


def decode(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode an image to 8-bit RGB: expand palettes, repeat grey, drop alpha, apply the EXIF orientation.

    Raises:
        FormatError: the image is 16-bit or CMYK, or has further bands or pages, whose values would be lost silently.
        UserError: the image is damaged or animated, or has values beyond its palette.

    """
    with open_image(file, name) as image:
        check_palette(image, name)
        if (converted := as_rgb(image)) is not None:
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                note("the alpha channel is dropped, although it is not opaque everywhere")
            return converted
        raise FormatError(f"{name}: the image has {unlike_rgb(image)}, which is not 8-bit RGB")


def check_palette(image: Image.Image, name: str) -> None:
    """Refuse an opened image with a value beyond its palette, which decoders show as black."""
    if image.mode != "P" or image.palette is None:
        return
    palette = image.palette
    # Raw palettes of BMP have four bytes for a colour.
    colours = len(palette.palette) // (4 if palette.rawmode == "BGRX" else 3)
    image.load()
    _, highest = image.getextrema()
    if highest >= colours:
        raise UserError(
            f"{name}: the image holds the value {highest}, but its palette has colours only for 0 to {colours - 1}; "
            "add the colour, or correct the image"
        )


def as_rgb(image: Image.Image) -> Image.Image | None:
    """Return an image as 8-bit RGB by the rules of `decode`, or None if values would be lost."""
    if unlike_rgb(image):
        return None
    return ImageOps.exif_transpose(image).convert("RGBA" if image.mode == "P" else image.mode).convert("RGB")


def decode_ids(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode an image of ids (one channel of 8 or 16 bits) without changing its values.

    Raises:
        UserError: the image is damaged or has another mode.

    """
    with open_image(file, name) as image:
        image.load()
        if image.mode in ("L", "I;16", "I"):
            return image.convert("I;16") if image.mode == "I" else image.copy()
        mode = image.mode
    raise UserError(f"{name}: the image has mode {mode}; an image of ids must have one channel of 8 or 16 bits")
