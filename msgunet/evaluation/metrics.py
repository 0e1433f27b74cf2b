"""PSNR, SSIM and VIF of one image, by piq, with the conventions that tables name.

- All: the range of the values (0 to 255 of 8-bit images) brought to [0, 1].
- PSNR: over all channels; identical images give piq's cap of 80 dB.
- SSIM: Gaussian window 11, sigma 1.5, at full resolution. piq's default of pooling large images first would give other
  numbers at other sizes; it is switched off.
- VIF: pixel domain (piq's `vif_p`), on luma, or on the mean of the channels where there are two or more than three; not
  symmetric: the output is judged against the target.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import piq
import torch
from PIL import Image

from msgunet.core.settings import RGB
from msgunet.data.images import as_pixels

SMALLEST = {"psnr": 1, "ssim": 11, "vif": 41}


def _tensor(pixels: np.ndarray, low: int, high: int) -> torch.Tensor:
    array = (pixels.astype(np.float32) - low) / (high - low)
    return torch.from_numpy(array).permute(2, 0, 1)[None].clamp(0, 1)


def measure(
    output: Image.Image | np.ndarray,
    target: Image.Image | np.ndarray,
    metrics: Sequence[str] = tuple(SMALLEST),
    values: tuple[int, int] = RGB.range,
) -> dict[str, Any]:
    """The asked metrics of an output against its target (images of the same size and channels), and a `note`.

    `values`: that are black and white.

    A measure that is not defined for these images is None, and the note says why; a number is always finite.
    """
    pixels = as_pixels(output), as_pixels(target)
    if pixels[0].shape != pixels[1].shape:
        raise ValueError(f"output is {pixels[0].shape}, target {pixels[1].shape}")
    x, y = (_tensor(image, *values) for image in pixels)
    row: dict[str, Any] = {}
    notes = []
    for name in metrics:
        if min(x.shape[-2:]) < SMALLEST[name]:
            row[name] = None
            notes.append(f"{name} needs {SMALLEST[name]} pixels")
            continue
        value = float(_FUNCTIONS[name](x, y))
        row[name] = value if math.isfinite(value) else None
        if row[name] is None:
            notes.append(f"{name} is not defined for these images")
    row["note"] = "; ".join(notes)
    return row


def _grey(x: torch.Tensor) -> torch.Tensor:
    # piq takes one channel, or three, of which it takes luma.
    return x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True)


_FUNCTIONS = {
    "psnr": lambda x, y: piq.psnr(x, y, data_range=1.0),
    "ssim": lambda x, y: piq.ssim(x, y, data_range=1.0, downsample=False),
    "vif": lambda x, y: piq.vif_p(_grey(x), _grey(y), data_range=1.0),
}
