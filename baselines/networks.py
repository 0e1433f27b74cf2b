"""Networks of the published baselines: the U-Net of Pix2Pix and the generators of Pix2Pix-HD.

The conventions are those of `msgunet/methods/networks.py`: pyramids in, pyramids out, values in [-1, 1].
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msgunet.methods.networks import pooled_half, scaled
from msgunet.methods.norms import InstanceNorm
from msgunet.methods.recompute import Stages


class UNet(nn.Module):
    """The U-Net of Pix2Pix (Isola et al. 2017), with skip connections by concatenation, batch norm and dropout.

    Args:
        downs: number of stride-2 convolutions (8 at 256x256).
        width: factor on the 64 filters of the first layer.
        channels: numbers of channels of the source and of the target.
        dropout: rate in the full-width up blocks above the innermost (three of them at 8 downsamplings); 0 for none.

    """

    def __init__(self, downs: int, width: float = 1.0, channels: tuple[int, int] = (3, 3), dropout: float = 0.5):
        super().__init__()
        source, target = channels
        widths = [scaled(64 * min(2**i, 8), width) for i in range(downs)]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for i, outputs in enumerate(widths):
            outermost, innermost = i == 0, i == downs - 1
            inputs = source if outermost else widths[i - 1]
            # No batch norm follows the innermost and outermost down convolutions; no down convolution has a bias.
            down: list[nn.Module] = [] if outermost else [nn.LeakyReLU(0.2)]
            down.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
            if not (outermost or innermost):
                down.append(nn.BatchNorm2d(outputs))
            self.down.append(Stages(*down))
            up_inputs = outputs if innermost else 2 * outputs
            if outermost:
                up = [nn.ReLU(), nn.ConvTranspose2d(up_inputs, target, 4, 2, 1), nn.Tanh()]
            else:
                up = [nn.ReLU(), nn.ConvTranspose2d(up_inputs, inputs, 4, 2, 1, bias=False), nn.BatchNorm2d(inputs)]
                if 4 <= i < downs - 1 and dropout:
                    up.append(nn.Dropout(dropout))
            self.up.append(Stages(*up))

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Map one source (N, C, H, W) in [-1, 1], sides divisible by 2^downs, to one output."""
        features = [sources[0]]
        for down in self.down:
            features.append(down(features[-1]))
        x = features.pop()
        for up in reversed(self.up[1:]):
            x = torch.cat((features.pop(), up(x)), 1)
        return [self.up[0](x)]


