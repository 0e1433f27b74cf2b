"""The numbers that networks compute in: fp32, tf32 (CUDA only) or bf16; and the layout of their memory."""

import contextlib
from pathlib import Path

import torch
from torch import Tensor


def set_precision(precision: str) -> None:
    """Let fp32 be fp32: CUDA's convolutions and matrix products round to TF32 only where `tf32` is asked for."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """What forward passes of a training run under: convolutions in bfloat16 for `bf16`, else nothing."""
    if precision != "bf16" or device.type == "meta":  # for which torch has none
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def dtype_of(precision: str) -> torch.dtype:
    """The type of weights and images at inference in `precision`."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def training_layout(device: torch.device, precision: str, weights: int) -> torch.memory_format:
    """The memory layout in which networks with so many weights train fastest: channels-last, with one exception.

    In fp32 on a CPU with no more than AVX2 the weights' gradients of wide convolutions take two to four times as long
    in channels-last as in contiguous memory (torch 2.11), which loses more than the rest gains (docs/training.md).
    """
    avx2 = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    slow = avx2 and precision == "fp32" and weights > 5_000_000
    return torch.contiguous_format if slow else torch.channels_last


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 itself, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    return not flags.is_file() or "bf16" in flags.read_text(encoding="utf-8")


def upcast(x: Tensor) -> Tensor:
    """In 32 bits at least, for what half precision is not enough for."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
