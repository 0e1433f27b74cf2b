"""Where the time of one network goes: by layer, compared with the device limits, and by operator.

A layer is a module without submodules that computes something. Everything that a network does outside its layers, such
as additions, concatenations and resizing, is one row, `between layers`.
"""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.profiler import ProfilerActivity

from msgunet.core.files import atomic
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.cost.bench import device_limits, limits_of, precisions_for
from msgunet.cost.variants import Inference, Variant, training_step
from msgunet.device.facts import flat_facts
from msgunet.device.measuring import in_new_process, timed, wait_for, warm_up_libraries
from msgunet.device.meter import Meter, tensors_in
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import set_precision

BETWEEN = "between layers"
_STEPS = 3


@dataclass
class Work:
    """The work of a layer in one pass: calls, FLOP, and the fewest bytes that it must read and write."""

    calls: int = 0
    flop: int = 0
    moved: int = 0


def profile(
    settings: RunSettings,
    part: str,
    variant: Variant,
    compute: ComputeSettings,
    repeats: int | None = None,
    out: Path | None = None,
) -> pd.DataFrame:
    """Time the parts of a network. The `level` of each row is layer (inference only), operator or kernel (on a GPU).

    `repeats` is the number of timed passes or steps: by default 10 passes, or 3 steps, which take longer. `out` is the
    CSV to write.

    Raises:
        UserError: the device does not support the precision.

    """
    device = pick_device(compute)
    require_gpu(compute, device)
    precisions_for(device, [variant.precision])
    width, height = settings.size
    print(f"{settings.entry} at {width}x{height}, {part}", file=sys.stderr, flush=True)
    repeats = repeats or (_STEPS if part == "training" else 10)
    labels = {"entry": settings.entry, "width": width, "height": height, "part": part}
    labels |= {"way": variant.way, "precision": variant.precision}
    limits = None
    if part == "inference":
        limits = in_new_process("the device limits", device_limits, compute, [variant.precision])
    set_precision(variant.precision)
    warm_up_libraries(device)
    # The operations of a CUDA graph could not be told apart.
    call = (Inference if part == "inference" else training_step)(settings, variant, device, graphs=False)
    for _ in range(2):
        timed(call, device)
    rows = []
    if limits is not None:
        rows = against_limits(by_layer(call, device, repeats), variant.precision, limits)
    rows += by_operator(call, device, min(repeats, _STEPS) if part == "inference" else repeats)
    frame = pd.DataFrame([labels | row for row in rows]).assign(**flat_facts(device, compute.threads))
    if out is not None:
        with atomic(out) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    return frame


def against_limits(rows: Iterable[dict[str, Any]], precision: str, limits: dict[str, float]) -> list[dict[str, Any]]:
    """Add the device limits to rows of layers, and the time above them (`lost_ms`). The largest loss comes first."""
    with_limits = [row | limits_of(row | {"precision": precision}, limits) for row in rows]
    with_losses = [row | {"lost_ms": row["median_ms"] - row["limit_ms"]} for row in with_limits]
    return sorted(with_losses, key=lambda row: -row["lost_ms"])


