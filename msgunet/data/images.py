"""Images as arrays (H, W, C) of 8 or 16 bits: reading by stated rules, resizing, writing, showing. Free of torch."""

import io
import logging
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, ImageFormat
from msgunet.data.base import DAMAGED, MODES, Kind, decode

# What Pillow can only read as something else.
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(file: Path | BinaryIO, name: str, wanted: ImageFormat = RGB) -> np.ndarray:
    """A whole image in the wanted format: (H, W, channels), uint8, or uint16 where values go beyond 255.

    For 8-bit RGB the rules of `decode`; for 8-bit grey the same, then luma. Any other format is taken as it is, and
    values beyond its range are brought to its ends.

    Raises:
        UserError: naming the image, if it is damaged or of another format.

    """
    if wanted.bits == 8 and wanted.channels in (1, 3) and not _has_pages(file):
        image = decode(file, name)
        pixels = as_pixels(image.convert("L") if wanted.channels == 1 else image)
    else:
        pixels = read_raw(file, name)
        if pixels.shape[2] != wanted.channels or pixels.dtype != wanted.dtype:
            raise UserError(
                f"{name}: {pixels.shape[2]} channels of {8 * pixels.dtype.itemsize} bits, the suite says "
                f"{wanted.channels} of {wanted.bits} bits (channels and range of the data set's formats)"
            )
    return pixels if wanted.range == (0, 2**wanted.bits - 1) else pixels.clip(*wanted.range)


def as_8_bits(file: Path, name: str) -> Image.Image | None:
    """The header of an image that `decode` takes; None for one that it does not, or of several pages.

    Raises:
        UserError: it is damaged.

    """
    try:
        with Image.open(file) as image:
            deep = any(";16" in str(tile.args) for tile in image.tile)
            there = image.mode in MODES and not deep and getattr(image, "n_frames", 1) == 1
            if image.mode == "CMYK":
                decode(file, name)
            return image if there else None
    except DAMAGED:
        return None


def _has_pages(file: Path | BinaryIO) -> bool:
    """Whether a TIFF has several pages, which are channels."""
    if not isinstance(file, Path) or file.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1) > 1
    except DAMAGED:
        return False


def read_raw(file: Path | BinaryIO, name: str) -> np.ndarray:
    """The values of an image as they are stored: (H, W, C), uint8 or uint16; planes and pages of a TIFF are channels.

    Raises:
        UserError: naming the image, if it is damaged or holds other numbers.

    """
    import imagecodecs
    import tifffile

    # What it logs of damaged files, our error says.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        data = file.read_bytes() if isinstance(file, Path) else file.read()
        if data.startswith(_PNG):
            pixels = imagecodecs.png_decode(data)
        elif data.startswith(_TIFF):
            with tifffile.TiffFile(io.BytesIO(data)) as tiff:
                pixels, axes = tiff.series[0].asarray(), tiff.series[0].axes
                if tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype in (
                    np.uint8,
                    np.uint16,
                ):
                    pixels = np.iinfo(pixels.dtype).max - pixels
                if pixels.ndim == 3 and axes.endswith("YX"):
                    pixels = np.moveaxis(pixels, 0, -1)
        else:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.array(image.convert({"P": "RGB", "PA": "RGBA", "1": "L"}.get(image.mode, image.mode)))
    except Exception as error:  # tifffile lets any through that a damaged file can cause
        raise UserError(f"{name}: not a whole image ({error}); restore the file and prepare again") from error
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise UserError(f"{name}: {pixels.ndim} axes of {pixels.dtype}; save it as 8 or 16 bits without sign")
    return as_pixels(pixels)


def as_pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """An image with or without an axis for channels, as (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resize(pixels: np.ndarray, size: tuple[int, int], kind: Kind) -> np.ndarray:
    """Bring an image to (width, height): photos by Lanczos, labels by nearest neighbour."""
    return resample(pixels, size, Image.Resampling.NEAREST if kind == "labels" else Image.Resampling.LANCZOS)


def resample(pixels: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """Bring an image to (width, height) by one of Pillow's filters."""
    if (pixels.shape[1], pixels.shape[0]) == tuple(size):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, how))
    planes = [Image.fromarray(plane.astype(np.float32)).resize(size, how) for plane in np.moveaxis(pixels, -1, 0)]
    values = np.stack([np.asarray(plane) for plane in planes], -1)
    return values.round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def save(path: Path, pixels: np.ndarray, level: int = 4, tiff: bool = False) -> None:
    """Write one or three channels as PNG, others, or with `tiff` all, as TIFF; `level`: of the compression, 0 to 9."""
    if tiff or pixels.shape[2] not in (1, 3):
        import tifffile

        colours = {"photometric": "rgb" if pixels.shape[2] == 3 else "minisblack"}
        layout = {"planarconfig": "contig"} if pixels.shape[2] > 1 else {}
        flat = pixels if pixels.shape[2] > 1 else pixels[..., 0]
        tifffile.imwrite(path, flat, **colours, **layout, compression="zlib", compressionargs={"level": level})
    elif pixels.dtype == np.uint16 and pixels.shape[2] == 3:
        import imagecodecs

        path.write_bytes(imagecodecs.png_encode(pixels, level=level))
    else:
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        Image.fromarray(np.ascontiguousarray(flat)).save(path, "PNG", compress_level=level)


def to_display(pixels: np.ndarray, given: ImageFormat) -> np.ndarray:
    """An image for people: 8-bit RGB, the range from black to white, of other channels those of `given.rgb`."""
    if given == RGB:
        return pixels
    low, high = given.range
    values = (pixels[..., given.rgb].astype(np.float32) - low) * (255 / (high - low))
    return values.round().clip(0, 255).astype(np.uint8)
