"""PSNR: the peak signal-to-noise ratio over all channels, from the integers.

piq adds a constant to the squared error, which would cost 0.4 dB at 70 dB.
"""

import math

import numpy as np

from msgunet.core.metrics import METRICS
from msgunet.evaluation.metrics.images import Images

# Decibels; the PSNR of two identical images would be infinite.
PSNR_CAP = METRICS["psnr"].range[1]


def psnr(images: Images) -> float:
    """Return the peak signal-to-noise ratio in dB, at most `PSNR_CAP`, which identical images get."""
    (x, y), (low, high) = images.pixels, images.values
    # Squares of 8-bit differences fit into 32 bits; their sum is exact in any case.
    narrow, wide = (np.int16, np.int32) if x.dtype == np.uint8 else (np.int32, np.int64)
    difference = np.subtract(x, y, dtype=narrow)
    error = int(np.square(difference, dtype=wide).sum(dtype=np.int64)) / difference.size
    return min(PSNR_CAP, 10 * math.log10((high - low) ** 2 / error)) if error else PSNR_CAP
