"""Images as arrays (H, W, C) of 8 or 16 bits: reading, resizing, writing and display. Does not import torch."""

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from msgunet.core.errors import UserError
from msgunet.core.permissions import explain
from msgunet.core.settings import RGB, ImageFormat, Resampling
from msgunet.core.text import first_line
from msgunet.data.base import Fit, Kind
from msgunet.data.decode import FormatError, channels_of_tiff, check_palette, decode, open_image, unlike_rgb
from msgunet.data.decoder_notes import note, reading
from msgunet.data.limits import check_size

# Signatures of PNG and TIFF. Pillow can read some of these files only by converting their values.
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The type of a PNG with a palette, and what a PNG contains that is animated or may be turned.
_PALETTE, _PNG_MARKS = 3, (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp", b"acTL")


def read(file: Path | BinaryIO, name: str, expected: ImageFormat = RGB, clip: bool = True) -> np.ndarray:
    """Read an image in the expected format as (H, W, channels): uint8, or uint16 if the range goes above 255.

    8-bit RGB is read by the rules of `decode`, and 8-bit grey by the same rules and then converted to luma. Any other
    format is read as stored. Values outside the range are clipped, unless `clip` is false.

    Raises:
        FormatError: the image has another format.
        UserError: the image is damaged or animated.

    """
    if expected.bits == 8 and expected.channels in (1, 3) and not _is_stack(file, name):
        image = decode(file, name)
        pixels = as_pixels(image.convert("L") if expected.channels == 1 else image)
    else:
        pixels = read_raw(file, name)
        if pixels.shape[2] != expected.channels or pixels.dtype != expected.dtype:
            raise FormatError(
                f"{name}: the image has {pixels.shape[2]} channels of {8 * pixels.dtype.itemsize} bits, but "
                f"{expected.channels} of {expected.bits} bits are expected"
            )
    return pixels.clip(*expected.range) if clip and can_be_outside(expected) else pixels


def can_be_outside(given: ImageFormat) -> bool:
    """Return whether a file can hold values outside the range of its format."""
    return given.range != (0, 2**given.bits - 1)


def header_if_8_bit(file: Path, name: str) -> Image.Image | None:
    """Return the header of an image that `decode` can read, or None for other images.

    Raises:
        UserError: the image is CMYK.

    """
    try:
        with open_image(file, name) as image:
            readable = unlike_rgb(image) is None
    except UserError:
        return None
    if image.mode == "CMYK":
        decode(file, name)
    return image if readable else None


def _is_stack(file: Path | BinaryIO, name: str) -> bool:
    """Return whether the file is a TIFF whose pages or bands are channels, or whose layout Pillow does not know."""
    if isinstance(file, Path):
        try:
            with file.open("rb") as opened:
                return _is_stack(opened, name)
        except OSError:
            return False
    if file.read(4) not in _TIFF:
        file.seek(0)
        return False
    file.seek(0)
    try:
        with open_image(file, name) as image:
            return channels_of_tiff(image)
    except UserError:
        return True
    finally:
        file.seek(0)


def read_raw(file: Path | BinaryIO, name: str) -> np.ndarray:
    """Return the stored values of an image as (H, W, C), uint8 or uint16, with the EXIF orientation applied.

    Planes and pages of a TIFF are channels.

    Raises:
        UserError: the image is damaged, has values of another type, or has values beyond its palette.

    """
    try:
        with reading(name):
            data = file.read_bytes() if isinstance(file, Path) else file.read()
            if data.startswith(_PNG):
                pixels = _read_png(data, name)
            elif data.startswith(_TIFF):
                pixels = _read_tiff(data, name)
            else:
                with open_image(io.BytesIO(data), name) as opened:
                    check_palette(opened, name)
                    image = ImageOps.exif_transpose(opened)
                    pixels = np.array(image.convert({"P": "RGB", "PA": "RGBA", "1": "L"}.get(image.mode, image.mode)))
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(explain(error)) from error
    except Exception as error:  # a damaged file can make the decoders raise anything
        raise UserError(f"{name}: the image is damaged ({first_line(error)})") from error
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise UserError(f"{name}: the image has {pixels.ndim} axes of {pixels.dtype}; save it as unsigned 8 or 16 bits")
    return as_pixels(pixels)


def _read_png(data: bytes, name: str) -> np.ndarray:
    import imagecodecs

    width, height, bits, colours = struct.unpack(">IIBB", data[16:26])
    channels = {2: 3, 4: 2, 6: 4}.get(colours, 1)
    check_size(name, width, height, channels, value_bytes=2 if bits == 16 else 1)
    orientation = 1
    # Pillow decodes the whole image to find its orientation, so files without any metadata about it are not opened.
    if colours == _PALETTE or any(mark in data for mark in _PNG_MARKS):
        with open_image(io.BytesIO(data), name) as image:
            check_palette(image, name)
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return turn(imagecodecs.png_decode(data), orientation)


def _read_tiff(data: bytes, name: str) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        check_size(name, *tiff.series[0].shape, value_bytes=tiff.series[0].dtype.itemsize)
        if len(tiff.series) > 1:
            note(f"only the first of {len(tiff.series)} images in the file is read")
        pixels, axes = tiff.series[0].asarray(), tiff.series[0].axes
        if tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype in (np.uint8, np.uint16):
            pixels = np.iinfo(pixels.dtype).max - pixels
        if pixels.ndim == 3 and axes.endswith("YX"):
            pixels = np.moveaxis(pixels, 0, -1)
        return turn(pixels, tiff.pages[0].tags.valueof(ExifTags.Base.Orientation, default=1))


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an image (H, W) or (H, W, C) upright by its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def as_pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return an image, with or without a channel axis, as (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resize(pixels: np.ndarray, size: tuple[int, int], kind: Kind, resampling: Resampling = "lanczos") -> np.ndarray:
    """Resize an image to (width, height): photos with the filter `resampling`, labels with nearest neighbour."""
    return resample(pixels, size, Image.Resampling["NEAREST" if kind == "labels" else resampling.upper()])


def fit_shape(pixels: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """Return an image (H, W, C) with the aspect ratio of (width, height): cropped or padded, but not resized.

    `crop` keeps the centre, `pad` continues the image on both sides as in a mirror, `stretch` changes nothing.
    """
    height, width = pixels.shape[:2]
    # Sides with the ratio of `size` and the height or the width of the image.
    wide, high = round(height * size[0] / size[1]), round(width * size[1] / size[0])
    if fit == "crop":
        sides = (min(width, max(1, wide)), min(height, max(1, high)))
        left, top = (width - sides[0]) // 2, (height - sides[1]) // 2
        return pixels[top : top + sides[1], left : left + sides[0]]
    if fit == "pad":
        x, y = max(0, wide - width), max(0, high - height)
        # Rounded down and up, only one side grows.
        x, y = (x, 0) if x * height >= y * width else (0, y)
        return np.pad(pixels, ((y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0)), mode="symmetric")
    return pixels


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


def save(path: Path, pixels: np.ndarray, level: int | None = None, tiff: bool = False) -> None:
    """Write one or three channels as PNG, and any other number as TIFF; both without loss.

    Args:
        path: of the file.
        pixels: (H, W, C), uint8 or uint16.
        level: compression level, 0 to 9; by default photographs are written as fast as possible.
        tiff: write TIFF for any number of channels.

    """
    # A copy, because imagecodecs refuses the strides that a view can have along an axis of one pixel.
    flat = np.array(pixels[..., 0] if pixels.shape[2] == 1 else pixels, order="C")
    if tiff or pixels.shape[2] not in (1, 3):
        import tifffile

        colours = {"photometric": "rgb" if pixels.shape[2] == 3 else "minisblack"}
        layout = {"planarconfig": "contig"} if pixels.shape[2] > 1 else {}
        settings = {"level": 4 if level is None else level}
        tifffile.imwrite(path, flat, **colours, **layout, compression="zlib", compressionargs=settings)
    else:
        path.write_bytes(_encode_png(flat, level))


def _encode_png(pixels: np.ndarray, level: int | None) -> bytes | memoryview:
    """Encode an image (H, W) or (H, W, 3) as PNG.

    Behind a PNG filter, photographs hold many small numbers but few repetitions. Without a level, only runs are sought,
    not repetitions, which would take most of the time and make the file larger. Without imagecodecs, Pillow does the
    same in twice the time, because it tries every filter on every row. It has no 16-bit colours.
    """
    try:
        import imagecodecs
    except ModuleNotFoundError:
        if pixels.dtype == np.uint16 and pixels.ndim == 3:
            raise
    else:
        png = imagecodecs.PNG
        if level is None:
            return imagecodecs.png_encode(pixels, level=1, strategy=png.STRATEGY.RLE, filter=png.FILTER.PAETH)
        if pixels.dtype == np.uint16 and pixels.ndim == 3:
            return imagecodecs.png_encode(pixels, level=level)
    encoded = io.BytesIO()
    way = {"compress_level": 1, "compress_type": zlib.Z_RLE} if level is None else {"compress_level": level}
    Image.fromarray(pixels).save(encoded, "PNG", **way)
    return encoded.getbuffer()


def to_display(pixels: np.ndarray, stored: ImageFormat) -> np.ndarray:
    """Convert an image to 8-bit RGB for display.

    The range of `stored` becomes black to white, and `stored.rgb` selects the channels.
    """
    if stored == RGB:
        return pixels
    low, high = stored.range
    values = (pixels[..., stored.rgb].astype(np.float32) - low) * (255 / (high - low))
    return values.round().clip(0, 255).astype(np.uint8)
