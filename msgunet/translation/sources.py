"""Sources in the format that a generator takes, and outputs as Pillow images. Does not import torch."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat
from msgunet.data.decode import FormatError, as_rgb, unlike_rgb
from msgunet.data.images import as_pixels, read


def read_source(path: Path, expected: ImageFormat) -> np.ndarray:
    """Read an image in the expected format.

    Raises:
        UserError: the image is missing, damaged, too large, or has another format.

    """
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not an image' if path.is_dir() else 'no such file'}")
    try:
        return read(path, str(path), expected)
    except FormatError as error:
        raise UserError(*(f"{problem}; {_wanted(expected)}" for problem in error.problems)) from error


def as_source(image: Image.Image | np.ndarray, expected: ImageFormat) -> np.ndarray:
    """Return a Pillow image or an array as an array (H, W, C) in the expected format.

    Raises:
        UserError: it has other channels or values.

    """
    if isinstance(image, Image.Image) and expected.bits == 8 and expected.channels in (1, 3):
        upright = as_rgb(image)
        if upright is None:
            raise UserError(f"the image has {unlike_rgb(image)}; {_wanted(expected)}")
        return as_pixels(upright.convert("L") if expected.channels == 1 else upright)
    pixels = as_pixels(ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else image)
    if 0 in pixels.shape:
        raise UserError(f"an array of shape {pixels.shape} is not an image")
    if pixels.ndim != 3 or pixels.shape[2] != expected.channels or pixels.dtype != expected.dtype:
        raise UserError(
            f"an array of shape {pixels.shape} and type {pixels.dtype}; this model translates {expected}: shape "
            f"(height, width, {expected.channels}) and type {expected.dtype}"
        )
    return pixels


def to_pillow(pixels: np.ndarray) -> Image.Image:
    """Return an array (H, W, C) as a Pillow image: 8-bit RGB, or one channel of 8 or 16 bits."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _wanted(expected: ImageFormat) -> str:
    return f"this model translates {expected}, so convert the image"
