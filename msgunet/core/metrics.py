"""The metrics of image quality: how they are printed, and for which images they are defined."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric of an output against its target.

    Attributes:
        heading: the heading of a column, with the unit.
        digits: the digits after the point.
        range: the least and the largest value; an end that it does not have is infinite.
        smallest: the shortest side, in pixels, of an image for which it is defined.
        of_constant_targets: whether it is defined for a target of one colour.
        unit: the unit after a number, with a space.
        formula: how it is computed, in words.
        higher_is_better: whether a larger value is a better one.

    """

    heading: str
    digits: int
    range: tuple[float, float]
    smallest: int = 1
    of_constant_targets: bool = True
    unit: str = ""
    formula: str = ""
    higher_is_better: bool = True

    def undefined(self, side: int, constant_target: bool) -> str:
        """Return why it is not defined for a target with this shorter side, or an empty string if it is."""
        if side < self.smallest:
            return f"smaller than {self.smallest} pixels"
        return "constant target" if constant_target and not self.of_constant_targets else ""


# Increases whenever the numbers would change: 1 was in single precision, with piq's constant in PSNR.
VERSION = 2
# Bytes per pixel of an image that is measured: values and maps in double precision.
METRICS_BYTES = 150
# With fewer test images a mean has no interval: a handful of resampled values covers far less than it claims.
FEWEST_IMAGES = 5
METRICS = {
    "psnr": Metric(
        "PSNR (dB)",
        2,
        (0.0, 100.0),
        unit=" dB",
        formula="10 log10(range² / mean squared difference over all pixels and channels), at most 100 dB",
    ),
    "ssim": Metric(
        "SSIM",
        3,
        (-1.0, 1.0),
        smallest=11,
        formula="mean over pixels and channels of (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)), "
        "Gaussian window of 11 pixels with σ 1.5, C1 = 0.01² and C2 = 0.03² for values from 0 to 1 (Wang et al. 2004)",
    ),
    # The share of the target's information that the output retains: of none, there is no share.
    "vif": Metric(
        "VIF",
        3,
        # Above 1 where the output has more contrast than the target.
        (0.0, math.inf),
        smallest=41,
        of_constant_targets=False,
        formula="information that the output shares with the target / the target's own, on luma, over four scales, in "
        "the pixel domain (Sheikh and Bovik 2006)",
    ),
}
