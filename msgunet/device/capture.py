"""The capture of a CUDA graph, which leaves nothing behind if it fails."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from msgunet.device.pick import random_generator


def captured(function: Callable[[], Any], device: torch.device, stream: torch.cuda.Stream) -> tuple[Any, Any]:
    """Record the operations of a function, without executing them.

    Args:
        function: called once; it must not wait for the device.
        device: the GPU.
        stream: where it is recorded.

    Returns:
        The graph, and what the function returned: after each `replay` of the graph, its tensors hold new values.

    Raises:
        Exception: the function raised it, or the capture failed. Memory and the generator of random numbers are as
            before: torch itself (2.11) would keep the graph's memory, and leave its generator capturing.

    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    try:
        # torch leaves its own stream only if the capture succeeds. Other threads, such as a loader's, may use the GPU.
        with (
            torch.cuda.device(device),
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            return graph, function()
    except BaseException:
        index = torch.cuda.current_device() if device.index is None else device.index
        # The end of the capture may have done it.
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        let_go(device)
        raise


def let_go(device: torch.device) -> None:
    """Detach the generator of random numbers from all graphs that were captured, and free unused memory."""
    generator = random_generator(device)
    generator.graphsafe_set_state(generator.clone_state())
    torch.cuda.empty_cache()
