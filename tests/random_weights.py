"""Random weights in the form of the published ones of LPIPS and DISTS, which tests do not download."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from msgunet.core.files import sha256_file
from msgunet.methods import weights

_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)

State = dict[str, torch.Tensor]


@functools.cache
def random_weights() -> dict[str, State]:
    """Return the state dicts of VGG-16's features, of the linear layers of LPIPS and of the factors of DISTS."""
    draw = torch.Generator().manual_seed(0)
    vgg16 = {"classifier.0.weight": torch.zeros(1)}
    for place, channels, count in zip(_PLACES, _CHANNELS[:-1], _CHANNELS[1:], strict=True):
        weight = torch.randn(count, channels, 3, 3, generator=draw) * (2 / (9 * channels)) ** 0.5
        vgg16 |= {f"features.{place}.weight": weight}
        vgg16 |= {f"features.{place}.bias": torch.randn(count, generator=draw) * 0.05}
    layers = [torch.rand(1, count, 1, 1, generator=draw) for count in (64, 128, 256, 512, 512)]
    factors = {key: torch.rand(1, 1475, 1, 1, generator=draw) for key in ("alpha", "beta")}
    return {
        "vgg16": vgg16,
        "lpips": {f"lin{i}.model.1.weight": layer for i, layer in enumerate(layers)},
        "dists": factors,
    }


def write_weights(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Write the weights and have them accepted as the published ones; return the path of each by its key."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for key, state in random_weights().items():
        path = folder / weights.WEIGHTS[key].name
        torch.save(state, path)
        accepted = dataclasses.replace(weights.WEIGHTS[key], size=None, checksum=f"sha256:{sha256_file(path)}")
        patch.setitem(weights.WEIGHTS, key, accepted)
        paths[key] = str(path)
    return paths


def features(image: torch.Tensor, pool: nn.Module) -> list[torch.Tensor]:
    """Return the features of the random VGG-16 at the last convolution before each pooling, and at the last one.

    `image`: (1, 3, H, W) in [0, 1].
    """
    state, found = random_weights()["vgg16"], []
    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for place in _PLACES:
        x = pool(x) if place in (5, 10, 17, 24) else x
        weight, bias = (state[f"features.{place}.{kind}"] for kind in ("weight", "bias"))
        x = nn.functional.conv2d(x, weight, bias, padding=1).relu()
        found += [x] if place in (2, 7, 14, 21, 28) else []
    return found
