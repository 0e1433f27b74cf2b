"""The numbers that networks compute in: fp32, tf32 (CUDA only) or bf16."""

import contextlib
from pathlib import Path

import torch


def set_precision(precision: str) -> None:
    """Let fp32 be fp32: CUDA's convolutions and matrix products round to TF32 only where `tf32` is asked for."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """What forward passes of a training run under: convolutions in bfloat16 for `bf16`, else nothing."""
    if precision != "bf16" or device.type == "meta":  # for which torch has none
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 itself, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    return not flags.is_file() or "bf16" in flags.read_text(encoding="utf-8")
