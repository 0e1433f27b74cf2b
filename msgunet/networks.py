"""Networks shared by the methods: convolution blocks, the PatchGAN discriminator and the MSG U-Net generator.

Every generator here maps a pyramid of source images to a pyramid of output images: a list of tensors
(N, C, H / 2^k, W / 2^k) in [-1, 1], scale 0 (full resolution) first. A single-scale network takes and returns a
list of one. Every discriminator returns, per scale, the list of its layers' outputs, prediction last.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized, type_before_parametrizations
from torch.utils.checkpoint import checkpoint


def scaled(channels: int, width: float) -> int:
    """`channels` times the width factor, rounded, never below one."""
    return max(1, round(channels * width))


def wide(x: Tensor) -> Tensor:
    """In 32 bits at least, for what half precision is not enough for."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def init_normal(module: nn.Module, std: float = 0.02, biases: bool = True) -> None:
    """N(0, std²) for convolutions, N(1, std²) for batch norm, biases zero (Isola et al. 2017, section 6.2: 0.02).

    `biases`: False leaves the convolutions' biases at torch's default, as the published code of Pix2Pix-HD does.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, std)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
        else:
            continue
        if layer.bias is not None and (biases or isinstance(layer, nn.BatchNorm2d)):
            nn.init.zeros_(layer.bias)


def keep_batch_statistics(network: nn.Module) -> None:
    """Evaluation mode in which dropout stays on and batch norm takes the statistics of the batch, keeping none."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def picture_norms(network: nn.Module) -> list[nn.Module]:
    """The norms that take their statistics from the picture that they see, and not from the training."""
    norms = (layer for layer in network.modules() if isinstance(layer, InstanceNorm | nn.BatchNorm2d))
    return [norm for norm in norms if norm.running_mean is None]


@contextmanager
def statistics_of(network: nn.Module, sources: Sequence[Tensor]) -> Iterator[None]:
    """Within it, a network in evaluation mode normalises every picture by the statistics of this one.

    For parts of a picture, by a thumbnail of the whole (Chen et al., Towards Ultra-Resolution Neural Style Transfer via
    Thumbnail Instance Normalization, AAAI 2022): by their own, a part with nothing in it would become noise.
    """
    norms = picture_norms(network)
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(wide(inputs[0]), (0, 2, 3), correction=0)
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


class Stages(nn.Sequential):
    """Layers one after another; each convolution with the layers around it is a stage.

    While `recompute` is set, a training keeps only what enters each stage, and computes the rest again in the backward
    pass: activation checkpointing, with the same result.
    """

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return super().forward(x)
        for stage in self._stages():
            x = recomputed(stage, x)
        return x

    def _stages(self) -> list[nn.Sequential]:
        stages: list[list[nn.Module]] = [[]]
        for layer in self:
            opens = isinstance(layer, nn.ReflectionPad2d) or any(True for _ in _convolutions(layer))
            if opens and any(True for before in stages[-1] for _ in _convolutions(before)):
                stages.append([])
            stages[-1].append(layer)
        return [nn.Sequential(*layers) for layers in stages]


def recomputed(part: nn.Module, *inputs: Tensor) -> Tensor:
    """`part(*inputs)`, of which only the inputs are kept: the backward pass computes the rest again.

    The same to the last bit, but for spectral norm if `part` has another pass in training before its backward pass.
    """
    return checkpoint(part, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _uncounted(part)))


def _convolutions(network: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))


