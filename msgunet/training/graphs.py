"""Training steps as one CUDA graph: launching the operations of a step can take longer than computing them.

The first steps of a phase are usual steps. In them cuDNN chooses its algorithms, and the optimisers create their state.
The next one is captured: its Python code runs once, and its operations are recorded without being executed. From then
on, a step is one launch of all of them, on inputs that are copied to the same place each time.

Random numbers are those of usual steps. A captured operation reads the generator's seed and its offset at the beginning
of the step from memory that `replay` fills, and adds its own offset within the step. The training seeds the generator
before each step, with which the offset is zero again.
"""

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from msgunet.core.settings import ComputeSettings
from msgunet.core.text import first_line
from msgunet.device.capture import captured, let_go
from msgunet.training.python_state import PythonState

# Usual steps before the capture. torch recommends three.
WARM_UP = 3
_SYNCHRONISES = "called a synchronizing CUDA operation"
_MODE = "Synchronization debug mode"

Function = Callable[[Sequence[Tensor]], dict[str, Tensor]]


class CudaGraph:
    """The operations of a step on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graph: Any = None

    def usual(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run a step as usual, on the stream of the capture, and return its values."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            values = step()
        current.wait_stream(self._stream)
        return values

    def waits(self, step: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], str | None]:
        """Run a step as `usual`. Also return where it waits for the device, which a captured step cannot."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                values = self.usual(step)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found = [w for w in caught if _SYNCHRONISES in str(w.message)]
        # torch warns of its own mode, too.
        for other in (w for w in caught if w not in found and _MODE not in str(w.message)):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        return values, f"{found[0].filename}:{found[0].lineno} waits for the device" if found else None

    def room(self) -> tuple[int, int]:
        """Return the bytes that a step needs beyond those in use now, and the bytes that are free."""
        free = torch.cuda.mem_get_info(self._device)[0]
        used = torch.cuda.memory_allocated(self._device)
        cached = torch.cuda.memory_reserved(self._device) - used
        return torch.cuda.max_memory_allocated(self._device) - used, free + cached

    def capture(self, step: Callable[[], Tensor]) -> Tensor:
        """Record a step, and return the tensor that holds its values after each `replay`.

        Nothing is executed. If this raises an error, weights and optimisers are as before.
        """
        self._graph, values = captured(step, self._device, self._stream)
        return values

    def replay(self) -> None:
        """Execute the recorded step."""
        self._graph.replay()

    def discard(self) -> None:
        """Free the recorded step."""
        self._graph = None
        let_go(self._device)


class Steps:
    """Runs training steps; on a GPU, most of them as a CUDA graph.

    Attributes:
        warm: whether the next steps of this phase run as all that follow.

    """

    def __init__(
        self,
        device: torch.device,
        graph: CudaGraph | None,
        watched: Iterable[Any] = (),
        optimizers: Callable[[], Iterable[torch.optim.Optimizer]] = tuple,
        copies: int = 1,
    ) -> None:
        """Describe the steps.

        Args:
            device: where they run.
            graph: how they are captured, or None if they are not.
            watched: objects whose Python code runs in a step: the method and the networks.
            optimizers: returns the current optimisers.
            copies: how often the memory of a step must be free: 2 if some steps run alone.

        """
        self._device, self._graph, self._watched, self._copies = device, graph, list(watched), copies
        self._optimizers = optimizers
        self._queue: deque[Callable[[], None]] = deque()
        self._inputs: list[Tensor] = []
        self._values: Tensor | None = None
        self.begin_phase()

    def begin_phase(self) -> None:
        """Forget the captured step: another phase has other operations, and new optimisers."""
        if self._values is not None:
            self._graph.discard()
        self._done, self._usual, self._names, self._values = 0, 0, [], None
        self._waits: str | None = None

    @property
    def warm(self) -> bool:
        return self._done >= WARM_UP and (self._graph is None or self._values is not None)

    def __call__(self, function: Function, batch: Sequence[Tensor], alone: bool = False) -> dict[str, Tensor]:
        """Run a step on `batch` and return its values, on the device.

        `function` must do the same in every step of a phase, except for what it reads from its inputs, the weights and
        the rates of the optimisers. A step that does something else must run `alone`.
        """
        self._copy(batch)
        step = lambda: function(self._inputs)  # noqa: E731
        if self._values is not None and not alone:
            values = self._replayed()
        elif self._graph is None or alone:
            values = step()
        elif self._usual < WARM_UP - 1:
            values = self._graph.usual(step)
        elif self._usual == WARM_UP - 1:
            values, self._waits = self._graph.waits(step)
        else:
            values = self._captured(step)
        self._done += 1
        self._usual += not alone
        self._follow()
        return values

    def _copy(self, batch: Sequence[Tensor]) -> None:
        """Copy the batch to where the captured step reads it."""
        if [x.shape for x in self._inputs] != [x.shape for x in batch]:
            self.begin_phase()
            self._inputs = [torch.empty_like(x, device=self._device) for x in batch]
        for place, values in zip(self._inputs, batch, strict=True):
            place.copy_(values, non_blocking=True)

    def _captured(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Capture the step and run it. If that does not work, run this step and all later ones as usual."""
        before = PythonState(self._watched)
        reason = self._waits or self._too_little()
        if reason is None:
            try:
                self._capturable(True)
                self._values = self._graph.capture(lambda: self._stacked(step()))
                reason = before.changed()
            except Exception as error:
                reason = first_line(_first(error))
            finally:
                self._capturable(False)
        if reason is None:
            return self._replayed()
        before.restore()
        print(f"no CUDA graph, since {reason}; each operation of a step is launched", file=sys.stderr, flush=True)
        self._values = None
        for group in (group for optimizer in self._optimizers() for group in optimizer.param_groups):
            for weight in group["params"]:
                weight.grad = None
        self._graph.discard()
        self._graph = None
        return step()

    def _too_little(self) -> str | None:
        need, free = self._graph.room()
        if self._copies * need <= free:
            return None
        return f"it needs {self._copies * need / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB is free"

    def _stacked(self, values: dict[str, Tensor]) -> Tensor:
        self._names = list(values)
        return torch.stack(list(values.values()))

    def _replayed(self) -> dict[str, Tensor]:
        self._graph.replay()
        # The next step overwrites them.
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))

    def _capturable(self, value: bool) -> None:
        """Tell the optimisers whether they are captured, for which they ask."""
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["capturable"] = value

    def _follow(self) -> None:
        """Wait until all but the last two steps are done, so that the training's clock is not far ahead of them."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._queue.append(event.synchronize)
        if len(self._queue) > 2:
            self._queue.popleft()()


def graph_for(compute: ComputeSettings, device: torch.device, processes: int) -> CudaGraph | None:
    """Return how the steps of a training are captured, or None if they are not.

    Activation checkpointing saves the generator's state and torch.compile has launches of its own, neither of which can
    be captured. The communication of several processes is not captured either.
    """
    plain = not (compute.compile or compute.activation_checkpointing) and processes == 1
    return CudaGraph(device) if device.type == "cuda" and compute.cuda_graphs == "auto" and plain else None


def _first(error: BaseException) -> BaseException:
    """Return the error that came first: the end of an invalid capture raises one more."""
    while error.__context__ is not None:
        error = error.__context__
    return error
