"""Losses shared by the methods, and the VGG-19 behind the perceptual ones.

All take and return plain tensors; lists run over discriminator layers or VGG layers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.config import PerceptualSettings, PictureFormat
from msgunet.data.fetch import VGG19, check_file
from msgunet.errors import UserError
from msgunet.networks import scaled, wide

_VGG19_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)  # 0: pool
VGG19_CONVOLUTIONS = 16


def least_squares(scores: Tensor, real: bool) -> Tensor:
    """Mean squared distance of patch scores to 1 (real) or 0 (fake): the loss of LSGAN and Pix2Pix-HD."""
    return (wide(scores) - float(real)).square().mean()


def cross_entropy(scores: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of patch scores (logits) against real or fake: the loss of Pix2Pix."""
    scores = wide(scores)
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def l1_sum(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference; the mean over elements is the paper's 1 / E_i (equation 1)."""
    return torch.stack([_MeanDistance.apply(x, y) for x, y in zip(a, b, strict=True)]).sum()


class _MeanDistance(torch.autograd.Function):
    """L1, mean over elements. torch's keeps the difference for the backward pass; x and y are kept by others anyway."""

    @staticmethod
    def forward(context: Any, x: Tensor, y: Tensor) -> Tensor:
        context.save_for_backward(x, y)
        return (wide(x) - wide(y)).abs_().mean()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = context.saved_tensors
        difference = wide(x) - wide(y)
        of_x = difference.sign_().mul_(gradient / x.numel()).to(x.dtype)
        return of_x, -of_x if context.needs_input_grad[1] else None


def l1_per_picture(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each picture in a batch, (N, C, H, W) to (N,)."""
    return (wide(a) - wide(b)).abs().mean((1, 2, 3))


def gradient_at_once(loss: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """`loss(image)`, whose gradient is computed in the forward pass already.

    The loss's graph is gone when this returns: of VGG-19's features at 2048x1024 only the gradient, as large as the
    picture, waits for the backward pass, and nothing is computed twice.
    """
    if torch.is_grad_enabled() and image.requires_grad:
        return _GradientAtOnce.apply(image, loss)
    return loss(image)


class _GradientAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, image: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            value = loss(image)
            context.save_for_backward(*torch.autograd.grad(value, image))
        return value.detach()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.saved_tensors[0], None


class VGG19Features(nn.Module):
    """The outputs of VGG-19's convolutions, after their ReLU, for images in [-1, 1]; frozen.

    Args:
        width: factor on the channels; only 1 fits the ImageNet weights.

    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for count in _VGG19_CHANNELS:
            if count == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(channels, scaled(count, width), 3, padding=1), nn.ReLU()]
            channels = scaled(count, width)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(
        self, images: Tensor, convolutions: Sequence[int] = range(VGG19_CONVOLUTIONS), normalise: bool = True
    ) -> list[Tensor]:
        """Features of the given convolutions, counted from 0; nothing beyond the last of them is computed.

        images: (N, C, H, W) in [-1, 1], sides of at least 16 pixels; brought to the mean and deviation of ImageNet,
        as VGG-19 was trained on, unless `normalise` is False. It sees one channel three times, of two the second
        twice, of more the first three.
        """
        if images.shape[1] != 3:
            images = images[:, PictureFormat(channels=images.shape[1]).rgb]
        x = (images * 0.5 + 0.5 - self.mean) / self.std if normalise else images
        found: list[Tensor] = []
        count = 0
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                if count in convolutions:
                    found.append(x)
                count += 1
                if count > max(convolutions):
                    break
        return found


def load_perceptual(settings: PerceptualSettings, weights: Path) -> VGG19Features:
    """VGG-19 as the suite asks for it.

    `weights` is read for ImageNet weights only: torchvision's `vgg19-dcbb9e9d.pth`, whose hash is checked. Untrained
    weights are drawn from a fixed seed, so that every run measures with the same network.

    Raises:
        UserError: the file is missing or is not the published one.

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
        raise UserError(f"the VGG-19 weights are not at {weights}; put torchvision's vgg19-dcbb9e9d.pth there")
    if problem := check_file(weights, VGG19):
        raise UserError(f"{weights}: {problem}")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = VGG19Features()
    network.load_state_dict({k: v for k, v in state.items() if k.startswith("features.")})
    return network
