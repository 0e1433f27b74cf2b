"""The metrics of one image, each in a module of its own, with the conventions that the tables state.

The range of the values (0 to 255 for 8-bit images) is scaled to [0, 1]. Where each metric is defined, and in which
direction it is better: `msgunet.core.metrics`. A new metric is an entry there, and a function here.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from msgunet.core.metrics import METRICS, PAPERS
from msgunet.core.settings import RGB
from msgunet.data.images import as_pixels
from msgunet.evaluation.metrics.dists import dists
from msgunet.evaluation.metrics.images import Images
from msgunet.evaluation.metrics.lpips import lpips
from msgunet.evaluation.metrics.ms_ssim import ms_ssim
from msgunet.evaluation.metrics.psnr import psnr
from msgunet.evaluation.metrics.ssim import ssim
from msgunet.evaluation.metrics.vif import vif

# On a GPU, one image after the other keeps it busy, and takes memory once.
_on_gpu = threading.Lock()

CPU = torch.device("cpu")

FUNCTIONS: dict[str, Callable[[Images], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "vif": vif,
    "ms_ssim": ms_ssim,
    "lpips": lpips,
    "dists": dists,
}


def measure(
    output: Image.Image | np.ndarray,
    target: Image.Image | np.ndarray,
    metrics: Sequence[str] = PAPERS,
    values: tuple[int, int] = RGB.range,
    device: torch.device = CPU,
    networks: Mapping[str, nn.Module] | None = None,
) -> dict[str, Any]:
    """Return the requested metrics of an output against its target (of the same size and channels), and a `note`.

    A metric that is not defined for these images is None, and the note states why. Numbers are always finite.

    Args:
        output: 8 or 16 bits.
        target: the same.
        metrics: their names.
        values: the values of black and white.
        device: where all but PSNR are computed. A GPU sums in another order than a CPU.
        networks: those of `load_networks` on this device, for metrics that need one.

    """
    pixels = as_pixels(output).clip(*values), as_pixels(target).clip(*values)
    if pixels[0].shape != pixels[1].shape:
        raise ValueError(f"the output has shape {pixels[0].shape}, the target {pixels[1].shape}")
    images = Images(pixels, values, device, networks or {})
    constant = bool((pixels[1] == pixels[1][:1, :1]).all())
    height, width, *rest = pixels[1].shape
    row: dict[str, Any] = {}
    notes = []
    psnr_value = psnr(images) if "psnr" in metrics else None
    with contextlib.nullcontext() if device.type == "cpu" else _on_gpu, torch.inference_mode():
        for name in metrics:
            row[name], reason = None, METRICS[name].undefined(min(height, width), constant, *rest)
            if not reason:
                value = psnr_value if name == "psnr" else FUNCTIONS[name](images)
                row[name], reason = (value, "") if math.isfinite(value) else (None, "not a finite number")
            notes += [f"{name}: {reason}"] if reason else []
    row["note"] = "; ".join(notes)
    return row
