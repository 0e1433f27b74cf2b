"""Time and memory of networks, measured in processes of their own."""

import contextlib
import ctypes
import gc
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msgunet.core.errors import UserError


def in_new_process(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a new process, so that what ran before costs it neither memory nor time.

    Raises:
        UserError: the process was killed; it names `what`.

    """
    # A fork server has torch imported already; on macOS forking is not safe, and each process imports for itself.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError(f"{what}: the process was killed, probably for want of memory") from error


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds that a call takes, with the device's work in it."""
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def warm_up_libraries(device: torch.device) -> None:
    """Run one layer of each kind, so that the libraries' own memory is not counted as the network's."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 3, 4, 2, 1)).to(device)
    layers(torch.zeros(1, 3, 32, 32, device=device)).sum().backward()


def reset_peak_memory(device: torch.device) -> None:
    """Start the peak of a GPU's memory again, after passes that cuDNN chooses its algorithms by.

    It tries all algorithms that fit into what memory is free; what that takes is not what the network needs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """A list that holds, afterwards, the peak in MiB above the state before: the device's, on a CPU the process's."""
    found: list[float] = []
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    with contextlib.suppress(OSError, AttributeError):
        # What was freed goes back to the system, so that it is counted when it is taken again.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        # The peak starts again from now; where that is not allowed, that of the imports stays in it.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = memory_mib("VmRSS")
    yield found
    found.append(memory_mib("VmHWM") - before)


def process_peak_memory(device: torch.device) -> float:
    """The peak of this process so far, in MiB: on a GPU since `reset_peak_memory`, on a CPU since its start."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else memory_mib("VmHWM")


def memory_mib(field: str) -> float:
    """Resident memory of the process: `VmRSS` now, `VmHWM` at its peak. Where Linux does not tell, the peak for both.

    getrusage's peak will not do on Linux: a new process inherits that of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(rf"{field}:\s*(\d+) kB", status.read_text(encoding="utf-8"))[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
