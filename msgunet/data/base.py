"""The base class of data sets, and the decoding of images. Does not import torch."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, DataSetSettings, ImageFormat, Resampling, Strict
from msgunet.core.text import first_line
from msgunet.data.limits import check_size
from msgunet.data.login import ACCOUNT_ADVICE, credentials

Kind = Literal["photo", "labels"]
Split = Literal["train", "test"]

# `open_image` checks the size instead: Pillow has one limit for all images.
Image.MAX_IMAGE_PIXELS = None
# Measured with `decode`, which holds three copies of an image for a moment; Pillow takes four bytes for a pixel.
_BYTES_PER_VALUE = 4

# The Pillow modes that can be converted to 8-bit RGB without loss.
RGB_MODES = ("RGB", "RGBA", "P", "PA", "L", "LA", "1")
# The formats that are opened. JPEG includes MPO, the JPEG of many phones.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        name: file name in the archives folder.
        urls: mirrors, in the order in which they are tried; empty if the file cannot be downloaded.
        about: size, description or origin, as text for messages.
        size: in bytes; None if it is not published.
        checksum: `md5:` or `sha256:` with all or the first hexadecimal digits; None if it is not published.
        login: whether the site requires an account.

    """

    name: str
    urls: tuple[str, ...]
    about: str
    size: int | None = None
    checksum: str | None = None
    login: bool = False


class DataSetOptions(Strict):
    """Base class of the options of a data set."""


@dataclass(frozen=True)
class RawPair:
    """One pair as published, before it is prepared.

    Attributes:
        id: unique in the data set.
        split: `train` or `test`.
        load: decodes the pair and returns, by name, `source`, `target` and any further images for methods. All have one
            size and are images or arrays (H, W, C).
        name: what error messages call the pair (a file, or a place in one).
        load_at: decodes source and target at a given (width, height), if the published images have more pixels than
            those that `load` returns.

    """

    id: str
    split: Split
    load: Callable[[], Mapping[str, Image.Image | np.ndarray]]
    name: str
    load_at: Callable[[tuple[int, int]], Mapping[str, Image.Image | np.ndarray]] | None = None


class DataSet:
    """Base class of all data sets.

    Attributes:
        name: set by `register_dataset`.
        title, licence, source_url: for reports.
        redistributable: whether reports with its images can be redistributed.
        default_size: width and height in pixels in the paper, or else the most common size of the data set.
        version: incremented whenever the prepared images would change.
        Options: pydantic model of the data set's options.

    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    source_url: ClassVar[str]
    redistributable: ClassVar[bool] = False
    default_size: ClassVar[tuple[int, int]] = (512, 512)
    version: ClassVar[int] = 1
    Options: ClassVar[type[DataSetOptions]] = DataSetOptions

    def __init__(self, options: DataSetOptions, size: tuple[int, int], archives: Path) -> None:
        """Create a data set.

        Args:
            options: of this data set.
            size: width and height of the prepared images.
            archives: folder with the published files.

        """
        self.options: Any = options
        self.size = size
        self.archives = archives
        # `build_dataset` sets these.
        self.resampling: Resampling = "lanczos"
        self.train_size: tuple[int, int] | None = None

    @classmethod
    def default_settings(cls, size: Sequence[int] | None = None) -> DataSetSettings:
        """Return the settings with default options, at `size` or the usual size.

        Raises:
            UserError: an option has no default, or the size is out of range.

        """
        try:
            options = cls.Options().model_dump(mode="json")
            return DataSetSettings(
                kind=cls.name, version=cls.version, size=tuple(size or cls.default_size), options=options
            )
        except ValidationError as error:
            problems = (f"{cls.name}: {'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors())
            raise UserError(
                *problems, f"write a suite for {cls.name}, or pass its dataset.json with --settings"
            ) from error

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        """Return whether source and target are photos (resized with `resampling`) or labels (nearest neighbour)."""
        return "photo", "photo"

    @classmethod
    def formats(cls, options: Any) -> tuple[ImageFormat, ImageFormat]:
        """Return the channels and value ranges of source and target."""
        return RGB, RGB

    @classmethod
    def remotes(cls, options: Any) -> tuple[Remote, ...]:
        """Return the published files that the data set is made from."""
        return ()

    @classmethod
    def listing(cls, options: Any) -> str:
        """Return a key for the current files of a folder that users can change; another key means another data set."""
        return ""

    @classmethod
    def times(cls, options: Any) -> str:
        """Return a key for the same files that changes with their modification times too, or an empty string.

        Another key means another preparation.
        """
        return ""

    def inputs(self) -> list[Path]:
        """Return the existing files that the data set is made from."""
        paths = [self.archives / remote.name for remote in self.remotes(self.options)]
        return [path for path in paths if path.is_file()]

    def missing(self, downloads: bool = False) -> list[str]:
        """Return what is missing before the data set can be prepared: one sentence each, with how to get it.

        With `downloads`, files that can be downloaded without user action do not count as missing.
        """
        absent = [remote for remote in self.remotes(self.options) if not (self.archives / remote.name).is_file()]
        if not downloads:
            advice = f"put it there, or remove data.mirror and run 'msgunet fetch {self.name}'"
            return [
                f"{self.name}: {remote.name} is not in {self.archives} ({remote.about}); "
                + (advice if remote.urls else "put it there")
                for remote in absent
            ]
        problems = [f"{self.name}: put {r.name} into {self.archives} by hand ({r.about})" for r in absent if not r.urls]
        if any(remote.login for remote in absent):
            try:
                if credentials() is None:
                    problems.append(
                        f"{self.name}: {' and '.join(r.name for r in absent if r.login)} need {ACCOUNT_ADVICE}"
                    )
            except UserError as error:
                problems += error.problems
        return problems

    def count(self) -> tuple[int, int] | None:
        """Return the numbers of training and test pairs, or None if they are not known before preparation."""
        return None

    def pairs(self, work: Path) -> Sequence[RawPair]:
        """Return all pairs. `work` is an empty folder for unpacked files, which is removed afterwards."""
        raise NotImplementedError


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
        with Image.open(file, formats=FORMATS) as image:
            check_size(name, *image.size, 3, value_bytes=_BYTES_PER_VALUE)
            # The pages of a TIFF are channels, and the further images of an MPO are previews.
            if image.format in ("GIF", "PNG", "WEBP") and (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"{name}: an animation of {frames} frames; save the one that you mean as an image")
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: not an image, or not in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # hostile files make decoders raise anything
        raise UserError(f"{name}: the image is damaged ({first_line(error)})") from error


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
        UserError: the image is damaged or animated.

    """
    with open_image(file, name) as image:
        if (converted := as_rgb(image)) is not None:
            return converted
        raise FormatError(f"{name}: the image has {unlike_rgb(image)}, which is not 8-bit RGB")


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