@contextmanager
def _uncounted(network: nn.Module) -> Iterator[None]:
    """A second pass over the same pictures, which batch norm's running statistics must not count again.

    Nor must spectral norm go on: out of training it takes the vectors that the first pass has left.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    spectral = [layer for layer in network.modules() if isinstance(layer, ParametrizationList) and layer.training]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    for layer in spectral:
        layer.eval()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
        for layer in spectral:
            layer.train()


def recompute_activations(network: nn.Module) -> None:
    """Turn activation checkpointing on, for all parts of a network that have an attribute `recompute`."""
    if hasattr(network, "recompute"):
        network.recompute = True
        return
    for layer in network.children():
        recompute_activations(layer)


def fold_parametrizations(network: nn.Module) -> None:
    """In a network in evaluation mode, compute weights once that are computed from others, as spectral norm's are."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if not is_parametrized(layer):
                continue
            # Not torch's `remove_parametrizations`, which changes the class that copies of the layer share.
            plain = nn.Module.__new__(type_before_parametrizations(layer))
            plain.__dict__.update(layer.__dict__)
            plain._modules = {key: module for key, module in layer._modules.items() if key != "parametrizations"}
            plain._parameters = dict(layer._parameters)
            for weight in layer.parametrizations:
                plain.register_parameter(weight, nn.Parameter(getattr(layer, weight).detach(), requires_grad=False))
            setattr(parent, name, plain)


def fold_batch_norm(network: nn.Module) -> None:
    """In a network in evaluation mode, let each convolution do the work of the batch norm after it.

    Norms that take the statistics of the batch stay.
    """
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for i, (conv, norm) in enumerate(itertools.pairwise(sequence)):
            turned = isinstance(conv, nn.ConvTranspose2d)
            if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
                continue
            if turned or isinstance(conv, nn.Conv2d):
                sequence[i] = fuse_conv_bn_eval(conv, norm, turned)
                sequence[i + 1] = nn.Identity()


class InstanceNorm(nn.Module):
    """Instance norm without weights: each channel of each picture to mean 0 and variance 1.

    That of one picture is batch norm's, which keeps the memory's layout. torch's own instance norm does not, and on the
    CPU (torch 2.11) its gradient for one picture is wrong where the next layer works in channels-last memory.

    Attributes:
        running_mean, running_var: used instead of the picture's own where they are set (see `statistics_of`).

    """

    running_mean: Tensor | None = None
    running_var: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (N, C, H, W) with more than one pixel."""
        if self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var)
        pictures = [F.batch_norm(picture, None, None, training=True) for picture in x.split(1)]
        return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


class SameConv4(nn.Conv2d):
    """A 4x4 stride-1 convolution that keeps the size.

    `odd_pixel` of padding: at the `end` (right and bottom, as 'same' padding does) or at the `start`.
    """

    def __init__(self, inputs: int, outputs: int, odd_pixel: str = "end") -> None:
        super().__init__(inputs, outputs, 4, bias=False)
        self._pad = (1, 2, 1, 2) if odd_pixel == "end" else (2, 1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self._pad))


def conv_block(conv: nn.Module, channels: int) -> Stages:
    """Convolution (without bias: batch norm has one), batch norm, LeakyReLU(0.2): the paper's block (section 2.1)."""
    return Stages(conv, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True))


