"""Networks made ready for inference on a type of device."""

import torch
from torch import nn

from msgunet.device.precision import dtype_of, inference_layout
from msgunet.methods.folding import drop_cancelled_biases, fold_batch_norm, fold_parametrizations
from msgunet.methods.fuse import rewrite_for_cuda
from msgunet.methods.method import Method
from msgunet.methods.norms import per_image_norms


def prepare(
    method: Method,
    generator: nn.Module,
    device: torch.device,
    precision: str = "fp32",
    kind: str | None = None,
) -> nn.Module:
    """Optimise a generator for inference, in place, and return it.

    Parametrized weights, such as those under spectral norm, are computed once. Batch norm with running statistics is
    folded into the convolutions. Weights are stored in the layout of `layout_of`. For CUDA, biases that a norm cancels
    are dropped, and layers are fused (`msgunet/methods/fuse.py`). With `bf16`, weights and activations are bfloat16:
    the caller passes bfloat16 inputs and receives bfloat16 outputs. `kind` is the type of the device to prepare for, if
    the network is on `meta`; by default CUDA.
    """
    method.prepare_inference(generator)
    fold_parametrizations(generator)
    fold_batch_norm(generator)
    kind = kind or ("cuda" if device.type == "meta" else device.type)
    layout = layout_of(generator, kind, precision)
    if kind != "cpu":
        drop_cancelled_biases(generator)
        if layout == torch.channels_last:
            rewrite_for_cuda(generator, device, precision)
    return generator.to(device, dtype_of(precision), memory_format=layout)


def layout_of(generator: nn.Module, kind: str, precision: str) -> torch.memory_format:
    """Return the layout of a generator's weights and inputs on a type of device."""
    return inference_layout(kind, precision, bool(per_image_norms(generator)))
