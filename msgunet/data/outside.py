"""Values outside the range that a suite gives for its images: cut, counted and reported. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat
from msgunet.data.base import DataSet

# The share of an image's pixels that may be cut: some hot pixels of a sensor, but no structure. Of labels none may.
MOST = 0.001
_LISTED = 10


@dataclass(frozen=True)
class Outside:
    """The pixels of one image that are outside the range, and the lowest and highest value of the whole image."""

    role: str
    file: str
    pixels: int
    total: int
    lowest: int
    highest: int

    @property
    def share(self) -> float:
        """The share of the pixels that are outside."""
        return self.pixels / self.total

    def __str__(self) -> str:
        """Return the image as it is listed."""
        return f"{self.file}: {percent(self.share)} of the pixels, with values from {self.lowest} to {self.highest}"


def cut(pixels: np.ndarray, given: ImageFormat, role: str, file: str) -> tuple[np.ndarray, Outside | None]:
    """Clip an image (H, W, C) to the range of its format, and count the pixels that this changes."""
    low, high = given.range
    lowest, highest = int(pixels.min()), int(pixels.max())
    if low <= lowest and highest <= high:
        return pixels, None
    count = int(((pixels < low) | (pixels > high)).any(axis=2).sum())
    return pixels.clip(low, high), Outside(role, file, count, pixels[..., 0].size, lowest, highest)


def report(outside: Sequence[Outside], dataset: DataSet) -> list[str]:
    """Return a line about the cut pixels of the sources, and one about those of the targets, where there are any.

    Raises:
        UserError: more than `MOST` of an image's pixels are outside, or any of a label image, where it would become
            another label, and the data set does not allow this.

    """
    options, notes, problems = dataset.options, [], []
    worst_first = sorted(outside, key=lambda one: (-one.share, one.file))
    for role, given, kind in zip(("source", "target"), dataset.formats(options), dataset.kinds(options), strict=True):
        found = [one for one in worst_first if one.role == role]
        beyond = [one for one in found if one.share > (0 if kind == "labels" else MOST)]
        images = f"1 {role} has" if len(found) == 1 else f"{len(found)} {role}s have"
        about = f"{images} values outside the range {given.range[0]} to {given.range[1]}"
        if beyond and not dataset.allows_outside(options):
            listed = (f"  {one}" for one in beyond[:_LISTED])
            more = [f"  and {len(beyond) - _LISTED} more"] if len(beyond) > _LISTED else []
            # Images that contain a pair have one format.
            same = outside if getattr(options, "pairs", None) else found
            most = "no label may be cut" if kind == "labels" else f"at most {percent(MOST)} of an image may be cut"
            problems += [f"{about}, and {most}:", *listed, *more, _advice(role, given, same)]
        elif found:
            notes.append(f"{about}: {sum(one.pixels for one in found)} pixels are cut. The worst is {found[0]}")
    if problems:
        raise UserError(*problems)
    return notes


def _advice(role: str, given: ImageFormat, found: Sequence[Outside]) -> str:
    low, high = (
        min(given.range[0], *(one.lowest for one in found)),
        max(given.range[1], *(one.highest for one in found)),
    )
    return (
        f"the range {low} to {high} holds all values: write it in the options of the data set, {role}_format: "
        f"{{channels: {given.channels}, range: [{low}, {high}]}}; or correct the images; or set allow_outside: true "
        "there to cut them"
    )


def percent(share: float) -> str:
    """Return a share as it is printed."""
    return f"{100 * share:.3g} %"
