"""The metrics of image quality: how they are printed, in which direction they are better, and where they are defined.

Everything here is known without torch. `msgunet.evaluation.metrics` has a function of the same name for each.
"""

import math
from collections.abc import Sequence
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
        channels: the numbers of channels for which it is defined; empty: any.
        unit: the unit after a number, with a space.
        formula: how it is computed, in words.
        convention: what a reader of a table must know, as a sentence.
        higher_is_better: whether a larger value is a better one.
        in_paper: whether the paper reports it.
        precision: in which its values are computed: `double`, or `single` as in the published code.
        tolerance: how far the value may be that is computed again from the same two files.
        across_devices: how far the values of one generator can be apart on two devices, whose outputs differ by
            rounding.
        weights: the published files that it needs, by their key in `DataSettings`.
        bytes_per_pixel: memory while an image is measured.
        resized_to: the shorter side to which it resizes larger images; 0: it resizes none.

    """

    heading: str
    digits: int
    range: tuple[float, float]
    smallest: int = 1
    of_constant_targets: bool = True
    channels: tuple[int, ...] = ()
    unit: str = ""
    formula: str = ""
    convention: str = ""
    higher_is_better: bool = True
    in_paper: bool = False
    precision: str = "double"
    tolerance: float = 1e-9
    across_devices: float = 0.0
    weights: tuple[str, ...] = ()
    # Values and maps in double precision.
    bytes_per_pixel: int = 150
    resized_to: int = 0

    @property
    def name(self) -> str:
        """The name in a sentence: the heading without the unit."""
        return self.heading.removesuffix(f" ({self.unit.strip()})")

    def undefined(self, side: int, constant_target: bool, channels: int = 3) -> str:
        """Return why it is not defined for a target with this shorter side, or an empty string if it is."""
        if self.channels and channels not in self.channels:
            return f"{channels} channels, not {' or '.join(map(str, self.channels))}"
        if side < self.smallest:
            return f"smaller than {self.smallest} pixels"
        return "constant target" if constant_target and not self.of_constant_targets else ""

    def memory(self, width: int, height: int) -> float:
        """Return the bytes that it takes to measure an image of this size."""
        side = min(width, height)
        share = min(1.0, self.resized_to / side) if self.resized_to else 1.0
        return self.bytes_per_pixel * width * height * share**2


# Increases whenever the numbers would change: 1 was in single precision, with piq's constant in PSNR.
VERSION = 2
# With fewer test images a mean has no interval: a handful of resampled values covers far less than it claims.
FEWEST_IMAGES = 5
METRICS = {
    "psnr": Metric(
        "PSNR (dB)",
        2,
        (0.0, 100.0),
        unit=" dB",
        formula="10 log10(range² / mean squared difference over all pixels and channels), at most 100 dB",
        convention="PSNR is at most 100 dB.",
        in_paper=True,
        across_devices=0.05,
    ),
    "ssim": Metric(
        "SSIM",
        3,
        (-1.0, 1.0),
        smallest=11,
        formula="mean over pixels and channels of (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)), "
        "Gaussian window of 11 pixels with σ 1.5, C1 = 0.01² and C2 = 0.03² for values from 0 to 1 (Wang et al. 2004)",
        convention="SSIM uses a Gaussian 11×11 window without pooling.",
        in_paper=True,
        across_devices=0.002,
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
        convention="VIF is computed in the pixel domain on luma.",
        in_paper=True,
        across_devices=0.005,
    ),
    "ms_ssim": Metric(
        "MS-SSIM",
        3,
        (0.0, 1.0),
        # A window of 11 pixels after four halvings.
        smallest=161,
        formula="mean over channels of the product of the mean contrast and structure of SSIM at four scales and the "
        "mean SSIM at the fifth, each at least 0, to the powers 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333; a scale has "
        "half the size of the one before (Wang, Simoncelli and Bovik 2003)",
        convention="MS-SSIM has five scales, with SSIM's window, and the mean over channels, as in piq.",
        across_devices=0.002,
    ),
    "lpips": Metric(
        "LPIPS",
        3,
        (0.0, math.inf),
        # One pixel after four halvings.
        smallest=16,
        channels=(1, 3),
        formula="sum over five layers of VGG-16 of the mean over places of the weighted squared differences between "
        "features of unit length (Zhang et al. 2018; VGG-16 and linear weights of version 0.1)",
        convention="LPIPS compares features of VGG-16 (version 0.1, in single precision).",
        higher_is_better=False,
        precision="single",
        tolerance=1e-4,
        across_devices=0.005,
        weights=("vgg16", "lpips"),
        bytes_per_pixel=2500,
    ),
    "dists": Metric(
        "DISTS",
        3,
        (0.0, 2.0),
        smallest=16,
        channels=(1, 3),
        formula="1 − the weighted sum, over the channels of the image and of five layers of VGG-16, of the similarity "
        "of their means and of their correlation; images whose shorter side is above 256 pixels are resized to it "
        "(Ding et al. 2020)",
        convention="DISTS compares features of VGG-16 (in single precision), of images whose shorter side is resized "
        "to 256 pixels where it is longer.",
        higher_is_better=False,
        precision="single",
        tolerance=1e-4,
        across_devices=0.005,
        weights=("vgg16", "dists"),
        bytes_per_pixel=2500,
        resized_to=256,
    ),
}
# Those that the paper reports: what is measured unless a suite asks for others, and what its claims are about.
PAPERS = tuple(name for name, metric in METRICS.items() if metric.in_paper)
DIRECTIONS = "↑: higher is better; ↓: lower is better."


def headings(metrics: Sequence[str], unit: bool = True) -> dict[str, str]:
    """Return the heading of each metric, or with `unit` False its name.

    If lower is better in one of them, all have an arrow towards better values.
    """
    downwards = any(not METRICS[metric].higher_is_better for metric in metrics)
    arrow = {True: " ↑", False: " ↓"}
    return {
        key: (metric.heading if unit else metric.name) + (arrow[metric.higher_is_better] if downwards else "")
        for key, metric in ((key, METRICS[key]) for key in metrics)
    }


def conventions(metrics: Sequence[str]) -> list[str]:
    """Return what a table's notes say of these metrics: how they are computed, and their directions if they differ."""
    names = [METRICS[metric].name for metric in metrics]
    single = [METRICS[metric].name for metric in metrics if METRICS[metric].precision == "single"]
    text = f"{enumerated(names)} {'are' if len(names) > 1 else 'is'} computed for each image as stored, in double "
    text += f"precision{f' ({enumerated(single)}: single)' if single else ''}, and averaged over images. "
    text += " ".join(METRICS[metric].convention for metric in metrics)
    return [text, *([DIRECTIONS] if any(not METRICS[metric].higher_is_better for metric in metrics) else [])]


def enumerated(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def weights_of(metrics: Sequence[str]) -> list[str]:
    """Return the published files that these metrics need, each once, by their key in `DataSettings`."""
    return list(dict.fromkeys(key for metric in metrics for key in METRICS[metric].weights))


def measuring_memory(metrics: Sequence[str], width: int, height: int) -> float:
    """Return the bytes that it takes to measure an image of this size: one metric follows the other."""
    return max(METRICS[metric].memory(width, height) for metric in metrics)
