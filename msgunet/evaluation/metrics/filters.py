"""Local means and variances of images, in double precision, by separable windows, so that large images stay fast.

In single precision, variances are small differences of large numbers: SSIM is then off by up to 1e-4 and VIF by up to
1e-3. piq computes the same in double precision with windows that are not separated, forty times slower.

Maps are computed in strips of rows, which stay in a CPU's cache from one operation to the next. Each value is the same
to the last bit, whatever the height of the strips.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# The values of a strip of one channel: its maps fit into a core's cache, or keep a GPU busy in few megabytes.
_STRIP = {"cpu": 2**15, "cuda": 2**21}


def strips(x: Tensor, y: Tensor, window: list[float]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the first row of each strip of the filtered images (1, H, W), and the rows of both that it needs."""
    more = len(window) - 1
    # Strips overlap by the window, so low ones would filter most rows twice.
    rows = max(2 * more, _STRIP[x.device.type] // x.shape[2])
    for top in range(0, x.shape[1] - more, rows):
        yield top, x[:, top : top + rows + more], y[:, top : top + rows + more]


def moments(x: Tensor, y: Tensor, window: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the local means, variances and covariance of two images."""
    mean_x, mean_y = filtered(x, window), filtered(y, window)
    var_x = filtered(x * x, window).sub_(mean_x * mean_x)
    var_y = filtered(y * y, window).sub_(mean_y * mean_y)
    return mean_x, mean_y, var_x, var_y, filtered(x * y, window).sub_(mean_x * mean_y)


def gaussian(side: int, sigma: float) -> list[float]:
    """Return a Gaussian window, with a sum of 1, of which the product with itself is the one in two dimensions."""
    places = torch.arange(side, dtype=torch.float64) - side // 2
    window = torch.exp(-(places**2) / (2 * sigma**2))
    return (window / window.sum()).tolist()


def filtered(x: Tensor, window: list[float]) -> Tensor:
    """Filter the rows and columns of images (C, H, W) without padding."""
    for axis in (2, 1):
        length = x.shape[axis] - len(window) + 1
        total = x.narrow(axis, 0, length) * window[0]
        for start, weight in enumerate(window[1:], 1):
            total.add_(x.narrow(axis, start, length), alpha=weight)
        x = total
    return x
