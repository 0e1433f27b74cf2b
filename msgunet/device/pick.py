"""Which device networks run on."""

import contextlib
import os
import tempfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings

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


def gpu_count() -> int:
    """The CUDA GPUs that torch finds."""
    return torch.cuda.device_count()


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
    # Images of a run have one size, for which the fastest convolutions are looked for once.
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
