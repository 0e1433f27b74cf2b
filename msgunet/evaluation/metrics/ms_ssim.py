"""MS-SSIM: structural similarity over five scales (Wang, Simoncelli and Bovik 2003), in double precision.

The number is piq's: the powers of the paper, means over 2×2 pixels from one scale to the next (an odd image repeats its
first row and column), negative factors count as 0, and the mean over channels comes last.
"""

from torch import Tensor, stack
from torch.nn import functional as F

from msgunet.evaluation.metrics.filters import gaussian, moments, strips
from msgunet.evaluation.metrics.images import Images

_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(images: Images) -> float:
    """Return the similarity of two images over five scales, the mean over channels."""
    x, y = images.output, images.target
    result = x.new_ones(len(x))
    for scale, power in enumerate(_POWERS):
        x, y = (x, y) if scale == 0 else (_halved(x), _halved(y))
        similarity, contrast = _means(x, y)
        factor = similarity if scale == len(_POWERS) - 1 else contrast
        result = result * factor.clamp_min(0) ** power
    return float(result.mean())


def _halved(x: Tensor) -> Tensor:
    """Halve an image (C, H, W)."""
    odd = max(x.shape[1] % 2, x.shape[2] % 2)
    return F.avg_pool2d(F.pad(x[None], (odd, 0, odd, 0), mode="replicate"), 2)[0]


def _means(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of SSIM, and of its contrast and structure, of each channel: (C,) and (C,)."""
    window = gaussian(11, 1.5)
    c1, c2 = 0.01**2, 0.03**2
    similarities, contrasts = [], []
    for channel in range(len(x)):
        maps = x.new_empty(2, x.shape[1] - 10, x.shape[2] - 10)
        for top, strip_x, strip_y in strips(x[channel : channel + 1], y[channel : channel + 1], window):
            mean_x, mean_y, var_x, var_y, covariance = moments(strip_x, strip_y, window)
            contrast = (2 * covariance + c2) / (var_x + var_y + c2)
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            end = top + contrast.shape[1]
            maps[0, top:end], maps[1, top:end] = (luminance * contrast)[0], contrast[0]
        similarities.append(maps[0].mean())
        contrasts.append(maps[1].mean())
    return stack(similarities), stack(contrasts)
