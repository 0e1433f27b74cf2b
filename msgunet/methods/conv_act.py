"""`msgunet::conv_act`: a convolution with its padding, bias, activation and a sum after it, as one operation.

On CUDA in bfloat16 it is one kernel (`msgunet/methods/cudnn_graphs.py`); elsewhere, the same arithmetic by PyTorch's
own operations, which the tests compare with. It has no gradient: `prepare` uses it for inference alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from msgunet.methods import cudnn_graphs

# The tensor cores of a GPU take channels in multiples of this many in bfloat16.
MULTIPLE = 8

_LIBRARY = torch.library.Library("msgunet", "FRAGMENT")
_LIBRARY.define(
    "conv_act(Tensor x, Tensor weight, Tensor? bias, Tensor? other, int[2] stride, int[4] pad, bool transposed, "
    "int[2] output_padding, str end, float slope, int pairs) -> Tensor"
)


def _plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    other: Tensor | None,
    stride: Sequence[int],
    pad: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    end: str,
    slope: float,
    pairs: int,
) -> Tensor:
    if transposed:
        y = F.conv_transpose2d(x, weight, bias, stride, pad[::2][::-1], output_padding)
    elif pad[::2] == pad[1::2]:
        y = F.conv2d(x, weight, bias, stride, pad[::2][::-1])
    else:
        y = F.conv2d(F.pad(x, pad), weight, bias, stride)
    if end == "tanh":
        y = torch.tanh(y)
    elif end == "leaky_relu":
        y = F.leaky_relu(y, slope)
    return y if other is None else y + other


def _output_shape(
    x: Sequence[int],
    weight: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
) -> tuple[int, ...]:
    padding = (pad[2] + pad[3], pad[0] + pad[1])
    if transposed:
        sides = [
            (side - 1) * step - around + kernel + extra
            for side, step, around, kernel, extra in zip(
                x[2:], stride, padding, weight[2:], output_padding, strict=True
            )
        ]
    else:
        sides = [
            (side + around - kernel) // step + 1
            for side, step, around, kernel in zip(x[2:], stride, padding, weight[2:], strict=True)
        ]
    return (x[0], weight[1] if transposed else weight[0], *sides)


def _on_shapes(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    other: Any,
    stride: Any,
    pad: Any,
    transposed: bool,
    output_padding: Any,
    *_: Any,
) -> Tensor:
    shape = _output_shape(x.shape, weight.shape, stride, pad, transposed, output_padding)
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


def layer_of(
    x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None, *settings: Any
) -> cudnn_graphs.Layer:
    """Return what cuDNN has to compute, from the arguments of the operation."""
    stride, pad, transposed, output_padding, end, slope, _ = settings
    return cudnn_graphs.Layer(
        x=tuple(x.shape),
        weight=tuple(weight.shape),
        output=_output_shape(x.shape, weight.shape, stride, pad, transposed, output_padding),
        stride=tuple(stride),
        pad=tuple(pad),
        transposed=transposed,
        end=end,
        slope=slope,
        bias=bias is not None,
        other=other is not None,
    )


def _on_cuda(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None, *settings: Any) -> Tensor:
    if x.dtype == torch.bfloat16:
        y = cudnn_graphs.run(layer_of(x, weight, bias, other, *settings), x, weight, bias, other)
        if y is not None:
            return y
    return _plain(x, weight, bias, other, *settings)


_LIBRARY.impl("conv_act", _plain, "CPU")
_LIBRARY.impl("conv_act", _on_cuda, "CUDA")
# Not `register_fake`, which looks at all modules and so would load those that wait for their first use.
_LIBRARY.impl("conv_act", _on_shapes, "Meta")


@register_flop_formula(torch.ops.msgunet.conv_act)
def _flop(x_shape: Any, weight_shape: Any, *arguments: Any, out_shape: Any = None, **_: Any) -> int:
    """Return 2 FLOP for each multiply-accumulate of the convolution, without those of channels that are only filled."""
    transposed, pairs = arguments[4], arguments[-1]
    _, _, height, width = x_shape if transposed else out_shape
    return 2 * pairs * x_shape[0] * height * width * weight_shape[2] * weight_shape[3]


def filled(x: Tensor, channels: int) -> Tensor:
    """Return `x` (N, C, H, W) with channels of zeros after its own, up to so many; without those that are too many."""
    if x.shape[1] == channels:
        return x
    if x.shape[1] > channels:
        # An earlier layer filled those that are too many.
        return x[:, :channels]
    count, own, *sides = x.shape
    out = torch.empty((count, channels, *sides), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out.zero_()[:, :own].copy_(x)
    return out


def up_to_multiple(channels: int, multiple: int = MULTIPLE) -> int:
    """Round a number of channels up to a multiple."""
    return -(-channels // multiple) * multiple


class ConvAct(nn.Module):
    """A convolution and its activation as one operation; `other` is added after the activation.

    Channels are filled with zeros up to a multiple of eight. An input may have its own number of channels or the filled
    one; an output has its own.

    Args:
        conv: a convolution or transposed convolution with zero padding, one group and no dilation.
        pad: its padding: left, right, top, bottom.
        end: `none`, `leaky_relu` or `tanh`.
        slope: of `leaky_relu` below zero; 0 for ReLU.

    """

    adds = True

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        pad: tuple[int, int, int, int],
        end: str = "none",
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.transposed = isinstance(conv, nn.ConvTranspose2d)
        self.outputs = conv.out_channels
        fills = [up_to_multiple(n) - n for n in (conv.in_channels, conv.out_channels)]
        around = (0, fills[0], 0, fills[1]) if not self.transposed else (0, fills[1], 0, fills[0])
        weight = F.pad(conv.weight.detach(), (0, 0, 0, 0, *around))
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        bias = None if conv.bias is None else F.pad(conv.bias.detach(), (0, fills[1]))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        extra = tuple(conv.output_padding)
        self._settings = (tuple(conv.stride), pad, self.transposed, extra, end, slope, conv.in_channels * self.outputs)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Map `x` (N, C, H, W) to (N, outputs, H', W'), plus `other` of that shape."""
        outputs, inputs = self.weight.shape[:2][:: -1 if self.transposed else 1]
        x = filled(x, inputs)
        if other is not None:
            other = filled(other, outputs)
        y = torch.ops.msgunet.conv_act(x, self.weight, self.bias, other, *self._settings)
        return y if outputs == self.outputs else y[:, : self.outputs]

    def extra_repr(self) -> str:
        stride, pad, transposed, _, end, *_ = self._settings
        return f"weight={tuple(self.weight.shape)}, {stride=}, {pad=}, {transposed=}, {end=}"