class MSGUNet(nn.Module):
    """Multi-Scale Gradient U-Net (paper, section 2.1 and Fig. 1; widths as reconstructed in docs/methods.md).

    The encoder takes the source at every scale, the decoder gives an output at every scale. Skip connections add.

    Args:
        widths: channels per level, from full resolution down; its length is the number of levels.
        scales: how many resolutions the source enters and the output leaves at; at most the number of levels.
        channels: of the source and of the target.
        intermediate_outputs: False leaves the full-resolution head only (the paper's Fig. 2, left).
        odd_pixel: where the 4x4 stride-1 convolutions pad one pixel more, `end` or `start`.

    """

    def __init__(
        self,
        widths: Sequence[int],
        scales: int,
        channels: tuple[int, int] = (3, 3),
        intermediate_outputs: bool = True,
        odd_pixel: str = "end",
    ) -> None:
        super().__init__()
        source, target = channels
        self.scales = scales
        self.entry = nn.Sequential(
            conv_block(SameConv4(source, widths[0], odd_pixel), widths[0]),
            conv_block(SameConv4(widths[0], widths[0], odd_pixel), widths[0]),
        )
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(conv_block(nn.Conv2d(a, b, 4, 2, 1, bias=False), b) for a, b in pairs)
        self.merge = nn.ModuleList(conv_block(nn.Conv2d(b + source, b, 1, bias=False), b) for b in widths[1:scales])
        self.up = nn.ModuleList(conv_block(nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False), a) for a, b in pairs)
        self.refine = nn.ModuleList(conv_block(SameConv4(a, a, odd_pixel), a) for a in widths[:-1])
        heads = scales if intermediate_outputs else 1
        self.heads = nn.ModuleList(nn.Conv2d(a, target, 3, padding=1) for a in widths[:heads])

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """`sources`: `scales` tensors (N, C, H / 2^k, W / 2^k) in [-1, 1]; returns as many outputs as heads."""
        features = [self.entry(sources[0])]
        for level, down in enumerate(self.down, start=1):
            x = down(features[-1])
            if level < self.scales:
                x = self.merge[level - 1](torch.cat((x, sources[level]), 1))
            features.append(x)
        x = features.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.down))):
            x = self.refine[level](self.up[level](x) + features.pop())
            if level < len(self.heads):
                outputs.append(torch.tanh(self.heads[level](x)))
        return outputs[::-1]

    def depth(self, parameter: str) -> int:
        """Where the data meet a parameter: a rank from the input (0) to the full-resolution output."""
        part, number = parameter.split(".")[:2]
        level, bottom = int(number), len(self.down)
        ranks = {
            "entry": level,
            "down": 2 + 2 * level,
            "merge": 3 + 2 * level,
            "up": 2 + 2 * bottom + 3 * (bottom - 1 - level),
            "refine": 3 + 2 * bottom + 3 * (bottom - 1 - level),
            "heads": 4 + 2 * bottom + 3 * (bottom - 1 - level),
        }
        return ranks[part]


class PatchGAN(nn.Module):
    """The PatchGAN of Pix2Pix (70x70 with three layers), which shows its layers' outputs for feature matching.

    Args:
        inputs: channels of source and image together.
        filters: of the first layer.
        layers: stride-2 layers; 3 gives a receptive field of 70x70 pixels.
        norm: `batch` (Isola et al. 2017) or `instance`, without affine weights (Wang et al. 2018).
        padding: 1 in Pix2Pix, 2 in Pix2Pix-HD.

    """

    def __init__(self, inputs: int, filters: int, layers: int = 3, norm: str = "batch", padding: int = 1) -> None:
        super().__init__()
        widths = [filters * min(2**i, 8) for i in range(layers + 1)]
        stages = [nn.Sequential(nn.Conv2d(inputs, filters, 4, 2, padding), nn.LeakyReLU(0.2, inplace=True))]
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            stride = 2 if i < layers - 1 else 1
            # Batch norm has a bias of its own; the published instance-norm discriminator keeps the convolution's.
            conv = nn.Conv2d(a, b, 4, stride, padding, bias=norm == "instance")
            normalise = nn.BatchNorm2d(b) if norm == "batch" else InstanceNorm()
            stages.append(nn.Sequential(conv, normalise, nn.LeakyReLU(0.2, inplace=True)))
        stages.append(nn.Sequential(nn.Conv2d(widths[-1], 1, 4, 1, padding)))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`x`: (N, source + image channels, H, W); returns the layers' outputs, the patch scores (N, 1, h, w) last."""
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class ScaleDiscriminators(nn.Module):
    """One discriminator per scale, same architecture, separate weights (paper, section 2.2)."""

    def __init__(self, discriminators: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Source and image of each scale, concatenated; returns each scale's layer outputs."""
        triples = zip(self.scales, sources, images, strict=False)
        return [scale(torch.cat((source, image), 1)) for scale, source, image in triples]
