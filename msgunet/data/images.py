"""Images as arrays (H, W, C) of 8 or 16 bits: reading, resizing, writing and display. Does not import torch."""

import io
import logging
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, ImageFormat, Resampling
from msgunet.core.text import first_line
from msgunet.data.base import RGB_MODES, Kind, decode, open_image
from msgunet.data.limits import check_size

# Signatures of PNG and TIFF. Pillow can read some of these files only by converting their values.
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(file: Path | BinaryIO, name: str, expected: ImageFormat = RGB) -> np.ndarray:
    """Read an image in the expected format as (H, W, channels): uint8, or uint16 if the range goes above 255.

    8-bit RGB is read by the rules of `decode`, and 8-bit grey by the same rules and then converted to luma. Any other
    format is read as stored. Values outside the range are clipped.

    Raises:
        UserError: the image is damaged or has another format.

    """
    if expected.bits == 8 and expected.channels in (1, 3) and not _has_pages(file):
        image = decode(file, name)
        pixels = as_pixels(image.convert("L") if expected.channels == 1 else image)
    else:
        pixels = read_raw(file, name)
        if pixels.shape[2] != expected.channels or pixels.dtype != expected.dtype:
            raise UserError(
                f"{name}: the image has {pixels.shape[2]} channels of {8 * pixels.dtype.itemsize} bits, but the suite "
                f"expects {expected.channels} of {expected.bits} bits (channels and range of the data set's formats)"
            )
    return pixels if expected.range == (0, 2**expected.bits - 1) else pixels.clip(*expected.range)


def header_if_8_bit(file: Path, name: str) -> Image.Image | None:
    """Return the header of an image that `decode` can read, or None for other images and those with several pages.

    Raises:
        UserError: the image is CMYK.

    """
    cmyk = False
    try:
        with open_image(file, name) as image:
            deep = any(";16" in str(tile.args) for tile in image.tile)
            readable = image.mode in RGB_MODES and not deep and getattr(image, "n_frames", 1) == 1
            cmyk = image.mode == "CMYK"
    except UserError:
        return None
    if cmyk:
        decode(file, name)
    return image if readable else None


def _has_pages(file: Path | BinaryIO) -> bool:
    """Return whether the file is a TIFF with several pages, which are its channels."""
    if not isinstance(file, Path) or file.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with open_image(file, str(file)) as image:
            return getattr(image, "n_frames", 1) > 1
    except UserError:
        return False


def read_raw(file: Path | BinaryIO, name: str) -> np.ndarray:
    """Return the stored values of an image as (H, W, C), uint8 or uint16. Planes and pages of a TIFF are channels.

    Raises:
        UserError: the image is damaged or has values of another type.

    """
    import imagecodecs
    import tifffile

    # The error below already reports what tifffile logs about damaged files.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        data = file.read_bytes() if isinstance(file, Path) else file.read()
        if data.startswith(_PNG):
            width, height, bits, colours = struct.unpack(">IIBB", data[16:26])
            channels = {2: 3, 4: 2, 6: 4}.get(colours, 1)
            check_size(name, width, height, channels, value_bytes=2 if bits == 16 else 1)
            pixels = imagecodecs.png_decode(data)
        elif data.startswith(_TIFF):
            with tifffile.TiffFile(io.BytesIO(data)) as tiff:
                check_size(name, *tiff.series[0].shape, value_bytes=tiff.series[0].dtype.itemsize)
                pixels, axes = tiff.series[0].asarray(), tiff.series[0].axes
                if tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype in (
                    np.uint8,
                    np.uint16,
                ):
                    pixels = np.iinfo(pixels.dtype).max - pixels
                if pixels.ndim == 3 and axes.endswith("YX"):
                    pixels = np.moveaxis(pixels, 0, -1)
        else:
            with open_image(io.BytesIO(data), name) as image:
                pixels = np.array(image.convert({"P": "RGB", "PA": "RGBA", "1": "L"}.get(image.mode, image.mode)))
    except UserError:
        raise
    except Exception as error:  # a damaged file can make the decoders raise anything
        raise UserError(f"{name}: the image is damaged ({first_line(error)})") from error
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise UserError(f"{name}: the image has {pixels.ndim} axes of {pixels.dtype}; save it as unsigned 8 or 16 bits")
    return as_pixels(pixels)


def as_pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return an image, with or without a channel axis, as (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resize(pixels: np.ndarray, size: tuple[int, int], kind: Kind, resampling: Resampling = "lanczos") -> np.ndarray:
    """Resize an image to (width, height): photos with the filter `resampling`, labels with nearest neighbour."""
    return resample(pixels, size, Image.Resampling["NEAREST" if kind == "labels" else resampling.upper()])


def resample(pixels: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """Resize an image to (width, height) with one of Pillow's filters."""
    if (pixels.shape[1], pixels.shape[0]) == tuple(size):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, resampling))
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize(size, resampling) for plane in np.moveaxis(pixels, -1, 0)
    ]
    values = np.stack([np.asarray(plane) for plane in planes], -1)
    return values.round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def save(path: Path, pixels: np.ndarray, level: int = 4, tiff: bool = False) -> None:
    """Write one or three channels as PNG, and any other number as TIFF.

    Args:
        path: of the file.
        pixels: (H, W, C), uint8 or uint16.
        level: compression level, 0 to 9.
        tiff: write TIFF for any number of channels.

    """
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


def to_display(pixels: np.ndarray, stored: ImageFormat) -> np.ndarray:
    """Convert an image to 8-bit RGB for display.

    The range of `stored` becomes black to white, and `stored.rgb` selects the channels.
    """
    if stored == RGB:
        return pixels
    low, high = stored.range
    values = (pixels[..., stored.rgb].astype(np.float32) - low) * (255 / (high - low))
    return values.round().clip(0, 255).astype(np.uint8)
