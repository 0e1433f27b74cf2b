"""Norms that compute their statistics from the input image, and ways to fix these statistics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd

from msgunet.device.precision import upcast


class InstanceNorm(nn.Module):
    """Instance norm without weights: normalise each channel of each image to mean 0 and variance 1.

    Applies batch norm to one image at a time, which keeps the memory layout. torch's instance norm does not, and on the
    CPU (torch 2.11) its gradient for one image is wrong if the next layer runs channels-last.

    Attributes:
        running_mean, running_var: if set, used instead of the image's own statistics (see `fixed_statistics`).

    """

    running_mean: Tensor | None = None
    running_var: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`: (N, C, H, W) with more than one pixel."""
        if self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var)
        images = [F.batch_norm(image, None, None, training=True) for image in x.split(1)]
        return images[0] if len(images) == 1 else torch.cat(images)


def use_batch_statistics(network: nn.Module) -> None:
    """Switch to evaluation mode, but keep dropout active and let batch norm use batch statistics, storing none."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def per_image_norms(network: nn.Module) -> list[nn.Module]:
    """Return the norms that compute their statistics from the input image instead of the training."""
    kinds = InstanceNorm | nn.InstanceNorm2d | nn.BatchNorm2d
    return [layer for layer in network.modules() if isinstance(layer, kinds) and layer.running_mean is None]


def whole_image_layers(network: nn.Module) -> list[str]:
    """Return the layers whose result depends on the whole image in ways that no statistics of it can replace.

    A network with such layers translates a tile in another way than the same pixels of the whole image. Functions that
    are no layers, such as a mean over H and W, are not seen.
    """
    return [f"{name or 'network'} ({type(layer).__name__})" for name, layer in network.named_modules() if _mixes(layer)]


def _mixes(layer: nn.Module) -> bool:
    if isinstance(layer, nn.LayerNorm):
        # Over the channels alone, it works on each pixel.
        return len(layer.normalized_shape) > 1
    return isinstance(layer, nn.GroupNorm | nn.MultiheadAttention | _AdaptiveAvgPoolNd | _AdaptiveMaxPoolNd)


@contextmanager
def fixed_statistics(network: nn.Module, sources: Sequence[Tensor]) -> Iterator[None]:
    """Within this context, a network in evaluation mode normalises every image by the statistics of `sources`.

    Tiles of an image are normalised by a thumbnail of the whole (Chen et al., Towards Ultra-Resolution Neural Style
    Transfer via Thumbnail Instance Normalization, AAAI 2022). With their own statistics, uniform tiles would turn into
    noise.
    """
    norms = per_image_norms(network)
    statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(upcast(inputs[0]), (0, 2, 3), correction=0)
        statistics[norm] = mean.to(inputs[0].dtype), variance.to(inputs[0].dtype)

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        if norms:
            network(sources)
    finally:
        for hook in hooks:
            hook.remove()
    try:
        for norm, (mean, variance) in statistics.items():
            norm.running_mean, norm.running_var = mean, variance
            if isinstance(norm, nn.InstanceNorm2d):
                norm.track_running_stats = True  # without it, torch ignores them
        yield
    finally:
        for norm in norms:
            norm.running_mean = norm.running_var = None
            if isinstance(norm, nn.InstanceNorm2d):
                norm.track_running_stats = False
