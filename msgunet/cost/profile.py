"""Where the time of one network goes: layer by layer against what the device could do, and by operator.

A layer is a module without modules in it that computes something. Additions, concatenations, resizing and whatever else
a network does outside of its layers are one row, `between layers`.
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
from msgunet.cost.bench import Inference, Variant, device_limits, limits_of, precisions_for, training_step
from msgunet.device.facts import flat_facts
from msgunet.device.measuring import in_new_process, timed, wait_for, warm_up_libraries
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import set_precision
from msgunet.training.memory import Meter, tensors_in

BETWEEN = "between layers"
_STEPS = 3


@dataclass
class Work:
    """What a layer does in a pass: calls, FLOP, and the fewest bytes that it reads and writes."""

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
    """Time a network's parts; one row each, of `level` layer (inference), operator or kernel (on a GPU).

    repeats: timed passes or steps; by default 10 passes or 3 steps, which take longer. out: CSV to write.

    Raises:
        UserError: the device has no such precision.

    """
    device = pick_device(compute)
    require_gpu(compute, device)
    precisions_for(device, [variant.precision])
    width, height = settings.size
    print(f"{settings.entry} at {width}x{height}, {part}", file=sys.stderr, flush=True)
    repeats = repeats or (_STEPS if part == "training" else 10)
    said = {"entry": settings.entry, "width": width, "height": height, "part": part}
    said |= {"way": variant.way, "precision": variant.precision}
    limits = None
    if part == "inference":
        limits = in_new_process("the device's limits", device_limits, compute, [variant.precision])
    set_precision(variant.precision)
    warm_up_libraries(device)
    call = (Inference if part == "inference" else training_step)(settings, variant, device)
    for _ in range(2):
        timed(call, device)
    rows = []
    if limits is not None:
        rows = against_limits(by_layer(call, device, repeats), variant.precision, limits)
    rows += by_operator(call, device, min(repeats, _STEPS) if part == "inference" else repeats)
    frame = pd.DataFrame([said | row for row in rows]).assign(**flat_facts(device, compute.threads))
    if out is not None:
        with atomic(out) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    return frame


def against_limits(rows: Iterable[dict[str, Any]], precision: str, limits: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of layers with what the device's limits allow, and the time above that (`lost_ms`): most lost first."""
    found = [row | limits_of(row | {"precision": precision}, limits) for row in rows]
    found = [row | {"lost_ms": row["median_ms"] - row["limit_ms"]} for row in found]
    return sorted(found, key=lambda row: -row["lost_ms"])


