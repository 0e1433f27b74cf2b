"""Norms that take their statistics from the image that they see, and whose statistics these may be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.device.precision import upcast


class InstanceNorm(nn.Module):
    """Instance norm without weights: each channel of each image to mean 0 and variance 1.

    That of one image is batch norm's, which keeps the memory's layout. torch's own instance norm does not, and on the
    CPU (torch 2.11) its gradient for one image is wrong where the next layer works in channels-last memory.

    Attributes:
        running_mean, running_var: used instead of the image's own where they are set (see `fixed_statistics`).

    """

    running_mean: Tensor | None = None
    running_var: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (N, C, H, W) with more than one pixel."""
        if self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var)
        images = [F.batch_norm(image, None, None, training=True) for image in x.split(1)]
        return images[0] if len(images) == 1 else torch.cat(images)


def use_batch_statistics(network: nn.Module) -> None:
    """Evaluation mode in which dropout stays on and batch norm takes the statistics of the batch, keeping none."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def per_image_norms(network: nn.Module) -> list[nn.Module]:
    """The norms that take their statistics from the image that they see, and not from the training."""
    norms = (layer for layer in network.modules() if isinstance(layer, InstanceNorm | nn.BatchNorm2d))
    return [norm for norm in norms if norm.running_mean is None]


@contextmanager
def fixed_statistics(network: nn.Module, sources: Sequence[Tensor]) -> Iterator[None]:
    """Within it, a network in evaluation mode normalises every image by the statistics of this one.

    For parts of an image, by a thumbnail of the whole (Chen et al., Towards Ultra-Resolution Neural Style Transfer via
    Thumbnail Instance Normalization, AAAI 2022): by their own, a part with nothing in it would become noise.
    """
    norms = per_image_norms(network)
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(upcast(inputs[0]), (0, 2, 3), correction=0)
        found[norm] = mean.to(inputs[0].dtype), variance.to(inputs[0].dtype)

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        if norms:
            network(sources)
    finally:
        for hook in hooks:
            hook.remove()
    try:
        for norm, (mean, variance) in found.items():
            norm.running_mean, norm.running_var = mean, variance
        yield
    finally:
        for norm in norms:
            norm.running_mean = norm.running_var = None
