"""The metrics of image quality: how they are printed, and for which images they are defined."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric of an output against its target.

    Attributes:
        heading: the heading of a column, with the unit.
        digits: the digits after the point.
        smallest: the shortest side, in pixels, of an image for which it is defined.
        of_constant_targets: whether it is defined for a target of one colour.
        unit: the unit after a number, with a space.

    """

    heading: str
    digits: int
    smallest: int = 1
    of_constant_targets: bool = True
    unit: str = ""

    def undefined(self, side: int, constant_target: bool) -> str:
        """Return why it is not defined for a target with this shorter side, or an empty string if it is."""
        if side < self.smallest:
            return f"smaller than {self.smallest} pixels"
        return "constant target" if constant_target and not self.of_constant_targets else ""


# Increases whenever the numbers would change: 1 was in single precision, with piq's constant in PSNR.
VERSION = 2
# With fewer test images a mean has no interval: a handful of resampled values covers far less than it claims.
FEWEST_IMAGES = 5
METRICS = {
    "psnr": Metric("PSNR (dB)", 2, unit=" dB"),
    "ssim": Metric("SSIM", 3, smallest=11),
    # The share of the target's information that the output retains: of none, there is no share.
    "vif": Metric("VIF", 3, smallest=41, of_constant_targets=False),
}
