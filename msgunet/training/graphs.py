"""Training steps as one CUDA graph: launching the operations of a step can take longer than computing them.

The first steps of a phase are usual steps. In them cuDNN chooses its algorithms, and the optimisers create their state.
The next one is captured: its Python code runs once, and its operations are recorded without being executed. From then
on, a step is one launch of all of them, on inputs that are copied to the same place each time.

Random numbers are those of usual steps. A captured operation reads the generator's seed and its offset at the beginning
of the step from memory that `replay` fills, and adds its own offset within the step. The training seeds the generator
before each step, with which the offset is zero again.
"""

import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msgunet.core.settings import ComputeSettings
from msgunet.device.pick import random_generator

# Usual steps before the capture. torch recommends three.
WARM_UP = 3
_SYNCHRONISES = "called a synchronizing CUDA operation"

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
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                values = self.usual(step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = [w for w in caught if _SYNCHRONISES in str(w.message)]
        for other in (w for w in caught if w not in found):
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
        self._graph = torch.cuda.CUDAGraph()
        # torch leaves its own stream only if the capture succeeds. Threads such as the loader's may use the device.
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            return step()

    def replay(self) -> None:
        """Execute the recorded step."""
        self._graph.replay()

    def discard(self) -> None:
        """Free the recorded step. After a failed capture, also let the generator leave the capture."""
        self._graph = None
        generator = random_generator(self._device)
        generator.graphsafe_set_state(generator.clone_state())
        torch.cuda.empty_cache()

    def mark(self) -> Callable[[], None]:
        """Return a function that waits until the work queued so far is done."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize


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
        self._done, self._names, self._values = 0, [], None
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
        elif self._done < WARM_UP - 1:
            values = self._graph.usual(step)
        elif self._done == WARM_UP - 1:
            values, self._waits = self._graph.waits(step)
        else:
            values = self._captured(step)
        self._done += 1
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
        before = _Python(self._watched)
        reason = self._waits or self._too_little()
        if reason is None:
            try:
                self._capturable(True)
                self._values = self._graph.capture(lambda: self._stacked(step()))
                reason = before.changed()
            except Exception as error:
                reason = str(_first(error)).splitlines()[0]
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
        if self._graph is None:
            return
        self._queue.append(self._graph.mark())
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


class _Python:
    """What a step may change besides tensors, which would only change in a captured step's first run.

    These are attributes of the method and the networks, and the generators of random numbers on the CPU.
    """

    def __init__(self, watched: Iterable[Any]) -> None:
        self._objects: list[tuple[str, Any]] = []
        for each in watched:
            parts = each.named_modules() if isinstance(each, nn.Module) else [("", each)]
            self._objects += [(f"{type(part).__name__} {name}".strip(), part) for name, part in parts]
        self._before = self._read()
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def _read(self) -> list[dict[str, Any]]:
        return [{name: _token(value) for name, value in vars(part).items()} for _, part in self._objects]

    def changed(self) -> str | None:
        """Return what has changed, or None."""
        for (label, _), before, after in zip(self._objects, self._before, self._read(), strict=True):
            for name in (*before, *after):
                if before.get(name) != after.get(name):
                    return f"a step changes the attribute {name} of {label}"
        if not np.array_equal(np.random.get_state()[1], self._random[1][1]) or random.getstate() != self._random[0]:
            return "a step draws random numbers from random or NumPy"
        if not torch.equal(torch.get_rng_state(), self._random[2]):
            return "a step draws random numbers on the CPU"
        return None

    def restore(self) -> None:
        """Set numbers, texts and the generators to their values before."""
        for (_, part), before in zip(self._objects, self._before, strict=True):
            for name, value in before.items():
                if isinstance(value, bool | int | float | str) and vars(part).get(name) != value:
                    setattr(part, name, value)
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        torch.set_rng_state(self._random[2])


def _token(value: Any) -> Any:
    """Return what to compare: numbers and texts by value, tensors by identity, collections by their members."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Tensor):
        return "tensor", id(value)
    if isinstance(value, dict):
        return "dict", [(key, _token(item)) for key, item in value.items() if isinstance(key, str)], len(value)
    if isinstance(value, list | tuple | set | deque):
        return "items", [_token(item) for item in value]
    return None
