"""`msgunet::norm_act`: a per-image norm with all that follows it, up to the padding of the next convolution.

On CUDA these are Triton kernels (`msgunet/methods/norm_kernels.py`): one pass for the statistics, one for ReLU, a sum
and padding by reflection. PyTorch has no such padding in channels-last: it copies to the other layout and back.
Elsewhere, the same arithmetic by PyTorch's own operations. It has no gradient: `prepare` uses it for inference alone.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.core.text import first_line
from msgunet.device.precision import upcast
from msgunet.methods.conv_act import filled, up_to_multiple
from msgunet.methods.norms import InstanceNorm

_EPS = 1e-5
_LIBRARY = torch.library.Library("msgunet", "FRAGMENT")
_LIBRARY.define("image_statistics(Tensor x) -> (Tensor, Tensor)")
_LIBRARY.define(
    "norm_act(Tensor x, Tensor? mean, Tensor? scale, Tensor? other, bool relu, int pad, int channels) -> Tensor"
)


@functools.cache
def problem() -> str | None:
    """Return why Triton's kernels cannot be used, or None if they can."""
    try:
        from msgunet.methods import norm_kernels

        if torch.cuda.is_available():
            # Triton needs a C compiler and Python's headers, but not before its first kernel.
            x = torch.zeros(1, 8, 4, 4, device="cuda").contiguous(memory_format=torch.channels_last)
            norm_kernels.apply(x, *norm_kernels.image_statistics(x, _EPS), None, True, 1, 8)
    except Exception as error:  # a broken installation can make it raise anything
        return first_line(error)
    return None


def reflected(x: Tensor, pad: int) -> Tensor:
    """Pad `x` (N, C, H, W) by reflection with `pad` pixels on all sides; keeps the memory layout, also on CUDA."""
    count, channels, height, width = x.shape
    shape = (count, channels, height + 2 * pad, width + 2 * pad)
    form = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)
    out[:, :, pad:-pad, pad:-pad].copy_(x)
    for part in (out[:, :, pad:-pad].transpose(2, 3), out):
        part[:, :, :pad].copy_(part[:, :, pad + 1 : 2 * pad + 1].flip(2))
        part[:, :, -pad:].copy_(part[:, :, -2 * pad - 1 : -pad - 1].flip(2))
    return out


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(upcast(x), (2, 3), correction=0)
    return mean, torch.rsqrt(variance + _EPS)


def _norm_act(
    x: Tensor, mean: Tensor | None, scale: Tensor | None, other: Tensor | None, relu: bool, pad: int, channels: int
) -> Tensor:
    y = x if mean is None else (upcast(x) - mean[:, :, None, None]) * scale[:, :, None, None]
    y = F.relu(y) if relu else y
    y = (y if other is None else y + other).to(x.dtype)
    y = filled(reflected(y, pad) if pad else y, channels)
    return y.clone() if y is x else y


def _statistics_on_cuda(x: Tensor) -> tuple[Tensor, Tensor]:
    from msgunet.methods import norm_kernels

    # Triton launches on the thread's current device.
    with torch.cuda.device(x.device):
        return norm_kernels.image_statistics(x.contiguous(memory_format=torch.channels_last), _EPS)


def _norm_act_on_cuda(x: Tensor, mean: Any, scale: Any, other: Tensor | None, *settings: Any) -> Tensor:
    from msgunet.methods import norm_kernels

    x = x.contiguous(memory_format=torch.channels_last)
    other = None if other is None else other.contiguous(memory_format=torch.channels_last)
    with torch.cuda.device(x.device):
        return norm_kernels.apply(x, mean, scale, other, *settings)


def _statistics_on_shapes(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.new_empty(x.shape[:2], dtype=torch.promote_types(x.dtype, torch.float32))
    return mean, torch.empty_like(mean)


def _norm_act_on_shapes(x: Tensor, mean: Any, scale: Any, other: Any, relu: bool, pad: int, channels: int) -> Tensor:
    count, _, height, width = x.shape
    shape = (count, channels, height + 2 * pad, width + 2 * pad)
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


_LIBRARY.impl("image_statistics", _statistics, "CPU")
_LIBRARY.impl("image_statistics", _statistics_on_cuda, "CUDA")
_LIBRARY.impl("image_statistics", _statistics_on_shapes, "Meta")
_LIBRARY.impl("norm_act", _norm_act, "CPU")
_LIBRARY.impl("norm_act", _norm_act_on_cuda, "CUDA")
_LIBRARY.impl("norm_act", _norm_act_on_shapes, "Meta")


class NormAct(InstanceNorm):
    """An `InstanceNorm`, ReLU if asked for, and padding by reflection; `other` is added before the padding.

    Args:
        relu: whether ReLU follows.
        pad: pixels of padding on each side.

    """

    adds = True

    def __init__(self, relu: bool, pad: int = 0) -> None:
        super().__init__()
        self.relu, self.pad = relu, pad

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Map `x` (N, C, H, W) to (N, C, H + 2 pad, W + 2 pad), plus `other` of the shape of `x`."""
        if self.running_mean is None:
            mean, scale = torch.ops.msgunet.image_statistics(x)
        else:
            fixed = (upcast(self.running_mean), torch.rsqrt(upcast(self.running_var) + _EPS))
            mean, scale = (values.expand(len(x), -1).contiguous() for values in fixed)
        return torch.ops.msgunet.norm_act(x, mean, scale, other, self.relu, check_pad(self.pad, x), x.shape[1])

    def extra_repr(self) -> str:
        return f"relu={self.relu}, pad={self.pad}"


class Reflect(nn.Module):
    """Padding by reflection that keeps the memory layout; fills channels up to a multiple, which costs no other pass.

    Args:
        pad: pixels on each side.
        kernel: by one kernel, or by copies of slices.

    Attributes:
        multiple: of the channels that the next layer takes.

    """

    def __init__(self, pad: int, kernel: bool = True) -> None:
        super().__init__()
        self.pad, self.kernel, self.multiple = pad, kernel, 1

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (N, C, H, W) to (N, C', H + 2 pad, W + 2 pad)."""
        if not self.kernel:
            return reflected(x, check_pad(self.pad, x))
        channels = up_to_multiple(x.shape[1], self.multiple)
        return torch.ops.msgunet.norm_act(x, None, None, None, False, check_pad(self.pad, x), channels)

    def extra_repr(self) -> str:
        return f"pad={self.pad}"


def check_pad(pad: int, x: Tensor) -> int:
    """Return `pad` if the sides of `x` can be reflected so far.

    Raises:
        ValueError: a side is too short.

    """
    if pad >= min(x.shape[2:]):
        raise ValueError(f"an image of {x.shape[3]}x{x.shape[2]} pixels cannot be padded by {pad} reflected pixels")
    return pad
