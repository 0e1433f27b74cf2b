"""LPIPS: the distance between features of VGG-16 (Zhang et al. 2018), by piq, in single precision.

The number is that of the published package `lpips` with `net="vgg"`, version 0.1. Lower is better.
"""

from msgunet.evaluation.metrics.images import Images


def lpips(images: Images) -> float:
    """Return the distance of two images, 0 for identical ones."""
    return images.distance("lpips")
