"""The base class of data sets. Does not import torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import ValidationError

from msgunet.core.errors import UserError, collected
from msgunet.core.settings import RGB, DataSetSettings, ImageFormat, Resampling, Strict
from msgunet.data.login import ACCOUNT_ADVICE, credentials

Kind = Literal["photo", "labels"]
Split = Literal["train", "test"]
# What is done with images of another aspect ratio than the prepared ones.
Fit = Literal["stretch", "crop", "pad"]


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
            size and are images or arrays (H, W, C). Source and target are cut to their range later.
        name: what error messages call the pair (a file, or a place in one).
        load_at: decodes source and target at a given (width, height), if the published images have more pixels than
            those that `load` returns.
        files: what error messages call source and target, if not `name`.

    """

    id: str
    split: Split
    load: Callable[[], Mapping[str, Image.Image | np.ndarray]]
    name: str
    load_at: Callable[[tuple[int, int]], Mapping[str, Image.Image | np.ndarray]] | None = None
    files: tuple[str, str] | None = None


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
    def shaped(cls, options: Any) -> str:
        """Return how images are given the aspect ratio of the size, for reports; empty if they are only resized."""
        return ""

    @classmethod
    def allows_outside(cls, options: Any) -> bool:
        """Return whether any number of values outside the range of their format is cut without an error."""
        return False

    @classmethod
    def remotes(cls, options: Any) -> tuple[Remote, ...]:
        """Return the published files that the data set is made from."""
        return ()

    @classmethod
    def own_files(cls, options: Any) -> list[tuple[str, int, int]]:
        """Return path, size in bytes and modification time in ns of all files in a folder that users can change.

        Other paths or sizes mean another data set, and other times another preparation.
        """
        return []

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
            with collected(problems):
                if credentials() is None:
                    problems.append(
                        f"{self.name}: {' and '.join(r.name for r in absent if r.login)} need {ACCOUNT_ADVICE}"
                    )
        return problems

    def count(self) -> tuple[int, int] | None:
        """Return the numbers of training and test pairs, or None if they are not known before preparation."""
        return None

    def pairs(self, work: Path) -> Sequence[RawPair]:
        """Return all pairs. `work` is an empty folder for unpacked files, which is removed afterwards."""
        raise NotImplementedError
