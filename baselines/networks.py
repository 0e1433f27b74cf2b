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
    """The U-Net of Pix2Pix (Isola et al. 2017): skip connections by concatenation, batch norm, dropout inside.

    Args:
        downs: number of stride-2 convolutions (8 at 256x256).
        width: factor on the 64 filters of the first layer.
        channels: of the source and of the target.
        dropout: rate in the innermost-but-one up blocks (three of them at 8 downsamplings); 0 for none.

    """

    def __init__(self, downs: int, width: float = 1.0, channels: tuple[int, int] = (3, 3), dropout: float = 0.5):
        super().__init__()
        source, target = channels
        widths = [scaled(64 * min(2**i, 8), width) for i in range(downs)]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for i, outputs in enumerate(widths):
            first, last = i == 0, i == downs - 1
            inputs = source if first else widths[i - 1]
            # The innermost and outermost convolutions have no batch norm after them; none going down has a bias.
            down: list[nn.Module] = [] if first else [nn.LeakyReLU(0.2)]
            down.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
            if not (first or last):
                down.append(nn.BatchNorm2d(outputs))
            self.down.append(Stages(*down))
            fed = outputs if last else 2 * outputs
            if first:
                up = [nn.ReLU(), nn.ConvTranspose2d(fed, target, 4, 2, 1), nn.Tanh()]
            else:
                up = [nn.ReLU(), nn.ConvTranspose2d(fed, inputs, 4, 2, 1, bias=False), nn.BatchNorm2d(inputs)]
                if 4 <= i < downs - 1 and dropout:
                    up.append(nn.Dropout(dropout))
            self.up.append(Stages(*up))

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """`sources`: one tensor (N, C, H, W) in [-1, 1], sides divisible by 2^downs; returns one output."""
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
        conv = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        self.body = Stages(*conv, *_norm_relu(), *again, InstanceNorm())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class GlobalGenerator(nn.Module):
    """The global generator of Pix2Pix-HD (Wang et al. 2018, section 3.1).

    Args:
        filters: of the first layer (64).
        downsamplings: 4 in the published code's default; 3 gives the paper's 3.32 TFLOP at 2048x1024.
        blocks: residual blocks (9).
        channels: of the source and of the target.

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

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """`sources`: one tensor (N, C, H, W) in [-1, 1], sides divisible by 2^downsamplings; returns one output."""
        return [self.head(self.body(sources[0]))]


class LocalEnhancer(nn.Module):
    """Pix2Pix-HD at its full size: a global generator at half resolution under one local enhancer.

    Args:
        filters: of the enhancer (32); the global generator has twice as many.
        downsamplings, blocks: of the global generator.
        enhancer_blocks: residual blocks of the enhancer (3).
        channels: of the source and of the target.
        head: keep the global generator's own head, to train it alone first. While `coarse_only` is set, the network is
            the global generator alone, and takes and gives images of half the size.

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
        # The enhancer adds the features under the global generator's head.
        whole = GlobalGenerator(2 * filters, downsamplings, blocks, channels)
        self.coarse = whole.body
        self.coarse_head = whole.head if head else None
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
        """`sources`: one tensor (N, C, H, W) in [-1, 1], sides divisible by 2^(downsamplings + 1)."""
        x = sources[0]
        if self.coarse_only:
            return [self.coarse_head(self.coarse(x))]
        return [self.exit(self.entry(x) + self.coarse(pooled_half(x)))]


class PANDiscriminator(nn.Module):
    """The discriminator of PAN: eight convolutions in pairs, of which layers 1, 4, 6 and 8 measure the distance.

    Layers 1, 2 and 4 halve the resolution; a last convolution scores patches.
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
        """One scale: the outputs of layers 1, 4, 6 and 8, then the patch scores."""
        x = torch.cat((sources[0], images[0]), 1)
        found = []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if number in (1, 4, 6, 8):
                found.append(x)
        return [[*found, self.score(x)]]


class Identity(nn.Module):
    """The source as the output; where the numbers of channels differ, the mean of the source's in each."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.channels = None if source == target else target

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """`sources`: one tensor (N, C, H, W)."""
        if self.channels is None:
            return [sources[0]]
        return [sources[0].mean(1, keepdim=True).expand(-1, self.channels, -1, -1)]


class Constant(nn.Module):
    """One image for every source."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(channels, height, width))

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        return [self.image.expand(len(sources[0]), -1, -1, -1)]
