"""The precision of networks (fp32, tf32 on CUDA only, or bf16) and their memory layout."""

import contextlib
from pathlib import Path

import torch
from torch import Tensor


def set_precision(precision: str) -> None:
    """Allow TF32 in CUDA's convolutions and matrix products for `tf32` only, so that fp32 is true fp32."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context for a training's forward passes: autocast to bfloat16 for `bf16`, otherwise no change."""
    if precision != "bf16" or device.type == "meta":  # torch has no autocast for "meta"
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype of weights and images at inference in `precision`."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def training_layout(device: torch.device, precision: str, weights: int) -> torch.memory_format:
    """Return the memory layout in which networks with this many weights train fastest.

    It is channels-last, with one exception: in fp32 on a CPU with no more than AVX2, the weight gradients of wide
    convolutions take two to four times as long in channels-last as in contiguous memory (torch 2.11). This costs more
    than the other operations gain (docs/training.md).
    """
    avx2 = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    slow = avx2 and precision == "fp32" and weights > 5_000_000
    return torch.contiguous_format if slow else torch.channels_last


def inference_layout(kind: str, precision: str, per_image_norms: bool) -> torch.memory_format:
    """Return the memory layout in which networks translate fastest on a type of device (`cpu` or `cuda`).

    It is channels-last, with one exception, measured on an H100 (results/gpu/h100/speed): in fp32, networks whose norms
    use the image's own statistics took 9 to 13 % longer in channels-last (Pix2Pix and both networks of Pix2Pix-HD);
    those without such norms did not.
    """
    slow = kind == "cuda" and precision == "fp32" and per_image_norms
    return torch.contiguous_format if slow else torch.channels_last


def has_bf16(device: torch.device) -> bool:
    """Return whether the device computes bf16 natively, as far as the system reports it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    return not flags.is_file() or "bf16" in flags.read_text(encoding="utf-8")


def unsupported(precision: str, device: torch.device) -> str | None:
    """Return why a device cannot compute in a precision, or None if it can."""
    if precision == "tf32" and device.type == "cpu":
        return "tf32 is for CUDA GPUs; on a CPU, use fp32 or bf16"
    if precision == "bf16" and not has_bf16(device):
        return f"this {'GPU' if device.type == 'cuda' else 'CPU'} has no bf16 instructions; use fp32"
    return None


def upcast(x: Tensor) -> Tensor:
    """Return `x` in at least 32 bits, for computations that need more than half precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
