"""piq's networks of LPIPS and DISTS, from given weights: piq's own constructors would download others."""

import piq
import torch
from piq.perceptual import ContentLoss
from torch import Tensor, nn

State = dict[str, Tensor]

_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pooling
# The last ReLU before each pooling, and the last one of all, as torchvision numbers them.
_LAYERS = ("3", "8", "15", "22", "29")


def lpips(backbone: State, linear: State) -> nn.Module:
    """Return the network of LPIPS.

    Args:
        backbone: torchvision's VGG-16.
        linear: the authors' linear layers: `lin0.model.1.weight` to `lin4.model.1.weight`, (1, C, 1, 1).

    """
    weights = [linear[f"lin{i}.model.1.weight"] for i in range(len(_LAYERS))]
    return ContentLoss(_vgg16(backbone), _LAYERS, weights, normalize_features=True)


def dists(backbone: State, factors: State) -> nn.Module:
    """Return the network of DISTS.

    Args:
        backbone: torchvision's VGG-16.
        factors: the authors' `alpha` and `beta`, (1, 1475, 1, 1). Their sum is scaled to 1, as in the authors' code.

    """
    total = factors["alpha"].sum() + factors["beta"].sum()
    channels = [3, 64, 128, 256, 512, 512]
    weights = [part / total for key in ("alpha", "beta") for part in factors[key].split(channels, dim=1)]
    return _DISTS(_vgg16(backbone), weights)


class _DISTS(piq.DISTS):
    def __init__(self, backbone: nn.Module, weights: list[Tensor]) -> None:
        ContentLoss.__init__(self, backbone, _LAYERS, weights, replace_pooling=True, allow_layers_weights_mismatch=True)


def _vgg16(state: State) -> nn.Sequential:
    """Return the features of torchvision's VGG-16 with weights from its state dict, which are shared, not copied."""
    layers: list[nn.Module] = []
    channels = 3
    with torch.device("meta"):
        for count in _CHANNELS:
            if count == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(channels, count, 3, padding=1), nn.ReLU(inplace=True)]
            channels = count
        network = nn.Sequential(*layers)
    prefix = "features."
    features = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    network.load_state_dict(features, assign=True)
    return network.eval()