def by_layer(inference: Inference, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Time and work of each layer and of what is between them, in the order of their first calls.

    Passes with and without marks around the layers take turns; `undisturbed_ms` is the median of those without,
    `slowdown` the median ratio of turns.
    """
    work = layer_work(inference)
    modules = dict(inference.network.named_modules())
    layers = {name: modules[name] for name in work if name != BETWEEN}
    passes, undisturbed = [], []
    for _ in range(repeats):
        undisturbed.append(timed(inference, device))
        passes.append(layer_seconds(inference, layers, device))
    times = {name: 1000 * np.array([seconds[name] for seconds in passes]) for name in work}
    medians = {name: np.median(found) for name, found in times.items()}
    whole = sum(times.values())
    facts = {
        "measured_ms": np.median(whole),
        "undisturbed_ms": 1000 * np.median(undisturbed),
        "slowdown": np.median(whole / (1000 * np.array(undisturbed))),
        "repeats": repeats,
    }
    rows = []
    for name, done in work.items():
        low, high = np.quantile(times[name], [0.25, 0.75])
        rows.append(
            {
                "level": "layer",
                "name": name,
                "kind": "" if name == BETWEEN else type(layers[name]).__name__,
                "calls": done.calls,
                "median_ms": medians[name],
                "q25_ms": low,
                "q75_ms": high,
                "share": medians[name] / sum(medians.values()),
                "tflop": done.flop / 1e12,
                "moved_gb": done.moved / 1e9,
                **facts,
            }
        )
    return rows


class _PassMeter(Meter):
    """Counts also the bytes that every operation reads and writes, but for views of what is there: `touched`."""

    touched = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if not function.is_view:
            self.touched += sum(tensor.nbytes for tensor in tensors_in((args, kwargs, result)))
        return result

    @property
    def state(self) -> np.ndarray:
        """FLOP, bytes of convolutions and matrix products, bytes of every operation, so far."""
        return np.array([self.flop, self.moved, self.touched])


def layer_work(inference: Inference) -> dict[str, Work]:
    """The work of a pass by layer, and `between layers`, last; layers that do nothing are left out.

    Convolutions and matrix products are counted as `Meter` does; any other layer reads its inputs and writes its
    outputs once; between layers every operation does so.
    """
    found: dict[str, Work] = defaultdict(Work)
    entered = np.zeros(3, int)
    inside = np.zeros(3, int)

    def before(name: str) -> None:
        entered[:] = meter.state

    def after(name: str, given: Any) -> None:
        flop, moved, touched = (int(count) for count in meter.state - entered)
        inside[:] += flop, moved, touched
        if touched:
            work = found[name]
            work.calls += 1
            work.flop += flop
            work.moved += moved or min(touched, sum(tensor.nbytes for tensor in tensors_in(given)))

    # Not in inference mode, in which operations come that are made of others.
    with torch.no_grad(), inference.autocast, _PassMeter() as meter, _hooked(_leaves(inference.network), before, after):
        inference.network(inference.sources)
        flop, _, touched = (int(count) for count in meter.state - inside)
    return {**found, BETWEEN: Work(1, flop, touched)}


def layer_seconds(inference: Inference, layers: Mapping[str, nn.Module], device: torch.device) -> dict[str, float]:
    """Seconds in each of `layers` and between them, of one pass; a GPU marks times itself, and nothing waits for it."""
    begun: dict[str, Any] = {}
    spans: list[tuple[str, Any, Any]] = []

    def before(name: str) -> None:
        begun[name] = _mark(device)

    def after(name: str, given: Any) -> None:
        spans.append((name, begun[name], _mark(device)))

    with _hooked(layers, before, after):
        wait_for(device)
        start = _mark(device)
        inference()
        end = _mark(device)
    wait_for(device)
    found: Counter[str] = Counter()
    for name, *span in spans:
        found[name] += _seconds(*span)
    return {**found, BETWEEN: _seconds(start, end) - sum(found.values())}


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


def _leaves(network: nn.Module) -> dict[str, nn.Module]:
    """Modules without modules in them by name; one whose weight is computed from others is one with what computes."""
    hidden = {m for made in network.modules() if isinstance(made, ParametrizationList) for m in made.modules()}
    return {
        name: module
        for name, module in network.named_modules()
        if name and module not in hidden and (is_parametrized(module) or not any(module.children()))
    }


@contextmanager
def _hooked(
    layers: Mapping[str, nn.Module], before: Callable[[str], None], after: Callable[[str, Any], None]
) -> Iterator[None]:
    """Within it, `before(name)` and `after(name, (inputs, output))` are called around each call of a layer."""
    handles = []
    for name, layer in layers.items():
        handles += [
            layer.register_forward_pre_hook(lambda layer, args, name=name: before(name)),
            layer.register_forward_hook(lambda layer, *given, name=name: after(name, given), with_kwargs=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def by_operator(call: Callable[[], Any], device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """What torch's profiler tells of passes or steps, by torch's operators and a GPU's kernels, longest first.

    An operator's time is the device's, without that of operators which it calls.
    """
    cuda = device.type == "cuda"
    if not cuda:
        # It looks for GPUs in any case, and says so as an error where it finds none.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    undisturbed = [timed(call, device) for _ in range(repeats)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities, acc_events=True) as found:
        whole = 1000 * np.mean([timed(call, device) for _ in range(repeats)])
    rows = []
    for event in found.key_averages():
        kernel = event.device_type != DeviceType.CPU
        seconds = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
        # The parts of a program that are named in it are on the GPU's line once more.
        if seconds <= 0 or (kernel and event.is_user_annotation):
            continue
        mean = 1000 * seconds / repeats
        rows.append(
            {
                "level": "kernel" if kernel else "operator",
                "name": event.key,
                "calls": event.count / repeats,
                "mean_ms": mean,
                "share": mean / whole,
                "measured_ms": whole,
                "undisturbed_ms": 1000 * np.median(undisturbed),
                "repeats": repeats,
            }
        )
    return sorted(rows, key=lambda row: -row["mean_ms"])
