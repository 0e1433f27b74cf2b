"""Convolutions with all that follows them as one kernel, by cuDNN's graph API (package `nvidia-cudnn-frontend`).

A graph is built for each layer and shape, and kept. cuDNN's heuristics propose plans; the fastest of the first few is
chosen by running them once.
"""

import functools
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgunet.core.text import first_line
from msgunet.device.notes import say

# Plans of cuDNN's heuristics that are tried. Trying all of them took minutes.
_PLANS = 3
# Seconds after which no further plan of a layer is tried, of all layers together only the first one, and after which no
# further graph is built.
_LAYER_SECONDS, _CHOOSING_SECONDS, _ALL_SECONDS = 0.5, 20.0, 90.0
_X, _WEIGHT, _BIAS, _OTHER, _OUTPUT = range(1, 6)


@dataclass(frozen=True)
class Layer:
    """A convolution in bfloat16 and channels-last with all that follows it; what a graph is built for.

    Attributes:
        x, weight, output: shapes; the weight's is (in, out, h, w) if `transposed`.
        stride: down and right.
        pad: left, right, top, bottom.
        transposed: the convolution is a transposed one.
        end: activation: `none`, `leaky_relu` (with `slope`) or `tanh`.
        slope: of `leaky_relu` below zero; 0 for ReLU.
        bias, other: whether there is a bias, and a tensor that is added last.

    """

    x: tuple[int, ...]
    weight: tuple[int, ...]
    output: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    transposed: bool
    end: str
    slope: float
    bias: bool
    other: bool


def graph_of(layer: Layer, **where: Any) -> Any:
    """Return the graph of a layer, with the plans that cuDNN supports.

    `where` is `handle` for the current device, or `device_property` for the description of a device that need not be
    there.

    Raises:
        Exception: cuDNN has no plan for the layer; its package raises errors of several classes.

    """
    import cudnn

    bf16, fp32 = cudnn.data_type.BFLOAT16, cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=bf16, intermediate_data_type=fp32, compute_data_type=fp32, **where)

    def tensor(uid: int, shape: tuple[int, ...]) -> Any:
        return graph.tensor(dim=list(shape), stride=_strides(shape), data_type=bf16, uid=uid)

    x, weight = tensor(_X, layer.x), tensor(_WEIGHT, layer.weight)
    left, right, top, bottom = layer.pad
    window = {
        "pre_padding": [top, left],
        "post_padding": [bottom, right],
        "stride": [*layer.stride],
        "dilation": [1, 1],
    }
    if layer.transposed:
        y = graph.conv_dgrad(loss=x, filter=weight, **window)
    else:
        y = graph.conv_fprop(image=x, weight=weight, **window)
    y.set_dim(list(layer.output)).set_stride(_strides(layer.output))
    if layer.bias:
        y = graph.bias(input=y, bias=tensor(_BIAS, (1, layer.output[1], 1, 1)))
    if layer.end == "tanh":
        y = graph.tanh(input=y)
    elif layer.end == "leaky_relu":
        y = graph.leaky_relu(input=y, negative_slope=layer.slope) if layer.slope else graph.relu(input=y)
    if layer.other:
        y = graph.add(a=y, b=tensor(_OTHER, layer.output))
    y.set_output(True).set_data_type(bf16).set_uid(_OUTPUT)
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A])
    graph.check_support()
    return graph


def _strides(shape: tuple[int, ...]) -> list[int]:
    """Return the strides of a channels-last tensor."""
    _, channels, height, width = shape
    return [height * width * channels, 1, width * channels, channels]


@functools.cache
def problem(device: torch.device) -> str | None:
    """Return why this device cannot run the graphs, or None if it can."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "they need compute capability 8.0 or newer"
    try:
        import cudnn

        with torch.cuda.device(device):
            cudnn.destroy_handle(cudnn.create_handle())
    except ImportError as error:
        if error.name == "cudnn":
            return "the package nvidia-cudnn-frontend, which is the extra 'cuda', is missing"
        return first_line(error)
    except Exception as error:  # an old driver or library can make it raise anything
        return first_line(error)
    return None


def run(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the layer's output; None if cuDNN refuses the layer, which a line says once."""
    x = x.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    if other is not None:
        other = other.contiguous(memory_format=torch.channels_last)
    output = torch.empty(layer.output, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    tensors = {_X: x, _WEIGHT: weight, _BIAS: bias, _OTHER: other, _OUTPUT: output}
    pointers = {uid: tensor.data_ptr() for uid, tensor in tensors.items() if tensor is not None}
    with torch.cuda.device(x.device):
        return output if _graphs(x.device).run(layer, pointers) else None


@functools.cache
def _graphs(device: torch.device) -> "_Graphs":
    return _Graphs(device)


class _Graphs:
    """The graphs of a device; `run` builds a layer's graph when it is first needed."""

    def __init__(self, device: torch.device) -> None:
        import cudnn

        self._device = device
        self._handle = cudnn.create_handle()
        self._set_stream = cudnn.set_stream
        # For each layer its graph and the number of its plan; None if there is none.
        self._chosen: dict[Layer, tuple[Any, int] | None] = {}
        self._seconds = 0.0

    def run(self, layer: Layer, pointers: dict[int, int]) -> bool:
        """Fill the output; return whether the layer has a graph."""
        self._set_stream(handle=self._handle, stream=torch.cuda.current_stream(self._device).cuda_stream)
        if layer not in self._chosen:
            if self._seconds > _ALL_SECONDS:
                say(f"no further layers become one kernel: after {_ALL_SECONDS:.0f} s of building, others stay plain")
                return False
            start = time.monotonic()
            try:
                self._chosen[layer] = self._choose(layer, pointers)
            except Exception as error:  # several classes, none of them documented
                self._chosen[layer] = None
                say(f"cuDNN refuses some layers, which stay plain, such as {layer}: {first_line(error)}")
            self._seconds += time.monotonic() - start
        if (chosen := self._chosen[layer]) is None:
            return False
        self._execute(*chosen, pointers)
        return True

    def _choose(self, layer: Layer, pointers: dict[int, int]) -> tuple[Any, int]:
        """Return the graph and its fastest plan among the first few."""
        graph = graph_of(layer, handle=self._handle)
        capturing, times, problems = torch.cuda.is_current_stream_capturing(), {}, []
        start = time.monotonic()
        for index in range(min(_PLANS, graph.get_execution_plan_count())):
            try:
                graph.build_plan_at_index(index)
                if capturing:  # where nothing can be timed
                    return graph, index
                times[index] = min(self._milliseconds(graph, index, pointers) for _ in range(3))
            except Exception as error:  # a plan that cannot be built is left out
                problems.append(error)
            seconds = time.monotonic() - start
            if times and (seconds > _LAYER_SECONDS or self._seconds + seconds > _CHOOSING_SECONDS):
                break
        if not times:
            raise problems[0] if problems else RuntimeError("there is no plan")
        return graph, min(times, key=times.__getitem__)

    def _milliseconds(self, graph: Any, index: int, pointers: dict[int, int]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self._execute(graph, index, pointers)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def _execute(self, graph: Any, index: int, pointers: dict[int, int]) -> None:
        # The caching allocator gives the same memory each time, in order of the stream.
        size = max(1, graph.get_workspace_size_plan_at_index(index))
        workspace = torch.empty(size, dtype=torch.uint8, device=self._device)
        graph.execute_plan_at_index(pointers, workspace.data_ptr(), index, handle=self._handle)
