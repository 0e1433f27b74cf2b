"""SSIM and VIF in double precision, with windows that are separable, so that large images stay fast.

In single precision, variances are small differences of large numbers: SSIM is then off by up to 1e-4 and VIF by up to
1e-3. piq computes the same in double precision with windows that are not separated, forty times slower.

Maps are computed in strips of rows, which stay in a CPU's cache from one operation to the next. Each value is the same
to the last bit, whatever the height of the strips.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# A variance below this one, of values in 0 to 255, is none (as in the published code of VIF).
_NONE = 1e-8
# The values of a strip of one channel: its maps fit into a core's cache, or keep a GPU busy in few megabytes.
_STRIP = {"cpu": 2**15, "cuda": 2**21}


def ssim(x: Tensor, y: Tensor) -> float:
    """Return the structural similarity of two images, the mean over pixels and channels.

    Wang et al. 2004, with their constants (K1 = 0.01, K2 = 0.03) and window (Gaussian, 11 pixels, sigma 1.5), without
    padding.

    Args:
        x: (C, H, W), values in [0, 1].
        y: the same.

    """
    window = _gaussian(11, 1.5)
    similarity = x.new_empty(x.shape[0], x.shape[1] - 10, x.shape[2] - 10)
    c1, c2 = 0.01**2, 0.03**2
    for channel in range(len(x)):
        for top, strip_x, strip_y in _strips(x[channel : channel + 1], y[channel : channel + 1], window):
            mean_x, mean_y, var_x, var_y, covariance = _moments(strip_x, strip_y, window)
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            strip = luminance * (2 * covariance + c2) / (var_x + var_y + c2)
            similarity[channel, top : top + strip.shape[1]] = strip[0]
    return float(similarity.mean())


def vif(output: Tensor, target: Tensor) -> float:
    """Return the visual information fidelity of an output, in the pixel domain.

    Sheikh and Bovik 2006, in the form that the authors published for pixels (vifp): over four scales, the information
    that the output shares with the target, divided by the target's own. Each scale has half the size of the one before.

    Args:
        output: (1, H, W), values in [0, 1], at least 41 pixels high and wide.
        target: the same.

    """
    x, y = output * 255, target * 255
    shared, own = x.new_zeros(()), x.new_zeros(())
    for side in (17, 9, 5, 3):
        window = _gaussian(side, side / 5)
        if side < 17:
            x, y = _halved(x, window), _halved(y, window)
        of_both = x.new_empty(2, x.shape[1] - side + 1, x.shape[2] - side + 1)
        for top, strip_x, strip_y in _strips(x, y, window):
            strip = _information(*_moments(strip_x, strip_y, window)[2:])
            of_both[:, top : top + strip.shape[1]] = strip
        shared, own = shared + of_both[0].sum(), own + of_both[1].sum()
    return float((shared + _NONE) / (own + _NONE))


def _information(var_x: Tensor, var_y: Tensor, covariance: Tensor) -> Tensor:
    """Return the information that the output shares with the target, and the target's own, (2, H, W)."""
    noise = 2.0
    var_x, var_y = var_x.clamp_min(0), var_y.clamp_min(0)
    # The output as gain times the target, plus a rest. Without variance, or with a negative gain, all is rest.
    related = (var_x >= _NONE) & (var_y >= _NONE) & (covariance >= 0)
    gain = torch.where(related, covariance / (var_y + _NONE), 0)
    rest = torch.where(related, var_x - gain * covariance, var_x).clamp_min(_NONE)
    var_y = torch.where(var_y >= _NONE, var_y, 0)
    return torch.cat([torch.log10(1 + gain**2 * var_y / (rest + noise)), torch.log10(1 + var_y / noise)])


def _strips(x: Tensor, y: Tensor, window: list[float]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the first row of each strip of the filtered images (1, H, W), and the rows of both that it needs."""
    more = len(window) - 1
    # Strips overlap by the window, so low ones would filter most rows twice.
    rows = max(2 * more, _STRIP[x.device.type] // x.shape[2])
    for top in range(0, x.shape[1] - more, rows):
        yield top, x[:, top : top + rows + more], y[:, top : top + rows + more]


def _moments(x: Tensor, y: Tensor, window: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the local means, variances and covariance of two images."""
    mean_x, mean_y = _filtered(x, window), _filtered(y, window)
    var_x = _filtered(x * x, window).sub_(mean_x * mean_x)
    var_y = _filtered(y * y, window).sub_(mean_y * mean_y)
    return mean_x, mean_y, var_x, var_y, _filtered(x * y, window).sub_(mean_x * mean_y)


def _gaussian(side: int, sigma: float) -> list[float]:
    places = torch.arange(side, dtype=torch.float64) - side // 2
    window = torch.exp(-(places**2) / (2 * sigma**2))
    return (window / window.sum()).tolist()


def _halved(x: Tensor, window: list[float]) -> Tensor:
    """Filter an image (1, H, W) and keep every second row and column."""
    strips = [_filtered(strip, window)[:, top % 2 :: 2, ::2] for top, strip, _ in _strips(x, x, window)]
    return torch.cat(strips, 1)


def _filtered(x: Tensor, window: list[float]) -> Tensor:
    """Filter the rows and columns of images (C, H, W) without padding."""
    for axis in (2, 1):
        length = x.shape[axis] - len(window) + 1
        total = x.narrow(axis, 0, length) * window[0]
        for start, weight in enumerate(window[1:], 1):
            total.add_(x.narrow(axis, start, length), alpha=weight)
        x = total
    return x
