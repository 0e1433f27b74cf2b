"""VGG-19, the network whose features the perceptual losses compare."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat, PerceptualSettings
from msgunet.data.fetch import check_file
from msgunet.device.precision import dtype_of
from msgunet.methods.fused import bias_relu, bias_relu_distance
from msgunet.methods.losses import l1_sum
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
        self._prepared = False
        self.requires_grad_(False).eval()

    def keep_weights_in(self, precision: str) -> "VGG19Features":
        """Prepare for a training: convert the weights to its precision once, which autocast would do in every pass.

        On a GPU, bias and ReLU are then one kernel.
        """
        self.features.to(dtype_of(precision))
        self._prepared = True
        return self

    def forward(
        self, images: Tensor, convolutions: Sequence[int] = range(CONVOLUTIONS), normalise: bool = True
    ) -> list[Tensor]:
        """Return the features of the given convolutions, counted from 0; later layers are not computed.

        images: (N, C, H, W) in [-1, 1], with sides of at least 16 pixels. They are normalised to the mean and standard
        deviation of ImageNet, as VGG-19 was trained on, unless `normalise` is False. One channel is repeated three
        times; of two channels, the second is repeated; of more than three, the first three are used.
        """
        return self._run(images, convolutions, normalise, None)

    def distances(
        self,
        images: Tensor,
        targets: Sequence[Tensor],
        convolutions: Sequence[int] = range(CONVOLUTIONS),
        normalise: bool = True,
    ) -> Tensor:
        """Return the mean absolute difference between the features of `images` and `targets`, by convolution: (K,).

        `targets` are the features of other images, as `forward` returns them, without gradients. The sum of the result
        is the `l1_sum` of both lists. On a GPU, its gradient takes fewer kernels than that of `l1_sum`.
        """
        if self._fused(images):
            return torch.stack(self._run(images, convolutions, normalise, targets))
        features = self(images, convolutions, normalise)
        return torch.stack([l1_sum([feature], [target]) for feature, target in zip(features, targets, strict=True)])

    def _fused(self, images: Tensor) -> bool:
        """Return whether bias and ReLU are one kernel. On a CPU, the libraries add the bias in the convolution."""
        return self._prepared and images.device.type != "cpu" and self._compiled_call_impl is None

    def _run(
        self, images: Tensor, convolutions: Sequence[int], normalise: bool, targets: Sequence[Tensor] | None
    ) -> list[Tensor]:
        if images.shape[1] != 3:
            # An index from a list would be copied to the device, which waits for it.
            images = torch.cat([images[:, i : i + 1] for i in ImageFormat(channels=images.shape[1]).rgb], 1)
        x = (images * 0.5 + 0.5 - self.mean) / self.std if normalise else images
        fused = self._fused(images)
        results: list[Tensor] = []
        count = 0
        for layer in self.features:
            if not (fused and isinstance(layer, nn.Conv2d | nn.ReLU)):
                x = layer(x)
            elif isinstance(layer, nn.Conv2d):
                x = F.conv2d(x, layer.weight, None, layer.stride, layer.padding)
                bias = layer.bias
            elif targets is None or count not in convolutions:
                x = bias_relu(x, bias)
            else:
                x, distance = bias_relu_distance(x, bias, targets[len(results)])
            if isinstance(layer, nn.ReLU):
                if count in convolutions:
                    results.append(x if targets is None else distance)
                count += 1
                if count > max(convolutions):
                    break
        return results


def load_perceptual(settings: PerceptualSettings, weights: Path) -> VGG19Features:
    """Return VGG-19 as configured in the suite.

    `weights` is read only for ImageNet weights: torchvision's `vgg19-dcbb9e9d.pth`, whose hash is checked. Untrained
    weights are drawn with a fixed seed, so that every run uses the same network.

    Raises:
        UserError: the file is missing or is not the published file.

    """
    if settings.weights == "untrained":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(19)  # torch.manual_seed would also seed every GPU
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
