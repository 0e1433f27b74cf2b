"""The requirements of a training step, determined before it runs: memory, operations and bytes moved.

The step is run on torch's `meta` device, where tensors have shapes but no values, and its requirements are counted.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm

from msgunet.core.errors import OutOfMemory
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.device.meter import Meter, Operation
from msgunet.methods.method import Method, Phase
from msgunet.methods.vgg19 import VGG19Features
from msgunet.training.fitting import layers_checked
from msgunet.training.state import TrainingState
from msgunet.training.step import step


@dataclass(frozen=True)
class StepNeeds:
    """The requirements of one training step: peak memory in bytes, FLOP, bytes moved and operations (see `Meter`)."""

    memory: int
    flop: int
    moved: int
    operations: dict[tuple[str, str], Operation]


def step_needs(method: Method, settings: RunSettings, phase: Phase, compute: ComputeSettings) -> StepNeeds:
    """Return the requirements of one step in a phase, with the whole batch in one process."""
    meta = torch.device("meta")
    with meta, layers_checked(), _without_power_iterations(), Meter() as meter:
        # Do not compile here: torch.compile would then skip the same code in the actual training.
        state = _MetaState(method, settings, meta, compute.model_copy(update={"compile": False}))
        state.begin_phase(method, phase, resumed=False)
        perceptual = None
        if settings.perceptual:
            perceptual = VGG19Features(settings.perceptual.width).keep_weights_in(settings.training.precision)
        sources, targets = blank_batch(method, settings, phase, meta)
        before = meter.flop, meter.moved
        meter.operations.clear()
        with state.conversions.convolutions() if settings.training.precision == "bf16" else nullcontext():
            step(method, state, sources, targets, perceptual, settings.training.learning_rate, None)
        return StepNeeds(meter.peak, meter.flop - before[0], meter.moved - before[1], meter.operations)


def blank_batch(
    method: Method, settings: RunSettings, phase: Phase, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """Return a batch of black sources and targets as a phase uses them."""
    scales = method.scales(method.options, settings.size)
    shape = settings.size, settings.training.batch_size, device
    sources, targets = (
        method.view(phase, blank_pyramid(scales, *shape, channels), kind)
        for channels, kind in zip(settings.channels, settings.kinds, strict=True)
    )
    return sources, targets


class _Autocast:
    """Runs convolutions in bf16 as autocast does, which torch does not have for the `meta` device.

    Like autocast, it converts each trained weight once in a context (`casts`). A convolution that is recomputed in the
    backward pass is outside of it.
    """

    def __init__(self) -> None:
        self._known: dict[int, Tensor] | None = None

    @contextmanager
    def convolutions(self) -> Iterator[None]:
        """Within this context, convolutions run in bf16."""
        originals = F.conv2d, F.conv_transpose2d

        def narrowed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda *args: function(*(self._cast(a) if isinstance(a, Tensor) else a for a in args))

        F.conv2d, F.conv_transpose2d = map(narrowed, originals)
        try:
            yield
        finally:
            F.conv2d, F.conv_transpose2d = originals

    @contextmanager
    def casts(self) -> Iterator[None]:
        """Within this context, each leaf that requires a gradient is converted once."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def _cast(self, x: Tensor) -> Tensor:
        if self._known is None or not (x.requires_grad and x.is_leaf):
            return x.bfloat16()
        if id(x) not in self._known:
            self._known[id(x)] = x.bfloat16()
        return self._known[id(x)]


@contextmanager
def _without_power_iterations() -> Iterator[None]:
    """Skip the power iterations of spectral norm: they are useless here and take most of the time of a SPADE step."""
    original = _SpectralNorm._power_method
    _SpectralNorm._power_method = lambda *_: None
    try:
        yield
    finally:
        _SpectralNorm._power_method = original


