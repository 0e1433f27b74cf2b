"""Activation checkpointing: keep only the inputs of a network's parts, and recompute the rest in the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils.checkpoint import checkpoint


class Stages(nn.Sequential):
    """A sequence of layers; each convolution and the layers around it form a stage.

    With `recompute` set, training uses activation checkpointing: it keeps only the input of each stage and recomputes
    the rest in the backward pass. The result is the same.
    """

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return super().forward(x)
        for stage in self._stages():
            x = recomputed(stage, x)
        return x

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the output for `x`, plus `other`; a last layer that `adds` does so in its own pass over memory."""
        layers = [layer for layer in self if not isinstance(layer, nn.Identity)]
        if not getattr(layers[-1], "adds", False):
            return self(x) + other
        for layer in layers[:-1]:
            x = layer(x)
        return layers[-1](x, other)

    def _stages(self) -> list[nn.Sequential]:
        stages: list[list[nn.Module]] = [[]]
        for layer in self:
            starts_stage = isinstance(layer, nn.ReflectionPad2d) or any(True for _ in _convolutions(layer))
            if starts_stage and any(True for previous in stages[-1] for _ in _convolutions(previous)):
                stages.append([])
            stages[-1].append(layer)
        return [nn.Sequential(*layers) for layers in stages]


def recomputed(part: nn.Module, *inputs: Tensor) -> Tensor:
    """Return `part(*inputs)`, keeping only the inputs; the backward pass recomputes the rest.

    The result is identical to the last bit. The exception is spectral norm, if `part` has another forward pass in
    training mode before the backward pass.
    """
    return checkpoint(part, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _frozen_statistics(part)))


def _convolutions(network: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))


@contextmanager
def _frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Freeze batch norm's running statistics, which must not count the images of a second pass again.

    Spectral norm must not iterate again either: in evaluation mode it uses the vectors from the first pass.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    spectral = [layer for layer in network.modules() if isinstance(layer, ParametrizationList) and layer.training]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    for layer in spectral:
        layer.eval()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
        for layer in spectral:
            layer.train()


def recompute_activations(network: nn.Module) -> None:
    """Turn on activation checkpointing for all parts of a network that have a `recompute` attribute."""
    if hasattr(network, "recompute"):
        network.recompute = True
        return
    for layer in network.children():
        recompute_activations(layer)
