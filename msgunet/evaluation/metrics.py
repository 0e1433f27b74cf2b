"""PSNR, SSIM and VIF of one image, with the conventions that the tables state.

- All: in double precision; the range of the values (0 to 255 for 8-bit images) is scaled to [0, 1].
- PSNR: over all channels, from the integers; at most `PSNR_CAP`, which identical images get. (piq adds a constant to
  the squared error, which would cost 0.4 dB at 70 dB.)
- SSIM: Gaussian window of size 11, sigma 1.5, at full resolution, as in scikit-image. (piq pools large images first by
  default, which would change the numbers with the image size.)
- Where each is defined: `msgunet.core.metrics`.
- VIF: pixel domain, on luma, or on the mean of the channels if there are two or more than three. It is
  not symmetric: the output is compared with the target as the reference.
"""

import contextlib
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from msgunet.core.metrics import METRICS
from msgunet.core.settings import RGB
from msgunet.data.images import as_pixels
from msgunet.data.pairs import bytes_on
from msgunet.evaluation.similarity import ssim, vif

# Decibels; the PSNR of two identical images would be infinite.
PSNR_CAP = 100.0

# On a GPU, one image after the other keeps it busy, and takes memory once.
_on_gpu = threading.Lock()

CPU = torch.device("cpu")


def _tensor(pixels: np.ndarray, low: int, high: int, device: torch.device) -> torch.Tensor:
    values = bytes_on(device, pixels)[0].contiguous().double()
    return values.sub_(low).div_(high - low)


def _psnr(x: np.ndarray, y: np.ndarray, low: int, high: int) -> float:
    # Squares of 8-bit differences fit into 32 bits; their sum is exact in any case.
    narrow, wide = (np.int16, np.int32) if x.dtype == np.uint8 else (np.int32, np.int64)
    difference = np.subtract(x, y, dtype=narrow)
    error = int(np.square(difference, dtype=wide).sum(dtype=np.int64)) / difference.size
    return min(PSNR_CAP, 10 * math.log10((high - low) ** 2 / error)) if error else PSNR_CAP


def measure(
    output: Image.Image | np.ndarray,
    target: Image.Image | np.ndarray,
    metrics: Sequence[str] = tuple(METRICS),
    values: tuple[int, int] = RGB.range,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Return the requested metrics of an output against its target (of the same size and channels), and a `note`.

    A metric that is not defined for these images is None, and the note states why. Numbers are always finite.

    Args:
        output: 8 or 16 bits.
        target: the same.
        metrics: their names.
        values: the values of black and white.
        device: where SSIM and VIF are computed. A GPU sums in another order than a CPU.

    """
    pixels = as_pixels(output).clip(*values), as_pixels(target).clip(*values)
    if pixels[0].shape != pixels[1].shape:
        raise ValueError(f"the output has shape {pixels[0].shape}, the target {pixels[1].shape}")
    constant = bool((pixels[1] == pixels[1][:1, :1]).all())
    row: dict[str, Any] = {}
    notes = []
    psnr = _psnr(*pixels, *values) if "psnr" in metrics else None
    with contextlib.nullcontext() if device.type == "cpu" else _on_gpu, torch.inference_mode():
        x, y = (_tensor(image, *values, device) for image in pixels)
        for name in metrics:
            row[name], reason = None, METRICS[name].undefined(min(y.shape[-2:]), constant)
            if not reason:
                value = psnr if name == "psnr" else float(_FUNCTIONS[name](x, y))
                row[name], reason = (value, "") if math.isfinite(value) else (None, "not a finite number")
            notes += [f"{name}: {reason}"] if reason else []
    row["note"] = "; ".join(notes)
    return row


def _grey(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] == 3:
        return 0.299 * x[:1] + 0.587 * x[1:2] + 0.114 * x[2:]
    return x.mean(0, keepdim=True)


_FUNCTIONS = {"ssim": ssim, "vif": lambda x, y: vif(_grey(x), _grey(y))}
