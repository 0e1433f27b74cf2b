"""VGG-19, the network whose features the perceptual losses compare."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat, PerceptualSettings
from msgunet.data.fetch import check_file
from msgunet.device.precision import dtype_of
from msgunet.methods.networks import scaled
from msgunet.methods.weights import VGG19

_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)  # 0: pooling
CONVOLUTIONS = 16


class VGG19Features(nn.Module):
    """A frozen VGG-19 that returns its convolutions' outputs, after ReLU, for images in [-1, 1].

    Args:
        width: factor on the channels; the ImageNet weights require 1.

    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for count in _CHANNELS:
            if count == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(channels, scaled(count, width), 3, padding=1), nn.ReLU()]
            channels = scaled(count, width)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def keep_weights_in(self, precision: str) -> "VGG19Features":
        """Convert the weights to the precision of a training once: autocast would do so in every pass."""
        self.features.to(dtype_of(precision))
        return self

    def forward(
        self, images: Tensor, convolutions: Sequence[int] = range(CONVOLUTIONS), normalise: bool = True
    ) -> list[Tensor]:
        """Return the features of the given convolutions, counted from 0; later layers are not computed.

        images: (N, C, H, W) in [-1, 1], with sides of at least 16 pixels. They are normalised to the mean and standard
        deviation of ImageNet, as VGG-19 was trained on, unless `normalise` is False. One channel is repeated three
        times; of two channels, the second is repeated; of more than three, the first three are used.
        """
        if images.shape[1] != 3:
            images = images[:, ImageFormat(channels=images.shape[1]).rgb]
        x = (images * 0.5 + 0.5 - self.mean) / self.std if normalise else images
        features: list[Tensor] = []
        count = 0
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                if count in convolutions:
                    features.append(x)
                count += 1
                if count > max(convolutions):
                    break
        return features


def load_perceptual(settings: PerceptualSettings, weights: Path) -> VGG19Features:
    """Return VGG-19 as configured in the suite.

    `weights` is read only for ImageNet weights: torchvision's `vgg19-dcbb9e9d.pth`, whose hash is checked. Untrained
    weights are drawn with a fixed seed, so that every run uses the same network.

    Raises:
        UserError: the file is missing or is not the published file.

    """
    if settings.weights == "untrained":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(19)
            network = VGG19Features(settings.width)
            for layer in network.features:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        return network
    if not weights.is_file():
        raise UserError(f"VGG-19 weights not found: {weights}; save torchvision's vgg19-dcbb9e9d.pth there")
    if problem := check_file(weights, VGG19):
        raise UserError(f"{weights}: {problem}")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = VGG19Features()
    network.load_state_dict({k: v for k, v in state.items() if k.startswith("features.")})
    return network
