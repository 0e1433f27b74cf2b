"""SSIM and VIF in double precision, with windows that are separable, so that large images stay fast.

In single precision, variances are small differences of large numbers: SSIM is then off by up to 1e-4 and VIF by up to
1e-3. piq computes the same in double precision with windows that are not separated, forty times slower.
"""

import torch
from torch import Tensor

# A variance below this one, of values in 0 to 255, is none (as in the published code of VIF).
_NONE = 1e-8


def ssim(x: Tensor, y: Tensor) -> float:
    """Return the structural similarity of two images, the mean over pixels and channels.

    Wang et al. 2004, with their constants (K1 = 0.01, K2 = 0.03) and window (Gaussian, 11 pixels, sigma 1.5), without
    padding.

    Args:
        x: (C, H, W), values in [0, 1].
        y: the same.

    """
    window = _gaussian(11, 1.5, x)
    mean_x, mean_y, var_x, var_y, covariance = _moments(x, y, window)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean())


def vif(output: Tensor, target: Tensor) -> float:
    """Return the visual information fidelity of an output, in the pixel domain.

    Sheikh and Bovik 2006, in the form that the authors published for pixels (vifp): over four scales, the information
    that the output shares with the target, divided by the target's own. Each scale has half the size of the one before.

    Args:
        output: (1, H, W), values in [0, 1], at least 41 pixels high and wide.
        target: the same.

    """
    x, y = output * 255, target * 255
    noise = 2.0
    shared, own = torch.zeros((), dtype=x.dtype), torch.zeros((), dtype=x.dtype)
    for side in (17, 9, 5, 3):
        window = _gaussian(side, side / 5, x)
        if side < 17:
            x, y = _filtered(x, window)[:, ::2, ::2], _filtered(y, window)[:, ::2, ::2]
        *_, var_x, var_y, covariance = _moments(x, y, window)
        var_x, var_y = var_x.clamp_min(0), var_y.clamp_min(0)
        # The output as gain times the target, plus a rest. Without variance, or with a negative gain, all is rest.
        related = (var_x >= _NONE) & (var_y >= _NONE) & (covariance >= 0)
        gain = torch.where(related, covariance / (var_y + _NONE), 0)
        rest = torch.where(related, var_x - gain * covariance, var_x).clamp_min(_NONE)
        var_y = torch.where(var_y >= _NONE, var_y, 0)
        shared = shared + torch.log10(1 + gain**2 * var_y / (rest + noise)).sum()
        own = own + torch.log10(1 + var_y / noise).sum()
    return float((shared + _NONE) / (own + _NONE))


def _moments(x: Tensor, y: Tensor, window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the local means, variances and covariance of two images."""
    mean_x, mean_y = _filtered(x, window), _filtered(y, window)
    var_x = _filtered(x * x, window) - mean_x * mean_x
    var_y = _filtered(y * y, window) - mean_y * mean_y
    return mean_x, mean_y, var_x, var_y, _filtered(x * y, window) - mean_x * mean_y


def _gaussian(side: int, sigma: float, like: Tensor) -> Tensor:
    places = torch.arange(side, dtype=like.dtype, device=like.device) - side // 2
    window = torch.exp(-(places**2) / (2 * sigma**2))
    return window / window.sum()


def _filtered(x: Tensor, window: Tensor) -> Tensor:
    """Filter the rows and columns of images (C, H, W) without padding."""
    weights = window.tolist()
    for axis in (2, 1):
        length = x.shape[axis] - len(weights) + 1
        total = x.narrow(axis, 0, length) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            total.add_(x.narrow(axis, start, length), alpha=weight)
        x = total
    return x
