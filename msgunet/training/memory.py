"""What a training step will need, found before it runs: memory, operations and bytes.

The step is run on torch's `meta` device, where tensors have shapes and no numbers, and what it asks for is counted.
"""

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from msgunet.core.errors import OutOfMemory
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.methods.method import Method, Phase
from msgunet.methods.vgg19 import VGG19Features
from msgunet.training.state import TrainingState
from msgunet.training.step import step


class Meter(TorchDispatchMode):
    """Counts what happens while it is entered.

    Attributes:
        bytes: of all tensors that are alive; `peak`: the most that it was. Not in it: what libraries take for
            themselves.
        flop: of convolutions and matrix products, 2 for each multiply-accumulate.
        moved: bytes that convolutions and matrix products read and write if each tensor goes to and from memory once.

    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = self.flop = self.moved = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            self.flop += count(*args, **(kwargs or {}), out_val=result)
            self.moved += sum(t.nbytes for t in tensors_in((args, result)))
        for tensor in tensors_in(result):
            self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

        def release() -> None:
            self._known.discard(key)
            self.bytes -= size

        weakref.finalize(storage, release)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


@dataclass(frozen=True)
class StepNeeds:
    """What one step of a training needs: bytes of memory at its peak, FLOP, and bytes moved (see `Meter`)."""

    memory: int
    flop: int
    moved: int


def step_needs(method: Method, settings: RunSettings, phase: Phase, compute: ComputeSettings) -> StepNeeds:
    """The needs of one step in a phase, with the whole batch in one process."""
    meta = torch.device("meta")
    with meta, _without_power_iterations(), Meter() as meter:
        # What torch.compile has once met here, it would leave alone in the training.
        state = _MetaState(method, settings, meta, compute.model_copy(update={"compile": False}))
        state.begin_phase(method, phase, resumed=False)
        perceptual = VGG19Features(settings.perceptual.width) if settings.perceptual else None
        sources, targets = blank_batch(method, settings, phase, meta)
        before = meter.flop, meter.moved
        with _meta_autocast() if settings.training.precision == "bf16" else nullcontext():
            step(method, state, sources, targets, perceptual, settings.training.learning_rate, None)
        return StepNeeds(meter.peak, meter.flop - before[0], meter.moved - before[1])


def blank_batch(
    method: Method, settings: RunSettings, phase: Phase, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """A batch of black sources and targets as a phase works on them."""
    scales = method.scales(method.options, settings.size)
    given = settings.size, settings.training.batch_size, device
    sources, targets = (
        method.view(phase, blank_pyramid(scales, *given, channels), kind)
        for channels, kind in zip(settings.channels, settings.kinds, strict=True)
    )
    return sources, targets


@contextmanager
def _meta_autocast() -> Iterator[None]:
    """What autocast does to convolutions, also when they run again: for the `meta` device torch has none."""
    kept = F.conv2d, F.conv_transpose2d

    def narrowed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: function(*(a.bfloat16() if isinstance(a, Tensor) else a for a in args))

    F.conv2d, F.conv_transpose2d = map(narrowed, kept)
    try:
        yield
    finally:
        F.conv2d, F.conv_transpose2d = kept


@contextmanager
def _without_power_iterations() -> Iterator[None]:
    """Spectral norm looks for its vectors here in vain, for most of the time that a step of SPADE takes."""
    kept = _SpectralNorm._power_method
    _SpectralNorm._power_method = lambda *_: None
    try:
        yield
    finally:
        _SpectralNorm._power_method = kept


class _MetaState(TrainingState):
    """A training whose optimisers hold their memory and do nothing: Adam has no numbers here to work on."""

    def renew_optimizers(self, names: Any) -> None:
        for name in names:
            self.optimizers[name] = _Idle(getattr(self, name))


class _Idle(torch.optim.Optimizer):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.parameters(), {})
        self.moments = [torch.empty_like(p) for p in network.parameters() for _ in range(2)]

    def step(self, closure: None = None) -> None:
        return None


def check(
    method: Method, settings: RunSettings, compute: ComputeSettings, device: torch.device, processes: int = 1
) -> str:
    """How much memory a training needs and how much there is, in words.

    Raises:
        OutOfMemory: there is less than it needs.

    """
    # A process takes its share of the batch.
    training = settings.training
    share = training.model_copy(update={"batch_size": max(1, training.batch_size // processes)})
    settings = settings.model_copy(update={"training": share})
    phases = [phase for phase in method.phases(training) if phase.length]
    need = max((step_needs(method, settings, phase, compute).memory for phase in phases), default=0)
    if device.type == "cpu":
        need *= processes
    there = free_memory(device)
    text = f"needs about {_size(need)} of {'GPU ' if device.type == 'cuda' else ''}memory"
    if there is None:
        return text
    if need > there:
        raise OutOfMemory(
            f"{settings.entry} on {settings.dataset} {text} at {settings.size[0]}x{settings.size[1]}, batch "
            f"{training.batch_size}, and {_size(there)} are free; {less(settings, compute)}"
        )
    return f"{text}, {_size(there)} are free"


def less(settings: RunSettings, compute: ComputeSettings) -> str:
    """What a training of these settings could still do to need less memory."""
    training = settings.training
    ways = [
        *(["compute.activation_checkpointing"] if not compute.activation_checkpointing else []),
        *(["training.precision bf16"] if training.precision != "bf16" else []),
        *(["a larger training.accumulate"] if training.accumulate < training.batch_size else []),
        *(["a smaller training.batch_size"] if training.batch_size > 1 else []),
        "a smaller size or options.width",
    ]
    return f"what needs less: {', '.join(ways)}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken; None where the system does not tell."""
    if device.type == "cuda":
        # What torch keeps of what it has freed, it gives to whoever asks next.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    found = dict(re.findall(r"(\w+):\s+(\d+) kB", meminfo.read_text(encoding="utf-8")))
    free = (int(found["MemAvailable"]) + int(found["SwapFree"])) * 1024
    return min([free, *_group_limits()])


def _group_limits(root: Path = Path("/")) -> Iterator[int]:
    """What the control groups of this process still allow (version 2): containers and batch systems set these."""
    groups = root / "proc/self/cgroup"
    match = re.search(r"^0::(/.*)$", groups.read_text(encoding="utf-8"), re.MULTILINE) if groups.is_file() else None
    if match is None:
        return
    top = root / "sys/fs/cgroup"
    folder = top / match[1].strip("/")
    for place in (folder, *(parent for parent in folder.parents if parent.is_relative_to(top))):
        limit, used = place / "memory.max", place / "memory.current"
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
            # The cache of files counts as used, and is given up when memory is wanted.
            cache = re.findall(r"^(?:in)?active_file (\d+)", (place / "memory.stat").read_text(), re.MULTILINE)
            yield int(text) - int(used.read_text()) + sum(map(int, cache))
