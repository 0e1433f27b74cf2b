"""Networks shared by the methods: convolution blocks, the PatchGAN discriminator and the MSG U-Net generator.

Every generator here maps a pyramid of source images to a pyramid of output images: a list of tensors
(N, C, H / 2^k, W / 2^k) in [-1, 1], scale 0 (full resolution) first. A single-scale network accepts and returns a
list of one. Every discriminator returns, per scale, the list of its layers' outputs, the patch scores last.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.methods.conv_act import filled, up_to_multiple
from msgunet.methods.norms import InstanceNorm
from msgunet.methods.recompute import Stages


def scaled(channels: int, width: float) -> int:
    """Return `channels` times the width factor, rounded and at least 1."""
    return max(1, round(channels * width))


def init_normal(module: nn.Module, std: float = 0.02, biases: bool = True) -> None:
    """Initialise convolutions with N(0, std²), batch norm with N(1, std²), biases with zero.

    Isola et al. 2017, section 6.2, use std 0.02. With `biases=False`, the convolutions' biases keep torch's default, as
    in the published code of Pix2Pix-HD.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, std)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
        else:
            continue
        if layer.bias is not None and (biases or isinstance(layer, nn.BatchNorm2d)):
            nn.init.zeros_(layer.bias)


class SameConv4(nn.Conv2d):
    """A 4x4 stride-1 convolution that keeps the size.

    `odd_pixel`: the extra pixel of padding is at the `end` (right and bottom, as in 'same' padding) or at the `start`.
    """

    def __init__(self, inputs: int, outputs: int, odd_pixel: str = "end") -> None:
        super().__init__(inputs, outputs, 4, bias=False)
        self.pad = (1, 2, 1, 2) if odd_pixel == "end" else (2, 1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pad))


class TanhConv(nn.Conv2d):
    """A convolution and tanh."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


def conv_block(conv: nn.Module, channels: int, norm: str = "batch") -> Stages:
    """Return the paper's block (section 2.1): convolution (no bias: batch norm has one), batch norm, LeakyReLU(0.2).

    `norm`: `batch`, or `instance` without affine weights.
    """
    normalise = nn.BatchNorm2d(channels) if norm == "batch" else InstanceNorm()
    return Stages(conv, normalise, nn.LeakyReLU(0.2, inplace=True))


class MSGUNet(nn.Module):
    """Multi-Scale Gradient U-Net (paper, section 2.1 and Fig. 1; widths as reconstructed in docs/methods.md).

    The encoder receives the source at every scale, and the decoder returns an output at every scale. Skip connections
    are sums. The last three arguments are for ablations of this design.

    Args:
        widths: channels per level, from full resolution down; its length is the number of levels.
        scales: number of scales of the source and of the output; at most the number of levels.
        channels: numbers of channels of the source and of the target.
        intermediate_outputs: False keeps only the full-resolution head (the paper's Fig. 2, left).
        odd_pixel: side on which the 4x4 stride-1 convolutions pad one extra pixel, `end` or `start`.
        source_scales: `first`: the source enters at full resolution only, and the convolutions that merge the others
            with the features are left out.
        skips: `add`, or `concatenate`, after which the refining convolutions have twice as many inputs.
        norm: `batch`, or `instance` without affine weights.

    Attributes:
        channel_multiple: sources are filled with channels of zeros up to a multiple; for layers that take no others.

    """

    channel_multiple = 1

    def __init__(
        self,
        widths: Sequence[int],
        scales: int,
        channels: tuple[int, int] = (3, 3),
        intermediate_outputs: bool = True,
        odd_pixel: str = "end",
        source_scales: str = "all",
        skips: str = "add",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        source, target = channels
        self.concatenates = skips == "concatenate"
        self.entry = nn.Sequential(
            conv_block(SameConv4(source, widths[0], odd_pixel), widths[0], norm),
            conv_block(SameConv4(widths[0], widths[0], odd_pixel), widths[0], norm),
        )
        pairs = list(itertools.pairwise(widths))
        merged = widths[1:scales] if source_scales == "all" else ()
        joined = 2 if self.concatenates else 1
        self.down = nn.ModuleList(conv_block(nn.Conv2d(a, b, 4, 2, 1, bias=False), b, norm) for a, b in pairs)
        self.merge = nn.ModuleList(conv_block(nn.Conv2d(b + source, b, 1, bias=False), b, norm) for b in merged)
        self.up = nn.ModuleList(conv_block(nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False), a, norm) for a, b in pairs)
        self.refine = nn.ModuleList(conv_block(SameConv4(joined * a, a, odd_pixel), a, norm) for a in widths[:-1])
        heads = scales if intermediate_outputs else 1
        self.heads = nn.ModuleList(TanhConv(a, target, 3, padding=1) for a in widths[:heads])

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Map sources at all scales, (N, C, H / 2^k, W / 2^k) in [-1, 1], to one output per head."""
        sources = [filled(source, up_to_multiple(source.shape[1], self.channel_multiple)) for source in sources]
        features = [self.entry(sources[0])]
        for level, down in enumerate(self.down, start=1):
            x = down(features[-1])
            if level <= len(self.merge):
                x = self.merge[level - 1](torch.cat((x, sources[level]), 1))
            features.append(x)
        x = features.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.down))):
            skip = features.pop()
            x = torch.cat((self.up[level](x), skip), 1) if self.concatenates else self.up[level].plus(x, skip)
            x = self.refine[level](x)
            if level < len(self.heads):
                outputs.append(self.heads[level](x))
        return outputs[::-1]

    def depth(self, parameter: str) -> int:
        """Return the depth of a parameter: its rank from the input (0) to the full-resolution output."""
        part, number = parameter.split(".")[:2]
        level, bottom = int(number), len(self.down)
        ranks = {
            "entry": level,
            "down": 2 + 2 * level,
            "merge": 3 + 2 * level,
            "up": 2 + 2 * bottom + 3 * (bottom - 1 - level),
            "refine": 3 + 2 * bottom + 3 * (bottom - 1 - level),
            "heads": 4 + 2 * bottom + 3 * (bottom - 1 - level),
        }
        return ranks[part]


