"""Rewrite a generator for CUDA: fewer passes over memory for the same values.

Everything works on `Stages`, whose layers run one after the other: a layer and what follows it become one, in the place
of the first, and `nn.Identity` takes the places of the others.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from msgunet.device.notes import say
from msgunet.methods import cudnn_graphs, norm_act
from msgunet.methods.conv_act import MULTIPLE, ConvAct
from msgunet.methods.networks import MSGUNet, SameConv4, TanhConv
from msgunet.methods.norm_act import NormAct, Reflect
from msgunet.methods.norms import InstanceNorm
from msgunet.methods.recompute import Stages

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, SameConv4, TanhConv)


def rewrite_for_cuda(network: nn.Module, device: torch.device, precision: str) -> None:
    """Rewrite a folded generator in channels-last, in place, as far as the device and its libraries allow.

    A line says once what they do not allow. On `meta`, the device is this machine's GPU; without a GPU, it allows all.
    """
    real = device.type == "cuda" or torch.cuda.is_available()
    if real and (problem := norm_act.problem()) is not None:
        say(f"norms run as plain layers, which takes more time: Triton cannot be used ({problem})")
        reflect_by_slices(network)
    else:
        fuse_norms(network)
    gpu = device if device.type == "cuda" else torch.device("cuda")
    if precision == "bf16" and real and (problem := cudnn_graphs.problem(gpu)) is not None:
        say(f"convolutions run as plain layers, which takes more time: {problem}")
    elif precision == "bf16":
        fuse_convolutions(network)
        return
    crop_padding(network)


def fuse_norms(network: nn.Module) -> None:
    """Make each per-image norm, the ReLU and the reflection padding after it one layer, `NormAct`."""
    for chain in _chains(network):
        for i, place in enumerate(chain):
            if type(place.layer) is InstanceNorm:
                after = _next(chain[i + 1 :])
                relu = after is not None and isinstance(after.layer, nn.ReLU)
                if relu:
                    after.put(nn.Identity())
                    after = _next(chain[i + 1 :])
                pad = 0 if after is None else _reflection(after.layer)
                if pad:
                    after.put(nn.Identity())
                place.put(NormAct(relu, pad))
            elif pad := _reflection(place.layer):
                place.put(Reflect(pad))


def reflect_by_slices(network: nn.Module) -> None:
    """Pad by copies of slices, since PyTorch has no reflection padding in channels-last on CUDA."""
    for chain in _chains(network):
        for place in chain:
            if pad := _reflection(place.layer):
                place.put(Reflect(pad, kernel=False))


def fuse_convolutions(network: nn.Module) -> None:
    """Make each convolution and the bias and activation after it one layer, `ConvAct`; batch norm is folded already.

    Convolutions that nothing follows stay, since a kernel of their own is all that they need.
    """
    for chain in _chains(network):
        for i, place in enumerate(chain):
            if type(place.layer) in _CONVOLUTIONS:
                before = _next(chain[:i][::-1])
                activation = _activation(chain[i + 1 :])
                fills = before is not None and _fills(before.layer) and place.layer.in_channels % MULTIPLE > 0
                fused = _fused(place.layer, None if activation is None else activation.layer, fills)
                if fused is None:
                    continue
                place.put(fused)
                if activation is not None:
                    activation.put(nn.Identity())
                if fills:
                    before.layer.multiple = MULTIPLE
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if type(layer) is TanhConv:
                setattr(parent, name, _fused(layer, None))
        if isinstance(parent, MSGUNet):
            parent.channel_multiple = MULTIPLE


def crop_padding(network: nn.Module) -> None:
    """Let the activation crop what an even padding computes too much, instead of padding unevenly in a pass before."""
    for chain in _chains(network):
        for i, place in enumerate(chain):
            activation = _activation(chain[i + 1 :])
            if type(place.layer) is SameConv4 and activation is not None:
                place.put(CroppedConv(place.layer, activation.layer))
                activation.put(nn.Identity())


class CroppedConv(nn.Module):
    """A `SameConv4` and the activation after it: padded by two pixels on all sides, and cropped by the activation."""

    def __init__(self, conv: SameConv4, activation: nn.ReLU | nn.LeakyReLU) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 4, padding=2, bias=conv.bias is not None)
        self.conv.weight, self.conv.bias = conv.weight, conv.bias
        # The first or the last row and column are those of a padding that `conv` does not have.
        self._kept = slice(1, None) if conv.pad[0] == 1 else slice(None, -1)
        self._slope = _end(activation)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `x`: (N, C, H, W) to an output of the same size."""
        return F.leaky_relu(self.conv(x)[:, :, self._kept, self._kept], self._slope)


@dataclass
class _Place:
    """The place of a layer in its stages."""

    stages: Stages
    index: int

    @property
    def layer(self) -> nn.Module:
        return self.stages[self.index]

    def put(self, layer: nn.Module) -> None:
        self.stages[self.index] = layer


def _chains(network: nn.Module) -> list[list[_Place]]:
    """Return the places of layers that always run one after the other, in one or several stages."""
    chains = [module.stages_in_order for module in network.modules() if hasattr(module, "stages_in_order")]
    chained = {stages for chain in chains for stages in chain}
    alone = [(module,) for module in network.modules() if isinstance(module, Stages) and module not in chained]
    return [[_Place(stages, i) for stages in chain for i in range(len(stages))] for chain in [*chains, *alone]]


def _next(places: list[_Place]) -> _Place | None:
    return next((place for place in places if not isinstance(place.layer, nn.Identity)), None)


def _fills(layer: nn.Module) -> bool:
    return isinstance(layer, Reflect) and layer.kernel


def _activation(following: list[_Place]) -> _Place | None:
    """Return the place of the activation that comes next, or None if it is another layer."""
    place = _next(following)
    return place if place is not None and isinstance(place.layer, nn.ReLU | nn.LeakyReLU | nn.Tanh) else None


def _reflection(layer: nn.Module) -> int:
    """Return the pixels on each side of a padding by reflection; 0 for all other layers."""
    even = isinstance(layer, nn.ReflectionPad2d) and len({*layer.padding}) == 1
    return layer.padding[0] if even else 0


def _fused(conv: nn.Module, activation: nn.Module | None, fills: bool = False) -> ConvAct | None:
    """Return a convolution and an activation as one layer; None if that gains nothing or is not possible.

    `fills`: the layer before fills channels, so that a convolution alone gains too.
    """
    end = ("tanh", 0.0) if type(conv) is TanhConv else _end(activation)
    gains = conv.bias is not None or end[0] != "none" or isinstance(conv, SameConv4) or fills
    plain = conv.groups == 1 and tuple(conv.dilation) == (1, 1) and conv.padding_mode == "zeros"
    if not (gains and plain) or isinstance(conv.padding, str):
        return None
    down, right = conv.padding
    pad = conv.pad if isinstance(conv, SameConv4) else (right, right, down, down)
    return ConvAct(conv, pad, *end)


def _end(activation: nn.Module | None) -> tuple[str, float]:
    """Return an activation's name and slope as `ConvAct` takes them."""
    if activation is None:
        return "none", 0.0
    if isinstance(activation, nn.Tanh):
        return "tanh", 0.0
    return "leaky_relu", activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
