"""MS-SSIM against an independent implementation, and against piq."""

import numpy as np
import piq
import pytest
import torch
from conftest import make_image
from scipy.ndimage import correlate1d

from msgunet.core.metrics import METRICS
from msgunet.evaluation.metrics import FUNCTIONS, measure

POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def images(width: int, height: int, kind: str = "noise") -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(width)
    target = np.asarray(make_image(3, width, height))
    output = 255.0 - target if kind == "negative" else target * 0.7 + draw.normal(20, 25, target.shape)
    return output.clip(0, 255).round().astype(np.uint8), target


def filtered(image: np.ndarray) -> np.ndarray:
    """Filter with the Gaussian window of 11 pixels, only where it lies within the image."""
    window = np.exp(-(np.arange(-5.0, 6) ** 2) / (2 * 1.5**2))
    for axis in (0, 1):
        image = correlate1d(image, window / window.sum(), axis=axis)
    return image[5:-5, 5:-5]


def halved(image: np.ndarray) -> np.ndarray:
    """Average 2×2 pixels. If a side is odd, the first row and column are repeated, and the last one is left out."""
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = np.pad(image, ((1, 0), (1, 0)), mode="edge")
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def independent(output: np.ndarray, target: np.ndarray) -> float:
    """Wang, Simoncelli and Bovik 2003, equation 7, by channel."""
    values = []
    for channel in range(3):
        x, y = output[..., channel] / 255, target[..., channel] / 255
        product = 1.0
        for scale, power in enumerate(POWERS):
            mx, my = filtered(x), filtered(y)
            vx, vy, cov = filtered(x * x) - mx**2, filtered(y * y) - my**2, filtered(x * y) - mx * my
            contrast = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
            luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
            factor = (luminance * contrast if scale == 4 else contrast).mean()
            product *= max(factor, 0) ** power
            x, y = halved(x), halved(y)
        values.append(product)
    return float(np.mean(values))


@pytest.mark.parametrize(("width", "height"), [(176, 192), (161, 170), (203, 161)])
def test_five_scales_as_published_and_as_piq(width, height):
    output, target = images(width, height)
    ours = measure(output, target, ("ms_ssim",))["ms_ssim"]
    assert ours == pytest.approx(independent(output, target), abs=1e-10)
    x, y = (torch.from_numpy(pixels / 255).permute(2, 0, 1)[None] for pixels in (output, target))
    assert ours == pytest.approx(float(piq.multi_scale_ssim(x, y)), abs=1e-10)
    assert 0.1 < ours < 0.99


def test_a_negative_has_none_and_the_image_itself_all():
    output, target = images(161, 161, "negative")
    assert measure(output, target, ("ms_ssim",))["ms_ssim"] == 0
    assert measure(target, target, ("ms_ssim",))["ms_ssim"] == pytest.approx(1, abs=1e-12)


def test_the_window_must_fit_into_the_fifth_scale():
    assert measure(*images(161, 200), ("ms_ssim",))["note"] == ""
    row = measure(*images(200, 160), ("ms_ssim",))
    assert row == {"ms_ssim": None, "note": "ms_ssim: smaller than 161 pixels"}


def test_every_metric_has_a_function():
    assert list(FUNCTIONS) == list(METRICS)
