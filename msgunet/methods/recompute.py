"""Activation checkpointing: keep what enters a part of a network, and compute the rest again in the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils.checkpoint import checkpoint


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
    """A second pass over the same images, which batch norm's running statistics must not count again.

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
