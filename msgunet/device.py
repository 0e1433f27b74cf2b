"""Where networks compute, and in which numbers: fp32, tf32 (CUDA only) or bf16."""

import contextlib
import os
import tempfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from msgunet.config import ComputeSettings
from msgunet.errors import UserError

_held: list[FileLock] = []
_TAKEN = "MSGUNET_GPU"


def require_gpu(compute: ComputeSettings, device: torch.device) -> None:
    """Refuse to go on without a GPU where `compute.gpu_required` says so.

    Raises:
        UserError: the device is a CPU.

    """
    if compute.gpu_required and device.type == "cpu":
        raise UserError(
            "compute.gpu_required is true, but torch finds no CUDA GPU here; on a cluster, see whether the job was "
            "given one that works"
        )


def pick_device(compute: ComputeSettings) -> torch.device:
    """The device that the settings ask for; pins the number of CPU threads.

    Of several GPUs the first that no other process of this project has taken, for as long as this process lives; the
    same one for processes that it starts. Where all are taken, one is shared.

    Raises:
        UserError: `cuda` is asked for and there is none, or torchrun started more processes than there are free
            GPUs.

    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is 'cuda', but torch finds no CUDA GPU; use 'auto' or 'cpu'")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > count:
        raise UserError(f"torchrun started {processes} processes here, and there are {count} GPUs: one for each")
    # Pictures of a run have one size, for which the fastest convolutions are looked for once.
    torch.backends.cudnn.benchmark = True
    if _TAKEN not in os.environ:
        os.environ[_TAKEN] = str(_free_gpu(count, alone=processes == 1))
    device = torch.device("cuda", int(os.environ[_TAKEN]))
    torch.cuda.set_device(device)
    return device


def _free_gpu(count: int, alone: bool) -> int:
    for index in range(count):
        card = f"{torch.cuda.get_device_properties(index).uuid}-{os.getuid()}"
        lock = FileLock(Path(tempfile.gettempdir()) / f"msgunet-{card}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _held.append(lock)
            return index
    if alone:
        return 0
    raise UserError(f"torchrun needs a free GPU for each process; others of yours are at work on the {count} here")


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
    """The type of weights and pictures at inference in `precision`."""
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
