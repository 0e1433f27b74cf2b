"""Networks of SPADE (Park et al. 2019, section 3 and appendix A); `spade.py` imports this file to build one.

The conventions are those of `msgunet.MSGUNet`: lists over scales in and out, values in [-1, 1]. `classes` is a one-hot
map (N, K, H, W), or the source itself if the palette is empty.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from msgunet import PatchGAN, PooledDiscriminators, recomputed, upcast

# Input and output channels of the blocks, as multiples of `filters`, from the lowest resolution up.
_BLOCKS = ((16, 16), (16, 16), (16, 16), (16, 8), (8, 4), (4, 2), (2, 1))
_LAST = (1, 0.5)


class OneHot(nn.Module):
    """Convert colours to one-hot maps of the nearest colour in a palette.

    Args:
        palette: colours of the classes, with values from 0 to 255; if empty, sources stay unchanged.

    """

    def __init__(self, palette: Sequence[Sequence[int]]) -> None:
        super().__init__()
        # uint8, so that casting the network to another precision does not round the colours.
        self.register_buffer("palette", torch.tensor(palette, dtype=torch.uint8) if palette else None)

    def forward(self, source: Tensor) -> Tensor:
        """Map a source (N, 3, H, W) in [-1, 1] to zeros and ones (N, colours, H, W) of the same dtype."""
        if self.palette is None:
            return source
        values = upcast(source) * 127.5 + 127.5
        colours = self.palette.to(values.dtype)[:, :, None, None]
        # One colour at a time: the differences to all colours at once would be as large as the network's widest layer.
        distances = torch.cat([(values - colour).square().sum(1, keepdim=True) for colour in colours], 1)
        nearest = distances.argmin(1, keepdim=True)
        indices = torch.arange(len(colours), device=source.device)[:, None, None]
        return (nearest == indices).to(source.dtype)


class Spade(nn.Module):
    """Batch norm with a scale and shift computed from the classes at each pixel (section 3, equation 1)."""

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Sequential(nn.Conv2d(classes, hidden, 3, padding=1), nn.ReLU(inplace=True))
        self.scale = nn.Conv2d(hidden, channels, 3, padding=1)
        self.shift = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Normalise `x` (N, C, h, w); `classes` (N, K, H, W) are resized to its size."""
        hidden = self.shared(F.interpolate(classes, size=x.shape[2:]))
        return self.norm(x) * (1 + self.scale(hidden)) + self.shift(hidden)


class SpadeBlock(nn.Module):
    """Residual block: twice SPADE, leaky ReLU, 3x3 convolution; if channels change, the shortcut is learned too."""

    def __init__(self, inputs: int, outputs: int, classes: int, hidden: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.norms = nn.ModuleList([Spade(inputs, classes, hidden), Spade(middle, classes, hidden)])
        self.convs = nn.ModuleList([nn.Conv2d(inputs, middle, 3, padding=1), nn.Conv2d(middle, outputs, 3, padding=1)])
        changes = inputs != outputs
        self.short_norm = Spade(inputs, classes, hidden) if changes else None
        self.short = nn.Conv2d(inputs, outputs, 1, bias=False) if changes else None

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Apply the block to `x` (N, C, h, w) with `classes` (N, K, H, W)."""
        shortcut = x if self.short is None else self.short(self.short_norm(x, classes))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(F.leaky_relu(norm(x, classes), 0.2))
        return shortcut + x


class SpadeGenerator(nn.Module):
    """The generator without an encoder; its input is the downsampled class map.

    Args:
        palette: colours of the classes (see `OneHot`).
        filters: number of filters of the last block (64).
        hidden: number of hidden channels in SPADE (128).
        upsamplings: 5 (the published `normal`), 6 (`more`) or 7 (`most`, with one more block at the end).
        channels: numbers of channels of the source and of the target.

    """

    # True: keep only the inputs of blocks and recompute the rest in the backward pass (see `recompute_activations`).
    recompute = False

    def __init__(
        self,
        palette: Sequence[Sequence[int]],
        filters: int,
        hidden: int,
        upsamplings: int = 5,
        channels: tuple[int, int] = (3, 3),
    ) -> None:
        super().__init__()
        classes = len(palette) or channels[0]
        self.upsamplings = upsamplings
        self.classes = OneHot(palette)
        self.entry = nn.Conv2d(classes, 16 * filters, 3, padding=1)
        factors = (*_BLOCKS, _LAST) if upsamplings == 7 else _BLOCKS
        widths = [(int(a * filters), max(1, int(b * filters))) for a, b in factors]
        self.blocks = nn.ModuleList(SpadeBlock(a, b, classes, hidden) for a, b in widths)
        self.head = nn.Conv2d(widths[-1][1], channels[1], 3, padding=1)
        _init(self)
        for block in self.blocks:
            for conv in filter(None, (*block.convs, block.short)):
                spectral_norm(conv)

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Map one source (N, C, H, W) in [-1, 1], sides divisible by 2^upsamplings, to one output."""
        classes = self.classes(sources[0])
        height, width = (side >> self.upsamplings for side in classes.shape[2:])
        x = self.entry(F.interpolate(classes, size=(height, width)))
        recompute = self.recompute and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks):
            # Upsample before every block except the first, and before the third only with 6 or more upsamplings.
            if number and (number != 2 or self.upsamplings > 5):
                x = F.interpolate(x, scale_factor=2)
            x = recomputed(block, x, classes) if recompute else block(x, classes)
        return [torch.tanh(self.head(F.leaky_relu(x, 0.2)))]


class SpadeDiscriminators(PooledDiscriminators):
    """Pix2Pix-HD's discriminators on classes and image, with spectral norm in the layers that have instance norm."""

    def __init__(self, palette: Sequence[Sequence[int]], filters: int, count: int, channels: tuple[int, int]) -> None:
        inputs = (len(palette) or channels[0]) + channels[1]
        super().__init__([PatchGAN(inputs, filters, norm="instance", padding=2) for _ in range(count)])
        self.classes = OneHot(palette)
        _init(self)
        for scale in self.scales:
            for stage in scale.stages[1:-1]:
                # The following norm would cancel a bias.
                stage[0].bias = None
                spectral_norm(stage[0])

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        return super().forward([self.classes(sources[0])], images)


def _init(network: nn.Module) -> None:
    """Initialise with Xavier normal (gain 0.02) and zero biases, as in the published code; before spectral norm."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
