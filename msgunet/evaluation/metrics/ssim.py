"""SSIM: the structural similarity, in double precision and at full resolution.

It is that of scikit-image. piq pools large images first by default, which would change the numbers with the image size.
"""

from torch import Tensor

from msgunet.evaluation.metrics.filters import gaussian, moments, strips
from msgunet.evaluation.metrics.images import Images


def ssim(images: Images) -> float:
    """Return the structural similarity of two images, the mean over pixels and channels."""
    return ssim_of(images.output, images.target)


def ssim_of(x: Tensor, y: Tensor) -> float:
    """Return the structural similarity of two images, the mean over pixels and channels.

    Wang et al. 2004, with their constants (K1 = 0.01, K2 = 0.03) and window (Gaussian, 11 pixels, sigma 1.5), without
    padding.

    Args:
        x: (C, H, W), values in [0, 1].
        y: the same.

    """
    window = gaussian(11, 1.5)
    similarity = x.new_empty(x.shape[0], x.shape[1] - 10, x.shape[2] - 10)
    c1, c2 = 0.01**2, 0.03**2
    for channel in range(len(x)):
        for top, strip_x, strip_y in strips(x[channel : channel + 1], y[channel : channel + 1], window):
            mean_x, mean_y, var_x, var_y, covariance = moments(strip_x, strip_y, window)
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            strip = luminance * (2 * covariance + c2) / (var_x + var_y + c2)
            similarity[channel, top : top + strip.shape[1]] = strip[0]
    return float(similarity.mean())
