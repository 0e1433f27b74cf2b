"""What a data set is, and how pictures are read and resized. Free of torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from PIL import Image

from msgunet.config import Strict
from msgunet.errors import UserError

Kind = Literal["photo", "labels"]

# The largest pictures here are the globe's at 10800x5400; beyond twice that a file is more likely an attack.
Image.MAX_IMAGE_PIXELS = 120_000_000


class DataSetOptions(Strict):
    """Base of every data set's own settings."""


@dataclass(frozen=True)
class RawPair:
    """One pair as it lies in the archive; the two functions decode it when called.

    name: what an error calls it (a file, or a place in one).
    """

    id: str
    split: Literal["train", "test"]
    source: Callable[[], Image.Image]
    target: Callable[[], Image.Image]
    name: str


class DataSet:
    """Base class of all data sets.

    Class attributes:
        name: set by `register_dataset`.
        title, licence, source_url: for reports.
        shareable: whether reports with its pictures may be passed on.
        version: goes up whenever the prepared pictures would change.
        Options: model of the data set's own settings.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    source_url: ClassVar[str]
    shareable: ClassVar[bool] = False
    version: ClassVar[int] = 1
    Options: ClassVar[type[DataSetOptions]] = DataSetOptions

    def __init__(self, options: DataSetOptions, size: tuple[int, int], mirror: Path) -> None:
        """`size`: width and height of the prepared pictures; `mirror`: folder that holds the archives."""
        self.options: Any = options
        self.size = size
        self.mirror = mirror

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        """Whether source and target are photos (resized by Lanczos) or labels (nearest neighbour)."""
        return "photo", "photo"

    def missing(self) -> list[str]:
        """What must be there before anything starts and is not: one sentence each, with how to get it."""
        return []

    def pairs(self, work: Path) -> Sequence[RawPair]:
        """All pairs; `work` is an empty folder to unpack into, removed afterwards."""
        raise NotImplementedError


def decode(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode a whole picture to 8-bit RGB: alpha dropped, palettes looked up, grey repeated.

    Raises:
        UserError: naming the picture, if it is damaged, or 16-bit or CMYK (which would lose their values silently).

    """
    try:
        with Image.open(file) as image:
            image.load()
            if image.mode in ("RGB", "RGBA", "P", "PA", "L", "LA", "1"):
                return image.convert("RGBA" if image.mode == "P" else image.mode).convert("RGB")
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: not a whole picture ({error}); restore the file and prepare again") from error
    raise UserError(f"{name}: pictures of mode {mode} are not supported; save it as 8-bit RGB")


def resize(image: Image.Image, size: tuple[int, int], kind: Kind) -> Image.Image:
    """Bring a picture to (width, height): photos by Lanczos, labels by nearest neighbour."""
    if image.size == tuple(size):
        return image
    return image.resize(size, Image.Resampling.NEAREST if kind == "labels" else Image.Resampling.LANCZOS)


def missing_archives(mirror: Path, wanted: dict[str, str], name: str) -> list[str]:
    """One sentence for each file of `wanted` (file name: size and origin) that is not in the folder `mirror`."""
    return [
        f"{name}: {file} ({where}); download it into {mirror}, or set data.mirror to the folder that holds it"
        for file, where in wanted.items()
        if not (mirror / file).is_file()
    ]
