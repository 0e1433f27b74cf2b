"""PSNR, SSIM and VIF against independent implementations, and images for which they are not defined."""

import json
import math

import numpy as np
import piq
import pytest
import torch
from conftest import make_image
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from msgunet.core.metrics import METRICS
from msgunet.evaluation.metrics import measure
from msgunet.evaluation.metrics.psnr import PSNR_CAP


def noisy(image: Image.Image, seed: int = 0, sigma: float = 12) -> Image.Image:
    array = np.asarray(image, float)
    noise = np.random.default_rng(seed).normal(0, sigma, array.shape)
    return Image.fromarray((array + noise).round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(48, 48), (256, 256), (640, 320), (1024, 512)])
def test_psnr_and_ssim_agree_with_scikit_image_at_every_size(size):
    target = make_image(1, *size)
    output = noisy(target)
    ours = measure(output, target)
    a, b = np.asarray(target), np.asarray(output)
    assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)
    independent = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1, data_range=255
    )
    assert ours["ssim"] == pytest.approx(independent, abs=1e-3)


def test_metrics_equal_piq_and_scikit_image_in_double_precision():
    """50 pairs: brightness, contrast, noise, flat parts, all sizes. In single precision, VIF was off by 1e-3."""
    draw, worst = np.random.default_rng(0), dict.fromkeys(("psnr", "ssim", "vif"), 0.0)
    for i in range(50):
        target = np.asarray(make_image(i, *map(int, draw.integers(42, 200, 2)))).copy()
        output = (target - 128.0) * draw.uniform(0.5, 1.3) + draw.uniform(90, 160)
        output = output if i % 4 else 255.0 - target
        output += draw.normal(0, draw.uniform(0, 20), target.shape)
        output = output.clip(0, 255).round().astype(np.uint8)
        if i % 5 == 0:
            target[: len(target) // 2] = 77
        if i % 7 == 0:
            output[:, : output.shape[1] // 2] = 9
        x, y = (torch.from_numpy(pixels / 255).permute(2, 0, 1)[None] for pixels in (output, target))
        similarity = structural_similarity(
            target, output, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1
        )
        assert similarity == pytest.approx(float(piq.ssim(x, y, downsample=False)), abs=1e-12)
        expected = {"psnr": peak_signal_noise_ratio(target, output), "ssim": similarity, "vif": float(piq.vif_p(x, y))}
        for name, value in measure(output, target).items():
            if name != "note":
                worst[name] = max(worst[name], abs(value - expected[name]))
    # The sums are rounded in another order; how, depends on the processor.
    assert max(worst.values()) < 1e-10, worst


LUMA = np.array([0.299, 0.587, 0.114])


def vif_by_definition(target: np.ndarray, output: np.ndarray, weights: np.ndarray = LUMA) -> float:
    """Pixel-domain VIF (Sheikh and Bovik 2006, the authors' vifp), from its formulas, on a weighted sum of channels."""
    from scipy.ndimage import convolve

    x, y = target @ weights, output @ weights
    above = below = 0.0
    for scale in range(4):
        n = 2 ** (4 - scale) + 1
        axis = np.arange(n) - n // 2
        window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (n / 5) ** 2))
        window /= window.sum()

        def mean(image, window=window, n=n):
            return convolve(image, window)[n // 2 : image.shape[0] - n // 2, n // 2 : image.shape[1] - n // 2]

        if scale:
            x, y = mean(x)[::2, ::2], mean(y)[::2, ::2]
        mx, my = mean(x), mean(y)
        vx, vy = (np.maximum(mean(i * i) - m * m, 0) for i, m in ((x, mx), (y, my)))
        cov = mean(x * y) - mx * my
        gain = cov / (vx + 1e-10)
        noise = vy - gain * cov
        gain, noise = np.where(vx < 1e-10, 0, gain), np.where(vx < 1e-10, vy, noise)
        vx = np.where(vx < 1e-10, 0, vx)
        noise, gain = np.where(gain < 0, vy, noise), np.maximum(gain, 0)
        noise = np.maximum(noise, 1e-10)
        above += np.log10(1 + gain**2 * vx / (noise + 2)).sum()
        below += np.log10(1 + vx / 2).sum()
    return above / below


def test_vif_agrees_with_its_definition_and_is_not_symmetric():
    target = make_image(2, 128, 96)
    output = noisy(target)
    ours = measure(output, target)["vif"]
    assert ours == pytest.approx(vif_by_definition(np.asarray(target, float), np.asarray(output, float)), abs=1e-8)
    assert abs(measure(target, output)["vif"] - ours) > 0.01, "not symmetric"


@pytest.mark.parametrize(
    ("case", "expected"),
    [("identical", (100, 1, 1)), ("constant", None), ("small", None), ("black and white", None)],
)
def test_metrics_are_finite_or_empty_with_a_reason(case, expected):
    size = (8, 30) if case == "small" else (64, 64)
    target = make_image(0, *size)
    output = target
    if case == "constant":
        target = output = Image.new("RGB", size, (10, 20, 30))
    if case == "black and white":
        target, output = Image.new("RGB", size), Image.new("RGB", size, (255, 255, 255))
    row = measure(output, target)
    json.loads(json.dumps(row, allow_nan=False))
    for name in ("psnr", "ssim", "vif"):
        assert row[name] is not None or name in row["note"]
    if expected:
        assert tuple(row[n] for n in ("psnr", "ssim", "vif")) == pytest.approx(expected, abs=1e-3)
    if case == "small":
        assert row["ssim"] is None
        assert "ssim: smaller than 11 pixels" in row["note"]


def test_images_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="the output has shape"):
        measure(make_image(0, 16, 16), make_image(0, 16, 32))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_vif_of_other_than_three_channels_is_that_of_their_mean(channels):
    draw = np.random.default_rng(channels)
    smooth = [np.asarray(make_image(seed, 48, 44))[..., 0] for seed in range(channels)]
    target = np.stack(smooth, axis=-1)
    output = (target + draw.normal(0, 12, target.shape)).round().clip(0, 255).astype(np.uint8)
    expected = vif_by_definition(target.astype(float), output.astype(float), np.full(channels, 1 / channels))
    assert measure(output, target)["vif"] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (1000, 3000)])
