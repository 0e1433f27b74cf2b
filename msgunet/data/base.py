"""What a data set is, and how images are read and resized. Free of torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, DataSetSettings, ImageFormat, Strict
from msgunet.data.login import HOW, credentials

Kind = Literal["photo", "labels"]
Split = Literal["train", "test"]

# The largest images here are the globe's at 10800x5400; beyond twice that a file is more likely an attack.
Image.MAX_IMAGE_PIXELS = 120_000_000

# Of Pillow's, those that become 8-bit RGB without loss.
MODES = ("RGB", "RGBA", "P", "PA", "L", "LA", "1")
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Remote:
    """A published file.

    name: under which it is kept. urls: its mirrors, in the order in which they are tried; none where it is not
    downloaded. about: what it is and where it comes from, in words. size: in bytes. checksum: `md5:` or `sha256:` with
    all or the first of the hexadecimal digits; None where nobody publishes one. login: the site asks for an account.
    """

    name: str
    urls: tuple[str, ...]
    about: str
    size: int | None = None
    checksum: str | None = None
    login: bool = False


class DataSetOptions(Strict):
    """Base of every data set's own settings."""


@dataclass(frozen=True)
class RawPair:
    """One pair as it lies in the archive.

    load: decodes it into `source`, `target` and what else a method may want under names of its own, all of one size;
    images or arrays (H, W, C).
    name: what an error calls it (a file, or a place in one).
    """

    id: str
    split: Split
    load: Callable[[], Mapping[str, Image.Image | np.ndarray]]
    name: str


class DataSet:
    """Base class of all data sets.

    Class attributes:
        name: set by `register_dataset`.
        title, licence, source_url: for reports.
        shareable: whether reports with its images may be passed on.
        usual_size: width and height in pixels that the paper uses, or that it is best known at.
        version: goes up whenever the prepared images would change.
        Options: model of the data set's own settings.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    source_url: ClassVar[str]
    shareable: ClassVar[bool] = False
    usual_size: ClassVar[tuple[int, int]] = (512, 512)
    version: ClassVar[int] = 1
    Options: ClassVar[type[DataSetOptions]] = DataSetOptions

    def __init__(self, options: DataSetOptions, size: tuple[int, int], archives: Path) -> None:
        """`size`: width and height of the prepared images; `archives`: folder that holds the published files."""
        self.options: Any = options
        self.size = size
        self.archives = archives

    @classmethod
    def usual_settings(cls, size: Sequence[int] | None = None) -> DataSetSettings:
        """The settings with all options as they are by default, at `size` or the usual one.

        Raises:
            UserError: the options have no defaults, or the size is out of range.

        """
        try:
            options = cls.Options().model_dump(mode="json")
            return DataSetSettings(
                kind=cls.name, version=cls.version, size=tuple(size or cls.usual_size), options=options
            )
        except ValidationError as error:
            problems = (f"{cls.name}: {'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors())
            raise UserError(
                *problems, f"write a suite for {cls.name}, or give its dataset.json by --settings"
            ) from error

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        """Whether source and target are photos (resized by Lanczos) or labels (nearest neighbour)."""
        return "photo", "photo"

    @classmethod
    def formats(cls, options: Any) -> tuple[ImageFormat, ImageFormat]:
        """Channels and values of source and target."""
        return RGB, RGB

    @classmethod
    def remotes(cls, options: Any) -> tuple[Remote, ...]:
        """The published files that it is made from."""
        return ()

    @classmethod
    def listing(cls, options: Any) -> str:
        """What of its files, beside the settings, makes it another data set: for folders that people change."""
        return ""

    def inputs(self) -> list[Path]:
        """The files that it is made from, as far as they are there."""
        paths = [self.archives / remote.name for remote in self.remotes(self.options)]
        return [path for path in paths if path.is_file()]

    def missing(self, downloads: bool = False) -> list[str]:
        """What must be there before anything starts and is not: one sentence each, with how to get it.

        `downloads`: what can be downloaded without further ado is not missing.
        """
        absent = [remote for remote in self.remotes(self.options) if not (self.archives / remote.name).is_file()]
        if not downloads:
            advice = f"put it there, or say 'msgunet fetch {self.name}' and leave data.mirror out"
            return [
                f"{self.name}: {remote.name} is not in {self.archives} ({remote.about}); "
                + (advice if remote.urls else "put it there")
                for remote in absent
            ]
        problems = [f"{self.name}: {r.name} must be put into {self.archives}: {r.about}" for r in absent if not r.urls]
        if any(remote.login for remote in absent):
            try:
                if credentials() is None:
                    problems.append(f"{self.name}: {' and '.join(r.name for r in absent if r.login)} need {HOW}")
            except UserError as error:
                problems += error.problems
        return problems

    def count(self) -> tuple[int, int] | None:
        """Training and test pairs, where that is known before they are prepared."""
        return None

    def pairs(self, work: Path) -> Sequence[RawPair]:
        """All pairs; `work` is an empty folder to unpack into, removed afterwards."""
        raise NotImplementedError


def decode(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode a whole image to 8-bit RGB: palettes looked up, grey repeated, alpha dropped, turned as EXIF says.

    Raises:
        UserError: naming the image, if it is damaged, or 16-bit or CMYK (which would lose their values silently).

    """
    try:
        with Image.open(file) as image:
            # Pillow reads 16-bit colours as 8-bit ones; only the raw mode tells.
            deep = any(";16" in str(tile.args) for tile in image.tile)
            image.load()
            if not deep and (converted := as_rgb(image)) is not None:
                return converted
            mode = f"{image.mode}{' (16 bits)' if deep else ''}"
    except DAMAGED as error:
        raise UserError(f"{name}: not a whole image ({error}); restore the file and prepare again") from error
    raise UserError(
        f"{name}: an image of mode {mode} is not 8-bit RGB; save it as that, or say what it is (for 'kind: folder': "
        "source_format and target_format, with channels and range)"
    )


def as_rgb(image: Image.Image) -> Image.Image | None:
    """An image as 8-bit RGB by the rules of `decode`; None for a mode whose values would be lost."""
    if image.mode not in MODES:
        return None
    return ImageOps.exif_transpose(image).convert("RGBA" if image.mode == "P" else image.mode).convert("RGB")


def decode_ids(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode an image of ids, 8 or 16 bits in one channel, as it is.

    Raises:
        UserError: naming the image, if it is damaged or of another kind.

    """
    try:
        with Image.open(file) as image:
            image.load()
            if image.mode in ("L", "I;16", "I"):
                return image.convert("I;16") if image.mode == "I" else image.copy()
            mode = image.mode
    except DAMAGED as error:
        raise UserError(f"{name}: not a whole image ({error}); restore the file and prepare again") from error
    raise UserError(f"{name}: an image of ids has one channel, this one is of mode {mode}")
