"""Networks shared by the methods: convolution blocks, the PatchGAN discriminator and the MSG U-Net generator.

Every generator here maps a pyramid of source images to a pyramid of output images: a list of tensors
(N, C, H / 2^k, W / 2^k) in [-1, 1], scale 0 (full resolution) first. A single-scale network takes and returns a
list of one. Every discriminator returns, per scale, the list of its layers' outputs, prediction last.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.methods.norms import InstanceNorm
from msgunet.methods.recompute import Stages


def scaled(channels: int, width: float) -> int:
    """`channels` times the width factor, rounded, never below one."""
    return max(1, round(channels * width))


def init_normal(module: nn.Module, std: float = 0.02, biases: bool = True) -> None:
    """N(0, std²) for convolutions, N(1, std²) for batch norm, biases zero (Isola et al. 2017, section 6.2: 0.02).

    `biases`: False leaves the convolutions' biases at torch's default, as the published code of Pix2Pix-HD does.
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

    `odd_pixel` of padding: at the `end` (right and bottom, as 'same' padding does) or at the `start`.
    """

    def __init__(self, inputs: int, outputs: int, odd_pixel: str = "end") -> None:
        super().__init__(inputs, outputs, 4, bias=False)
        self._pad = (1, 2, 1, 2) if odd_pixel == "end" else (2, 1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self._pad))


def conv_block(conv: nn.Module, channels: int) -> Stages:
    """Convolution (without bias: batch norm has one), batch norm, LeakyReLU(0.2): the paper's block (section 2.1)."""
    return Stages(conv, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True))


class MSGUNet(nn.Module):
    """Multi-Scale Gradient U-Net (paper, section 2.1 and Fig. 1; widths as reconstructed in docs/methods.md).

    The encoder takes the source at every scale, the decoder gives an output at every scale. Skip connections add.

    Args:
        widths: channels per level, from full resolution down; its length is the number of levels.
        scales: how many resolutions the source enters and the output leaves at; at most the number of levels.
        channels: of the source and of the target.
        intermediate_outputs: False leaves the full-resolution head only (the paper's Fig. 2, left).
        odd_pixel: where the 4x4 stride-1 convolutions pad one pixel more, `end` or `start`.

    """

    def __init__(
        self,
        widths: Sequence[int],
        scales: int,
        channels: tuple[int, int] = (3, 3),
        intermediate_outputs: bool = True,
        odd_pixel: str = "end",
    ) -> None:
        super().__init__()
        source, target = channels
        self.scales = scales
        self.entry = nn.Sequential(
            conv_block(SameConv4(source, widths[0], odd_pixel), widths[0]),
            conv_block(SameConv4(widths[0], widths[0], odd_pixel), widths[0]),
        )
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(conv_block(nn.Conv2d(a, b, 4, 2, 1, bias=False), b) for a, b in pairs)
        self.merge = nn.ModuleList(conv_block(nn.Conv2d(b + source, b, 1, bias=False), b) for b in widths[1:scales])
        self.up = nn.ModuleList(conv_block(nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False), a) for a, b in pairs)
        self.refine = nn.ModuleList(conv_block(SameConv4(a, a, odd_pixel), a) for a in widths[:-1])
        heads = scales if intermediate_outputs else 1
        self.heads = nn.ModuleList(nn.Conv2d(a, target, 3, padding=1) for a in widths[:heads])

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """`sources`: `scales` tensors (N, C, H / 2^k, W / 2^k) in [-1, 1]; returns as many outputs as heads."""
        features = [self.entry(sources[0])]
        for level, down in enumerate(self.down, start=1):
            x = down(features[-1])
            if level < self.scales:
                x = self.merge[level - 1](torch.cat((x, sources[level]), 1))
            features.append(x)
        x = features.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.down))):
            x = self.refine[level](self.up[level](x) + features.pop())
            if level < len(self.heads):
                outputs.append(torch.tanh(self.heads[level](x)))
        return outputs[::-1]

    def depth(self, parameter: str) -> int:
        """Where the data meet a parameter: a rank from the input (0) to the full-resolution output."""
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
    """The PatchGAN of Pix2Pix (70x70 with three layers), which shows its layers' outputs for feature matching.

    Args:
        inputs: channels of source and image together.
        filters: of the first layer.
        layers: stride-2 layers; 3 gives a receptive field of 70x70 pixels.
        norm: `batch` (Isola et al. 2017) or `instance`, without affine weights (Wang et al. 2018).
        padding: 1 in Pix2Pix, 2 in Pix2Pix-HD.

    """

    def __init__(self, inputs: int, filters: int, layers: int = 3, norm: str = "batch", padding: int = 1) -> None:
        super().__init__()
        widths = [filters * min(2**i, 8) for i in range(layers + 1)]
        stages = [nn.Sequential(nn.Conv2d(inputs, filters, 4, 2, padding), nn.LeakyReLU(0.2, inplace=True))]
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            stride = 2 if i < layers - 1 else 1
            # Batch norm has a bias of its own; the published instance-norm discriminator keeps the convolution's.
            conv = nn.Conv2d(a, b, 4, stride, padding, bias=norm == "instance")
            normalise = nn.BatchNorm2d(b) if norm == "batch" else InstanceNorm()
            stages.append(nn.Sequential(conv, normalise, nn.LeakyReLU(0.2, inplace=True)))
        stages.append(nn.Sequential(nn.Conv2d(widths[-1], 1, 4, 1, padding)))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`x`: (N, source + image channels, H, W); returns the layers' outputs, the patch scores (N, 1, h, w) last."""
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class ScaleDiscriminators(nn.Module):
    """One discriminator per scale, same architecture, separate weights (paper, section 2.2)."""

    def __init__(self, discriminators: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Source and image of each scale, concatenated; returns each scale's layer outputs."""
        triples = zip(self.scales, sources, images, strict=False)
        return [scale(torch.cat((source, image), 1)) for scale, source, image in triples]


class PooledDiscriminators(nn.Module):
    """Pix2Pix-HD's multi-scale discriminators: the same pair, average-pooled once more for each next scale.

    `first`: the scale that the given images belong to; 1 while the global generator trains at half the size.
    """

    first = 0

    def __init__(self, discriminators: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Full-resolution source and image, (N, C, H, W) each; returns each scale's layer outputs."""
        x = torch.cat((sources[0], images[0]), 1)
        outputs = []
        for scale in self.scales[self.first :]:
            outputs.append(scale(x))
            x = pooled_half(x)
        return outputs


def pooled_half(x: Tensor) -> Tensor:
    """Half the resolution by Pix2Pix-HD's overlapping 3x3 average."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