def test_values_are_scaled_from_the_range_and_clipped_to_it(low, high):
    draw = np.random.default_rng(0)
    target = draw.integers(low, high + 1, (44, 48, 3)).astype(np.uint16)
    noise = draw.normal(0, (high - low) / 10, target.shape)
    output = (target + noise).round().clip(0, 65535).astype(np.uint16)
    ours = measure(output, target, values=(low, high))
    # Black is zero.
    a, b = (np.clip(x.astype(float), low, high) - low for x in (target, output))
    assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=high - low), abs=1e-9)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    assert ours["ssim"] == pytest.approx(structural_similarity(a, b, data_range=high - low, **options), abs=1e-9)
    a, b = (x / (high - low) * 255 for x in (a, b))
    assert ours["vif"] == pytest.approx(vif_by_definition(a, b), abs=1e-8)


@pytest.mark.parametrize("white", [255, 65535])
def test_the_largest_difference_has_a_psnr_of_0_db(white):
    black = np.zeros((12, 12, 3), np.uint16 if white > 255 else np.uint8)
    for pair in ((black, black + white), (black + white, black)):
        assert measure(*pair, metrics=["psnr"], values=(0, white))["psnr"] == 0


def test_only_the_targets_own_pixels_make_it_constant():
    target = np.full((44, 48, 3), (10, 20, 30), np.uint8)
    output = np.random.default_rng(0).integers(0, 255, target.shape).astype(np.uint8)
    assert measure(output, target)["note"] == "vif: constant target"
    # An output that is constant, with the colour of the target's first pixel.
    target = output
    assert measure(np.full_like(target, target[0, 0]), target)["note"] == ""


def test_psnr_is_at_most_100_db():
    target = np.full((64, 64, 3), 5, np.uint16)
    output = target.copy()
    output[0, 0] += 1
    assert measure(output, target, ("psnr",), (0, 65535)) == {"psnr": 100, "note": ""}
    assert measure(output, target, ("psnr",))["psnr"] == pytest.approx(20 * np.log10(255 * 64))


@pytest.mark.parametrize(("width", "height"), [(1, 99), (10, 99), (99, 10), (11, 40), (40, 11), (41, 99), (99, 41)])
def test_the_shorter_side_decides_which_metrics_are_defined(width, height):
    target = make_image(0, width, height)
    row, shorter = measure(noisy(target), target), min(width, height)
    assert (row["psnr"] > 0, row["ssim"] is not None, row["vif"] is not None) == (True, shorter >= 11, shorter >= 41)
    reasons = {"ssim": "smaller than 11 pixels", "vif": "smaller than 41 pixels"}
    assert row["note"] == "; ".join(f"{name}: {text}" for name, text in reasons.items() if row[name] is None)


def test_one_pixel_makes_a_target_not_constant():
    for place in ((0, 0), (0, 47), (43, 0), (43, 47)):
        target = np.full((44, 48, 3), (10, 20, 30), np.uint8)
        assert measure(target, target)["note"] == "vif: constant target"
        target[place] = (10, 20, 31)
        assert measure(target, target)["vif"] > 0.9


def test_each_metrics_range_is_where_its_intervals_end():
    """PSNR is capped; the SSIM of an image and its negative is below zero; VIF of a sharper output is above one."""
    assert {name: metric.range for name, metric in METRICS.items()} == {
        "psnr": (0, PSNR_CAP),
        "ssim": (-1, 1),
        "vif": (0, math.inf),
        "ms_ssim": (0, 1),
        "lpips": (0, math.inf),
        # The correlations of features, with at most half of the weight or so, can be negative.
        "dists": (0, 2),
    }
    target = np.asarray(make_image(0, 64, 64))
    assert -1 <= measure(255 - target, target)["ssim"] < 0
    middle = target.mean(axis=(0, 1))
    sharper = (middle + 1.2 * (target - middle)).clip(0, 255).round().astype(np.uint8)
    assert measure(sharper, target)["vif"] > 1
