"""PSNR, SSIM and VIF of one image, by piq, with the conventions that tables name.

- PSNR: over all channels of 8-bit images in [0, 1]; identical images give piq's cap of 80 dB.
- SSIM: Gaussian window 11, sigma 1.5, at full resolution. piq's default of pooling large images first would give other
  numbers at other sizes; it is switched off.
- VIF: pixel domain (piq's `vif_p`), on luma; not symmetric: the output is judged against the target.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import piq
import torch
from PIL import Image

SMALLEST = {"psnr": 1, "ssim": 11, "vif": 41}


def _tensor(image: Image.Image) -> torch.Tensor:
    array = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].clamp(0, 1)


def measure(output: Image.Image, target: Image.Image, measures: Sequence[str] = tuple(SMALLEST)) -> dict[str, Any]:
    """The asked measures of an output against its target (8-bit pictures of the same size), and a `note`.

    A measure that is not defined for these images is None, and the note says why; a number is always finite.
    """
    if output.size != target.size:
        raise ValueError(f"output is {output.size}, target {target.size}")
    x, y = _tensor(output), _tensor(target)
    row: dict[str, Any] = {}
    notes = []
    for name in measures:
        if min(output.size) < SMALLEST[name]:
            row[name] = None
            notes.append(f"{name} needs {SMALLEST[name]} pixels")
            continue
        value = float(_FUNCTIONS[name](x, y))
        row[name] = value if math.isfinite(value) else None
        if row[name] is None:
            notes.append(f"{name} is not defined for these images")
    row["note"] = "; ".join(notes)
    return row


_FUNCTIONS = {
    "psnr": lambda x, y: piq.psnr(x, y, data_range=1.0),
    "ssim": lambda x, y: piq.ssim(x, y, data_range=1.0, downsample=False),
    "vif": lambda x, y: piq.vif_p(x, y, data_range=1.0),
}