class _MetaState(TrainingState):
    """A training state whose optimisers work on shapes, which torch's own do not, and which has its own autocast."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.conversions = _Autocast()

    def autocast(self) -> AbstractContextManager:
        return self.conversions.casts()

    def renew_optimizers(self, names: Any) -> None:
        for name in names:
            self.optimizers[name] = _Shapes(getattr(self, name))


class _Shapes(torch.optim.Optimizer):
    """Fused Adam on shapes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.parameters(), {})
        self.moments = {p: (torch.empty_like(p), torch.empty_like(p)) for p in network.parameters()}

    def step(self, closure: None = None) -> None:
        weights = [p for p in self.moments if p.grad is not None]
        first, second = ([self.moments[p][i] for p in weights] for i in range(2))
        counts = [torch.empty((), device=p.device) for p in weights]
        torch._fused_adam_(
            weights,
            [p.grad for p in weights],
            first,
            second,
            [],
            counts,
            lr=0.0,
            beta1=0.5,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def check(
    method: Method, settings: RunSettings, compute: ComputeSettings, device: torch.device, processes: int = 1
) -> str:
    """Return a message with the memory that a training needs and the memory that is free.

    Raises:
        OutOfMemory: the training needs more memory than is free.

    """
    # Each process trains on its share of the batch.
    training = settings.training
    share = training.model_copy(update={"batch_size": max(1, training.batch_size // processes)})
    settings = settings.model_copy(update={"training": share})
    phases = [phase for phase in method.phases(training) if phase.length]
    need = max((step_needs(method, settings, phase, compute).memory for phase in phases), default=0)
    if device.type == "cpu":
        need *= processes
    free = free_memory(device)
    text = f"needs about {_size(need)} of {'GPU ' if device.type == 'cuda' else ''}memory"
    if free is None:
        return text
    if need > free:
        raise OutOfMemory(
            f"{settings.entry} on {settings.dataset} {text} at {settings.size[0]}x{settings.size[1]}, batch "
            f"{training.batch_size}, but only {_size(free)} is free; {advice(settings, compute)}"
        )
    return f"{text}; {_size(free)} is free"


def advice(settings: RunSettings, compute: ComputeSettings) -> str:
    """Return the settings that could still reduce the memory of a training."""
    training = settings.training
    ways = [
        *(["compute.activation_checkpointing"] if not compute.activation_checkpointing else []),
        *(["training.precision bf16"] if training.precision != "bf16" else []),
        *(["a larger training.accumulate"] if training.accumulate < training.batch_size else []),
        *(["a smaller training.batch_size"] if training.batch_size > 1 else []),
        "a smaller size or options.width",
    ]
    return f"ways to use less memory: {', '.join(ways)}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def free_memory(device: torch.device) -> int | None:
    """Return the number of bytes that can still be allocated, or None if the system does not report it."""
    if device.type == "cuda":
        # Memory that torch has freed but still reserves is available for its next allocations.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    fields = dict(re.findall(r"(\w+):\s+(\d+) kB", meminfo.read_text(encoding="utf-8")))
    free = (int(fields["MemAvailable"]) + int(fields["SwapFree"])) * 1024
    return min([free, *_group_limits()])


def _group_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yield the bytes that each control group (version 2) of this process still allows.

    Containers and batch systems set these limits.
    """
    groups = root / "proc/self/cgroup"
    match = re.search(r"^0::(/.*)$", groups.read_text(encoding="utf-8"), re.MULTILINE) if groups.is_file() else None
    if match is None:
        return
    top = root / "sys/fs/cgroup"
    folder = top / match[1].strip("/")
    for place in (folder, *(parent for parent in folder.parents if parent.is_relative_to(top))):
        limit, used = place / "memory.max", place / "memory.current"
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
            # The file cache counts as used, but the system frees it when memory is needed.
            cache = re.findall(r"^(?:in)?active_file (\d+)", (place / "memory.stat").read_text(), re.MULTILINE)
            yield int(text) - int(used.read_text()) + sum(map(int, cache))
