"""Measurement of networks' time and memory, in a new process where needed."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msgunet.core.bugs import bugs_named
from msgunet.core.errors import UserError


def in_new_process(label: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function(*arguments)` in a new process, so that earlier work affects neither its memory nor its time.

    Raises:
        UserError: the process was killed, and the message starts with `label`; or the code of a custom method failed.

    """
    # A fork server imports torch only once. Forking is not safe on macOS, where each process imports torch itself.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, context, _end_with_parent) as pool:
        try:
            return pool.submit(_with_named_bugs, function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError(f"{label}: the process was killed, probably for lack of memory") from error


def _end_with_parent() -> None:
    """End this process when the one that started it is killed: it would wait for work, and keep its GPU memory."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _with_named_bugs(function: Callable[..., Any], *arguments: Any) -> Any:
    # Here, where the traceback is: the other process receives its text alone.
    with bugs_named():
        return function(*arguments)


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that a call takes, including its work on the device."""
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def warm_up_libraries(device: torch.device) -> None:
    """Run one layer of each kind, so that memory of the libraries is not counted as the network's."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 3, 4, 2, 1)).to(device)
    layers(torch.zeros(1, 3, 32, 32, device=device)).sum().backward()


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak memory of a GPU, after the passes in which cuDNN chooses its algorithms.

    cuDNN tries all algorithms that fit into the free memory, which can take more than the network needs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Measure the peak memory of a block, in MiB above the memory in use before it.

    Yields a list that holds the peak after the block. On a GPU it is the device's memory, on a CPU the process's.
    """
    peak: list[float] = []
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    with contextlib.suppress(OSError, AttributeError):
        # Return freed memory to the system, so that it counts when it is allocated again.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        # Reset the peak. Where this is not allowed, the peak includes that of the imports.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = memory_mib("VmRSS")
    yield peak
    peak.append(memory_mib("VmHWM") - before)


def process_peak_memory(device: torch.device) -> float:
    """Return this process's peak memory in MiB: on a GPU since `reset_peak_memory`, on a CPU since its start."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else memory_mib("VmHWM")


def memory_mib(field: str) -> float:
    """Return the resident memory of the process in MiB: `VmRSS` is the current one, `VmHWM` its peak.

    Outside Linux, both are the peak from getrusage. On Linux that peak is of no use: a new process inherits it from its
    parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(rf"{field}:\s*(\d+) kB", status.read_text(encoding="utf-8"))[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
