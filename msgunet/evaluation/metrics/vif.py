"""VIF: the visual information fidelity in the pixel domain, in double precision.

It is computed on luma, or on the mean of the channels if there are two or more than three. It is not symmetric: the
output is compared with the target as the reference.
"""

import torch
from torch import Tensor

from msgunet.evaluation.metrics.filters import filtered, gaussian, moments, strips
from msgunet.evaluation.metrics.images import Images

# A variance below this one, of values in 0 to 255, is none (as in the published code of VIF).
_NONE = 1e-8


def vif(images: Images) -> float:
    """Return the visual information fidelity of an output, on luma."""
    return vif_of(_grey(images.output), _grey(images.target))


def _grey(x: Tensor) -> Tensor:
    if x.shape[0] == 3:
        return 0.299 * x[:1] + 0.587 * x[1:2] + 0.114 * x[2:]
    return x.mean(0, keepdim=True)


def vif_of(output: Tensor, target: Tensor) -> float:
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
        window = gaussian(side, side / 5)
        if side < 17:
            x, y = _halved(x, window), _halved(y, window)
        of_both = x.new_empty(2, x.shape[1] - side + 1, x.shape[2] - side + 1)
        for top, strip_x, strip_y in strips(x, y, window):
            strip = _information(*moments(strip_x, strip_y, window)[2:])
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


def _halved(x: Tensor, window: list[float]) -> Tensor:
    """Filter an image (1, H, W) and keep every second row and column."""
    rows = [filtered(strip, window)[:, top % 2 :: 2, ::2] for top, strip, _ in strips(x, x, window)]
    return torch.cat(rows, 1)
