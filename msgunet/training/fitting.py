"""Whether layers fit together on the `meta` device, where torch does not check all of them and names no numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def layers_checked() -> Iterator[None]:
    """Within this context, an input with the wrong number of channels is the error that a CPU reports."""
    hook = register_module_forward_pre_hook(_check)
    try:
        yield
    finally:
        hook.remove()


def _check(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    x = inputs[0] if inputs else None
    if not isinstance(x, Tensor):
        return
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and x.ndim == 4 and x.shape[1] != layer.in_channels:
        raise RuntimeError(
            f"Given groups={layer.groups}, weight of size {list(layer.weight.shape)}, expected input{list(x.shape)} to "
            f"have {layer.in_channels} channels, but got {x.shape[1]} channels instead"
        )
    if isinstance(layer, nn.Linear) and x.ndim and x.shape[-1] != layer.in_features:
        rows = x.numel() // x.shape[-1] if x.shape[-1] else 0
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x.shape[-1]} and "
            f"{layer.in_features}x{layer.out_features})"
        )
