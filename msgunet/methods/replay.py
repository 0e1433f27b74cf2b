"""Passes of one size recorded once and replayed: hundreds of operations as one launch, a CUDA graph.

At small sizes, launching the operations takes longer than computing them. A pass is recorded when its shapes come for
the third time, so that images of many sizes record nothing. In the passes before, cuDNN chooses its algorithms.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msgunet.core.text import first_line
from msgunet.device.capture import captured
from msgunet.device.notes import say

# Passes of a shape before the one that is recorded.
USUAL_PASSES = 2
# Each recording keeps the memory of a pass.
MOST_RECORDINGS = 2
_MOST_SHAPES = 256


class Recording:
    """A pass with inputs and outputs in fixed places. This one runs the network again, as on a CPU."""

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        self._network = network
        self._inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        self._outputs = self._recorded()

    def _recorded(self) -> list[Tensor]:
        return self._network(self._inputs)

    def _replay(self) -> None:
        for place, output in zip(self._outputs, self._network(self._inputs), strict=True):
            place.copy_(output)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs for inputs of the recorded shapes, in fp32; they stay as they are in later passes."""
        for place, x in zip(self._inputs, inputs, strict=True):
            place.copy_(x)
        self._replay()
        return [output.to(torch.float32, copy=True) for output in self._outputs]


class CudaRecording(Recording):
    """A pass as a CUDA graph."""

    def _recorded(self) -> list[Tensor]:
        device = self._inputs[0].device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        self._graph, outputs = captured(lambda: self._network(self._inputs), device, stream)
        return outputs

    def _replay(self) -> None:
        self._graph.replay()


class Replayed:
    """Runs a network, and replays recorded passes.

    A pass that draws random numbers is not recorded. If a pass cannot be recorded, a line says why, and the network
    runs as usual from then on.

    Attributes:
        paused: set while the network computes something else than usual.

    """

    def __init__(self, network: nn.Module, record: Callable[[nn.Module, Sequence[Tensor]], Recording] | None) -> None:
        """`record` makes a recording of a pass; None records nothing."""
        self._network, self._record = network, record
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._passes: OrderedDict[Any, int] = OrderedDict()
        # A recording has one place for the inputs of all threads, and cuDNN's graphs have one handle.
        self._lock = threading.Lock()
        self.paused = False

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the network's outputs; those of a replayed pass are in fp32."""
        if self._record is None and inputs[0].device.type == "cpu":
            return self._network(inputs)
        with self._lock:
            return self._outputs(inputs)

    def forget(self) -> None:
        """Free the memory of all recordings."""
        self._recordings.clear()

    def _outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if self._record is None or self.paused:
            return self._usual(inputs)
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key in self._recordings:
            self._recordings.move_to_end(key)
            return self._recordings[key](inputs)
        if self._passes.get(key, 0) >= USUAL_PASSES and self._recorded(key, inputs):
            return self._recordings[key](inputs)
        before = _random_states(inputs[0].device)
        outputs = self._usual(inputs)
        if all(map(torch.equal, before, _random_states(inputs[0].device))):
            self._passes[key] = self._passes.get(key, 0) + 1
            while len(self._passes) > _MOST_SHAPES:
                self._passes.popitem(last=False)
        return outputs

    def _usual(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        try:
            return self._network(inputs)
        except torch.OutOfMemoryError:
            if not self._recordings:
                raise
        # Recordings keep memory that this pass needs.
        self._recordings.clear()
        torch.cuda.empty_cache()
        return self._network(inputs)

    def _recorded(self, key: Any, inputs: Sequence[Tensor]) -> bool:
        """Record a pass; return whether it could be recorded."""
        while len(self._recordings) >= MOST_RECORDINGS:
            self._recordings.popitem(last=False)
        try:
            self._recordings[key] = self._record(self._network, inputs)
        except torch.OutOfMemoryError:
            self._recordings.clear()
            return False
        except Exception as error:  # whatever a network does that a recording cannot
            self._record = None
            self._recordings.clear()
            say(f"this network runs without CUDA graphs, since it cannot be recorded: {first_line(error)}")
            return False
        return True


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