def by_layer(inference: Inference, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Measure the time and work of each layer, and of everything between layers, in the order of their first calls.

    Passes with and without timestamps around the layers alternate. `undisturbed_ms` is the median of the passes without
    timestamps; `slowdown` is the median ratio of the two.
    """
    work = layer_work(inference)
    modules = dict(inference.network.named_modules())
    layers = {name: modules[name] for name in work if name != BETWEEN}
    passes, undisturbed = [], []
    for _ in range(repeats):
        undisturbed.append(timed(inference, device))
        passes.append(layer_seconds(inference, layers, device))
    times = {name: 1000 * np.array([seconds[name] for seconds in passes]) for name in work}
    medians = {name: np.median(values) for name, values in times.items()}
    totals = sum(times.values())
    facts = {
        "measured_ms": np.median(totals),
        "undisturbed_ms": 1000 * np.median(undisturbed),
        "slowdown": np.median(totals / (1000 * np.array(undisturbed))),
        "repeats": repeats,
    }
    rows = []
    for name, layer_total in work.items():
        low, high = np.quantile(times[name], [0.25, 0.75])
        rows.append(
            {
                "level": "layer",
                "name": name,
                "kind": "" if name == BETWEEN else type(layers[name]).__name__,
                "calls": layer_total.calls,
                "median_ms": medians[name],
                "q25_ms": low,
                "q75_ms": high,
                "share": medians[name] / sum(medians.values()),
                "tflop": layer_total.flop / 1e12,
                "moved_gb": layer_total.moved / 1e9,
                **facts,
            }
        )
    return rows


class _PassMeter(Meter):
    """A meter that also counts the bytes that every operation except views reads and writes (`touched`)."""

    touched = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if not function.is_view:
            self.touched += sum(tensor.nbytes for tensor in tensors_in((args, kwargs, result)))
        return result

    @property
    def state(self) -> np.ndarray:
        """The counts so far: FLOP, bytes of convolutions and matrix products, bytes of all operations."""
        return np.array([self.flop, self.moved, self.touched])


def layer_work(inference: Inference) -> dict[str, Work]:
    """Return the work of one pass by layer, with `between layers` last. Layers that do nothing are omitted.

    Convolutions and matrix products are counted as `Meter` counts them. Any other layer is assumed to read its inputs
    once and write its outputs once; between layers, this is assumed of every operation.
    """
    by_name: dict[str, Work] = defaultdict(Work)
    entered = np.zeros(3, int)
    inside = np.zeros(3, int)

    def before(name: str) -> None:
        entered[:] = meter.state

    def after(name: str, values: Any) -> None:
        flop, moved, touched = (int(count) for count in meter.state - entered)
        inside[:] += flop, moved, touched
        if touched:
            work = by_name[name]
            work.calls += 1
            work.flop += flop
            work.moved += moved or min(touched, sum(tensor.nbytes for tensor in tensors_in(values)))

    # Inference mode would dispatch composite operations instead of the ones that they consist of.
    with torch.no_grad(), inference.autocast, _PassMeter() as meter, _hooked(_leaves(inference.network), before, after):
        inference.network(inference.sources)
        flop, _, touched = (int(count) for count in meter.state - inside)
    return {**by_name, BETWEEN: Work(1, flop, touched)}


def layer_seconds(inference: Inference, layers: Mapping[str, nn.Module], device: torch.device) -> dict[str, float]:
    """Return the seconds that one pass spends in each of `layers` and between them.

    A GPU records its own timestamps, so no layer waits for the device.
    """
    begun: dict[str, Any] = {}
    spans: list[tuple[str, Any, Any]] = []

    def before(name: str) -> None:
        begun[name] = _timestamp(device)

    def after(name: str, values: Any) -> None:
        spans.append((name, begun[name], _timestamp(device)))

    with _hooked(layers, before, after):
        wait_for(device)
        start = _timestamp(device)
        inference()
        end = _timestamp(device)
    wait_for(device)
    by_name: Counter[str] = Counter()
    for name, *span in spans:
        by_name[name] += _seconds(*span)
    return {**by_name, BETWEEN: _seconds(start, end) - sum(by_name.values())}


def _timestamp(device: torch.device) -> Any:
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


def _leaves(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules without submodules, by name.

    A module with parametrized weights counts as one, together with its parametrizations.
    """
    lists = (module for module in network.modules() if isinstance(module, ParametrizationList))
    hidden = {module for parametrizations in lists for module in parametrizations.modules()}
    return {
        name: module
        for name, module in network.named_modules()
        if name and module not in hidden and (is_parametrized(module) or not any(module.children()))
    }


@contextmanager
def _hooked(
    layers: Mapping[str, nn.Module], before: Callable[[str], None], after: Callable[[str, Any], None]
) -> Iterator[None]:
    """In this context, call `before(name)` and `after(name, (args, kwargs, output))` around each call of a layer."""
    handles = []
    for name, layer in layers.items():
        handles += [
            layer.register_forward_pre_hook(lambda layer, args, name=name: before(name)),
            layer.register_forward_hook(lambda layer, *values, name=name: after(name, values), with_kwargs=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def by_operator(call: Callable[[], Any], device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Run PyTorch's profiler on passes or steps, and return the time of each operator and GPU kernel, longest first.

    The time of an operator is device time, without the operators that it calls.
    """
    cuda = device.type == "cuda"
    if not cuda:
        # The profiler always looks for GPUs, and logs an error if it finds none.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    undisturbed = [timed(call, device) for _ in range(repeats)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        total = 1000 * np.mean([timed(call, device) for _ in range(repeats)])
    rows = []
    for event in profiler.key_averages():
        kernel = event.device_type != DeviceType.CPU
        seconds = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
        # User annotations name parts of a program; the GPU's timeline repeats them.
        if seconds <= 0 or (kernel and event.is_user_annotation):
            continue
        mean = 1000 * seconds / repeats
        rows.append(
            {
                "level": "kernel" if kernel else "operator",
                "name": event.key,
                "calls": event.count / repeats,
                "mean_ms": mean,
                "share": mean / total,
                "measured_ms": total,
                "undisturbed_ms": 1000 * np.median(undisturbed),
                "repeats": repeats,
            }
        )
    return sorted(rows, key=lambda row: -row["mean_ms"])
