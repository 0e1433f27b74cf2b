"""DISTS: the distance in structure and texture between features of VGG-16 (Ding et al. 2020), by piq.

Images whose shorter side is above 256 pixels are resized to it first (bilinear, without a filter). For others, the
number is that of the authors' code. Lower is better.
"""

from msgunet.evaluation.metrics.images import Images


def dists(images: Images) -> float:
    """Return the distance of two images, 0 for identical ones."""
    # Rounding could make it negative.
    return max(0.0, images.distance("dists"))