class PatchGAN(nn.Module):
    """The PatchGAN of Pix2Pix (70x70 with three layers); it returns its layers' outputs for feature matching.

    Args:
        inputs: sum of the channels of source and image.
        filters: number of filters of the first layer.
        layers: number of stride-2 layers; 3 gives a receptive field of 70x70 pixels.
        norm: `batch` (Isola et al. 2017) or `instance`, without affine weights (Wang et al. 2018).
        padding: 1 in Pix2Pix, 2 in Pix2Pix-HD.
        scales: number of scales of `x`; each smaller one joins the features after one more stride-2 layer, so there
            are at most `layers` + 1. This needs padding 1.

    """

    def __init__(
        self, inputs: int, filters: int, layers: int = 3, norm: str = "batch", padding: int = 1, scales: int = 1
    ) -> None:
        super().__init__()
        widths = [filters * min(2**i, 8) for i in range(layers + 1)]
        stages = [nn.Sequential(nn.Conv2d(inputs, filters, 4, 2, padding), nn.LeakyReLU(0.2, inplace=True))]
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            stride = 2 if i < layers - 1 else 1
            more = inputs if i < scales - 1 else 0
            # Batch norm has its own bias; the published instance-norm discriminator keeps the convolution's bias.
            conv = nn.Conv2d(a + more, b, 4, stride, padding, bias=norm == "instance")
            normalise = nn.BatchNorm2d(b) if norm == "batch" else InstanceNorm()
            stages.append(nn.Sequential(conv, normalise, nn.LeakyReLU(0.2, inplace=True)))
        stages.append(nn.Sequential(nn.Conv2d(widths[-1], 1, 4, 1, padding)))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor, *smaller: Tensor) -> list[Tensor]:
        """Map `x` (N, source + image channels, H, W) to the layers' outputs, the patch scores (N, 1, h, w) last.

        `smaller`: the other scales of `x`, each of half the size of the one before.
        """
        outputs = []
        for i, stage in enumerate(self.stages):
            if 0 < i <= len(smaller):
                x = torch.cat((x, smaller[i - 1]), 1)
            x = stage(x)
            outputs.append(x)
        return outputs


class ScaleDiscriminators(nn.Module):
    """One discriminator per scale, with the same architecture and separate weights (paper, section 2.2)."""

    def __init__(self, discriminators: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Concatenate source and image at each scale and return each scale's layer outputs."""
        triples = zip(self.scales, sources, images, strict=False)
        return [scale(torch.cat((source, image), 1)) for scale, source, image in triples]


class JointDiscriminator(nn.Module):
    """One PatchGAN for all scales: each scale's source and image enter at their own resolution.

    As in MSG-GAN (Karnewar and Wang, CVPR 2020, section 3), with plain concatenation. With more than four scales it has
    more stride-2 layers than that of Pix2Pix, so that the smallest scale can enter.
    """

    def __init__(self, inputs: int, filters: int, scales: int, norm: str = "batch") -> None:
        super().__init__()
        self.patch = PatchGAN(inputs, filters, max(3, scales - 1), norm, scales=scales)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Concatenate source and image at each scale and return one list, the layers' outputs."""
        return [self.patch(*(torch.cat(pair, 1) for pair in zip(sources, images, strict=False)))]


class PooledDiscriminators(nn.Module):
    """Pix2Pix-HD's multi-scale discriminators: source and image are average-pooled once more for each scale.

    `first`: the scale of the given images; 1 while the global generator trains at half the size.
    """

    first = 0

    def __init__(self, discriminators: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Map a source and an image, (N, C, H, W) each, at the scale `first`, to each scale's layer outputs."""
        x = torch.cat((sources[0], images[0]), 1)
        outputs = []
        for scale in self.scales[self.first :]:
            outputs.append(scale(x))
            x = pooled_half(x)
        return outputs


def pooled_half(x: Tensor) -> Tensor:
    """Halve the resolution with Pix2Pix-HD's overlapping 3x3 average pooling."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