def _norm_relu() -> list[nn.Module]:
    return [InstanceNorm(), nn.ReLU(inplace=True)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with reflection padding and instance norm, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        self.body = Stages(*first, *_norm_relu(), *second, InstanceNorm())

    def forward(self, x: Tensor) -> Tensor:
        return self.body.plus(x, x)


class GlobalGenerator(nn.Module):
    """The global generator of Pix2Pix-HD (Wang et al. 2018, section 3.1).

    Args:
        filters: number of filters of the first layer (64).
        downsamplings: 4 is the published code's default; 3 gives the paper's 3.32 TFLOP at 2048x1024.
        blocks: number of residual blocks (9).
        channels: numbers of channels of the source and of the target.

    """

    def __init__(self, filters: int, downsamplings: int = 4, blocks: int = 9, channels: tuple[int, int] = (3, 3)):
        super().__init__()
        source, target = channels
        body: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(source, filters, 7), *_norm_relu()]
        widths = [filters * 2**i for i in range(downsamplings + 1)]
        for a, b in itertools.pairwise(widths):
            body += [nn.Conv2d(a, b, 3, 2, 1), *_norm_relu()]
        body += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for a, b in zip(widths[::-1], widths[-2::-1], strict=False):
            body += [nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1), *_norm_relu()]
        self.body = Stages(*body)
        self.head = Stages(nn.ReflectionPad2d(3), nn.Conv2d(filters, target, 7), nn.Tanh())

    @property
    def stages_in_order(self) -> tuple[Stages, Stages]:
        """The stages that run one after the other; layers of both may be fused."""
        return self.body, self.head

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Map one source (N, C, H, W) in [-1, 1], sides divisible by 2^downsamplings, to one output."""
        return [self.head(self.body(sources[0]))]


class LocalEnhancer(nn.Module):
    """Pix2Pix-HD at its full size: a global generator at half resolution and one local enhancer.

    Args:
        filters: number of filters of the enhancer (32); the global generator has twice as many.
        downsamplings, blocks: as in the global generator.
        enhancer_blocks: number of residual blocks of the enhancer (3).
        channels: numbers of channels of the source and of the target.
        head: keep the global generator's head, so that it can be trained alone first. While `coarse_only` is set, the
            network is the global generator alone; sources and outputs have half the size.

    """

    coarse_only = False

    def __init__(
        self,
        filters: int,
        downsamplings: int = 4,
        blocks: int = 9,
        enhancer_blocks: int = 3,
        channels: tuple[int, int] = (3, 3),
        head: bool = False,
    ) -> None:
        super().__init__()
        source, target = channels
        # The enhancer adds the features that the global generator's head would receive.
        global_generator = GlobalGenerator(2 * filters, downsamplings, blocks, channels)
        self.coarse = global_generator.body
        self.coarse_head = global_generator.head if head else None
        self.entry = Stages(
            nn.ReflectionPad2d(3),
            nn.Conv2d(source, filters, 7),
            *_norm_relu(),
            nn.Conv2d(filters, 2 * filters, 3, 2, 1),
            *_norm_relu(),
        )
        self.exit = Stages(
            *[ResidualBlock(2 * filters) for _ in range(enhancer_blocks)],
            nn.ConvTranspose2d(2 * filters, filters, 3, 2, 1, output_padding=1),
            *_norm_relu(),
            nn.ReflectionPad2d(3),
            nn.Conv2d(filters, target, 7),
            nn.Tanh(),
        )

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Map one source (N, C, H, W) in [-1, 1], sides divisible by 2^(downsamplings + 1), to one output."""
        x = sources[0]
        if self.coarse_only:
            return [self.coarse_head(self.coarse(x))]
        return [self.exit(self.entry.plus(x, self.coarse(pooled_half(x))))]


class PANDiscriminator(nn.Module):
    """The discriminator of PAN: eight convolutions, of which layers 1, 4, 6 and 8 define the distance.

    Layers 1, 2 and 4 halve the resolution; a final convolution scores patches.
    """

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        multiples = (1, 2, 2, 4, 4, 8, 8, 8)
        strides = (2, 2, 1, 2, 1, 1, 1, 1)
        layers: list[nn.Module] = []
        channels = inputs
        for i, (multiple, stride) in enumerate(zip(multiples, strides, strict=True)):
            outputs = filters * multiple
            size = {"kernel_size": 4, "stride": 2, "padding": 1} if stride == 2 else {"kernel_size": 3, "padding": 1}
            norm = [nn.BatchNorm2d(outputs)] if i else []
            layers.append(nn.Sequential(nn.Conv2d(channels, outputs, **size, bias=not i), *norm, nn.LeakyReLU(0.2)))
            channels = outputs
        self.layers = nn.ModuleList(layers)
        self.score = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return one scale: the outputs of layers 1, 4, 6 and 8, then the patch scores."""
        x = torch.cat((sources[0], images[0]), 1)
        outputs = []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if number in (1, 4, 6, 8):
                outputs.append(x)
        return [[*outputs, self.score(x)]]


class Identity(nn.Module):
    """A generator that returns the source; if the channel counts differ, each output channel is the source's mean."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.channels = None if source == target else target

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Map one source (N, C, H, W) to one output."""
        if self.channels is None:
            return [sources[0]]
        return [sources[0].mean(1, keepdim=True).expand(-1, self.channels, -1, -1)]


class Constant(nn.Module):
    """A generator that returns the same image for every source."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        # The name is part of the format of generators that earlier versions wrote.
        self.register_buffer("picture", torch.zeros(channels, height, width))

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        return [self.picture.expand(len(sources[0]), -1, -1, -1)]
