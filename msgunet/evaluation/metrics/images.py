"""An output and its target, as metrics need them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from msgunet.data.pairs import bytes_on


@dataclass(frozen=True)
class Images:
    """An output and its target, of the same shape.

    Attributes:
        pixels: output and target, (H, W, C) or (H, W) of 8 or 16 bits, within `values`.
        values: the values of black and white.
        device: where metrics are computed.
        networks: those of `load_networks`, by metric.

    """

    pixels: tuple[np.ndarray, np.ndarray]
    values: tuple[int, int]
    device: torch.device
    networks: Mapping[str, nn.Module] = field(default_factory=dict)

    @functools.cached_property
    def output(self) -> Tensor:
        """The output in double precision on the device, (C, H, W) in [0, 1]."""
        return self._tensor(self.pixels[0])

    @functools.cached_property
    def target(self) -> Tensor:
        """The same of the target."""
        return self._tensor(self.pixels[1])

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        low, high = self.values
        values = bytes_on(self.device, pixels)[0].contiguous().double()
        return values.sub_(low).div_(high - low)

    def distance(self, name: str) -> float:
        """Return the value of the network of a metric for both images, as RGB in the precision of its weights."""
        network = self.networks[name]
        dtype = next(network.parameters()).dtype
        x, y = (image.to(dtype).expand(3, -1, -1)[None] for image in (self.output, self.target))
        return float(network(x, y))
