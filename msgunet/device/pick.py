"""The choice of the device that networks run on."""

import contextlib
import os
import tempfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings

# Locks on GPUs, which this process holds for as long as it lives.
_held: list[FileLock] = []
# Environment variable with the index of the chosen GPU, which child processes inherit.
_CHOSEN = "MSGUNET_GPU"


def random_generator(device: torch.device) -> torch.Generator:
    """Return the generator of random numbers that torch uses on a device, which no other GPU shares."""
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


def seed_random_numbers(device: torch.device, seed: int) -> None:
    """Seed the random numbers of the CPU and of this device; `torch.manual_seed` would also seed every other GPU."""
    for generator in {torch.default_generator, random_generator(device)}:
        generator.manual_seed(seed)


def own_random_state(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return a context whose random numbers leave those outside it alone, on the CPU and on this device only."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def require_gpu(compute: ComputeSettings, device: torch.device) -> None:
    """Check that the device is a GPU if `compute.gpu_required` is set.

    Raises:
        UserError: a GPU is required and the device is a CPU.

    """
    if compute.gpu_required and device.type == "cpu":
        raise UserError(
            "compute.gpu_required is true, but torch finds no CUDA GPU here; on a cluster, check that the job "
            "has a working GPU"
        )


def gpu_count() -> int:
    """Return the number of CUDA GPUs that torch finds."""
    return torch.cuda.device_count()


def requested_device(compute: ComputeSettings) -> torch.device:
    """Return the kind of device that the settings request, without taking one."""
    return torch.device("cuda" if compute.device != "cpu" and gpu_count() else "cpu")


def pick_device(compute: ComputeSettings) -> torch.device:
    """Return the device that the settings request, and set the number of CPU threads.

    Of several GPUs, this process takes the first one that no other process of this project holds, and keeps it for as
    long as it lives. Its child processes use the same one. If no GPU is free, the first one is shared.

    Raises:
        UserError: `cuda` is requested but there is no GPU, or torchrun started more processes than there are free GPUs.

    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is 'cuda', but torch finds no CUDA GPU; use 'auto' or 'cpu'")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > count:
        raise UserError(
            f"torchrun started {processes} processes here, but there are only {count} GPUs; start one process per GPU"
        )
    # All images of a run have the same size, so cuDNN has to search for the fastest convolutions only once.
    torch.backends.cudnn.benchmark = True
    if _CHOSEN not in os.environ:
        os.environ[_CHOSEN] = str(_free_gpu(count, alone=processes == 1))
    device = torch.device("cuda", int(os.environ[_CHOSEN]))
    torch.cuda.set_device(device)
    return device


def _free_gpu(count: int, alone: bool) -> int:
    """Return the index of a GPU that no other process of this project holds; 0 for a single process if all are held."""
    for index in range(count):
        card = f"{torch.cuda.get_device_properties(index).uuid}-{os.getuid()}"
        lock = FileLock(Path(tempfile.gettempdir()) / f"msgunet-{card}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _held.append(lock)
            return index
    if alone:
        return 0
    raise UserError(
        f"torchrun needs a free GPU for each process, but other processes of yours use some of the {count} GPUs here"
    )
