"""How fast the engine is: training steps and inference against plain PyTorch, and against what the device can do.

`plain` is what one writes first: contiguous memory, batch norm on its own, every loss with passes of its own, losses
read after each step. `engine` is what this project does. Both are timed in one process, in turns.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from msgunet.core.errors import UserError
from msgunet.core.files import atomic, canonical_json, short_hash
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.cost.count import noise_pyramid
from msgunet.data.pairs import blank_pyramid
from msgunet.device.facts import flat_facts
from msgunet.device.measuring import in_new_process, peak_memory, reset_peak_memory, timed, warm_up_libraries
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import autocast, dtype_of, has_bf16, set_precision
from msgunet.methods.generator import prepare
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import VGG19Features
from msgunet.training.memory import Meter, step_needs
from msgunet.training.state import TrainingState
from msgunet.training.step import step

PARTS = ("inference", "training")
_PRECISIONS = ("fp32", "tf32", "bf16")
_WAYS = ("plain", "engine", "compiled")
_KEY = ["entry", "width", "height", "part", "settings"]


@dataclass(frozen=True)
class Variant:
    """One way to do the same work: `plain`, `engine` or `compiled` (the engine under torch.compile)."""

    way: str
    precision: str


def bench(
    runs: Sequence[RunSettings],
    out: Path,
    compute: ComputeSettings,
    parts: Sequence[str] = PARTS,
    precisions: Sequence[str] | None = None,
    repeats: int = 10,
    compiled: bool = False,
) -> pd.DataFrame:
    """Time every run's network; writes the CSV after each, and skips what it holds already.

    Raises:
        UserError: the CSV is of another commit or device, or the device has no such precision.

    """
    device = pick_device(compute)
    require_gpu(compute, device)
    ways = _WAYS if compiled else _WAYS[:2]
    asked = {(way, precision) for precision in precisions_for(device, precisions) for way in ways}
    environment = flat_facts(device, compute.threads)
    frame = _begun(out, environment)
    limits: dict[str, float] = {}
    for settings in runs:
        for part in parts:
            key = [settings.entry, *settings.size, part, _identity(settings)]
            there = (frame[_KEY] == key).all(axis=1)
            measured = set(zip(frame["way"][there], frame["precision"][there], strict=True))
            if asked <= measured:
                continue
            # All ways to do the same work are timed in one process, also those that were there.
            wanted = asked | measured
            variants = [Variant(way, p) for p in _PRECISIONS for way in _WAYS if (way, p) in wanted]
            what = f"{settings.entry} at {settings.size[0]}x{settings.size[1]}, {part}"
            print(what, file=sys.stderr, flush=True)
            precisions_there = {precision for _, precision in wanted}
            if not precisions_there <= limits.keys():
                limits = in_new_process("the device's limits", device_limits, compute, precisions_there)
            rows = in_new_process(what, time_part, settings, part, variants, compute, repeats)
            named = [dict(zip(_KEY, key, strict=True)) | row | limits_of(row, limits) for row in rows]
            new = pd.DataFrame(named).assign(**environment)
            frame = pd.concat([frame[~there], new], ignore_index=True) if len(frame) else new
            with atomic(out) as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n")
    return frame


def _identity(settings: RunSettings) -> str:
    """A hash of what decides the work of a step, but for the precision."""
    said = settings.model_dump(mode="json", include={"method", "version", "options", "perceptual"})
    said |= settings.training.model_dump(include={"batch_size", "accumulate"})
    return short_hash(canonical_json(said))


def precisions_for(device: torch.device, wanted: Sequence[str] | None) -> Sequence[str]:
    """Those that are wanted, if the device has them (else a UserError); None: fp32 and what it computes itself."""
    cuda = device.type == "cuda"
    if wanted is None:
        return ["fp32", *(["tf32"] if cuda else []), *(["bf16"] if has_bf16(device) else [])]
    if "tf32" in wanted and not cuda:
        raise UserError("tf32 is for CUDA GPUs; on a CPU there are fp32 and bf16")
    return wanted


def _begun(out: Path, environment: dict[str, Any]) -> pd.DataFrame:
    """The rows that are there already."""
    if not out.is_file():
        return pd.DataFrame(columns=[*_KEY, "way", "precision"])
    frame = pd.read_csv(out)
    for key in ("commit", "device", "threads"):
        if (frame[key] != environment[key]).any():
            raise UserError(
                f"{out} holds rows of {key} '{frame[key].iloc[0]}', this is '{environment[key]}'; give another "
                "--out, or remove it to start again"
            )
    return frame


def time_part(
    settings: RunSettings, part: str, variants: Sequence[Variant], compute: ComputeSettings, repeats: int
) -> list[dict[str, Any]]:
    """Times, memory and operations of all variants, which take turns; others are compared with the first."""
    device = pick_device(compute)
    warm_up_libraries(device)
    make = {"inference": Inference, "training": training_step}[part]
    calls, memory, needs = [], [], []
    for variant in variants:
        with peak_memory(device) as peak:
            set_precision(variant.precision)
            calls.append(make(settings, variant, device))
            for _ in range(2):
                timed(calls[-1], device)
            if device.type == "cuda":
                reset_peak_memory(device)
                timed(calls[-1], device)
        memory.append(peak[0])
        needs.append(_needs(settings, part, variant.precision))
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(repeats):
        for variant, call, found in zip(variants, calls, times, strict=True):
            set_precision(variant.precision)
            found.append(timed(call, device))
    batch = settings.training.batch_size if part == "training" else 1
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in build_method(settings).build_generator().parameters())
    first = np.array(times[0])
    rows = []
    for variant, found, peak, (flop, moved) in zip(variants, map(np.array, times), memory, needs, strict=True):
        low, median, high = 1000 * np.quantile(found, [0.25, 0.5, 0.75])
        faster = np.quantile(first / found, [0.25, 0.5, 0.75])
        rows.append(
            {
                "way": variant.way,
                "precision": variant.precision,
                "parameters": parameters,
                "median_ms": median,
                "q25_ms": low,
                "q75_ms": high,
                "repeats": repeats,
                "batch": batch,
                "images_per_s": 1000 * batch / median,
                "speedup": faster[1],
                "speedup_q25": faster[0],
                "speedup_q75": faster[2],
                "peak_memory_mib": peak,
                "tflop": flop / 1e12,
                "moved_gb": moved / 1e9,
                "tflop_per_s": flop / 1e9 / median,
            }
        )
    return rows


def limits_of(row: dict[str, Any], limits: dict[str, float]) -> dict[str, float]:
    """The device's measured limits beside a row, the time that they allow, and the share of it that is reached."""
    rate, bandwidth = limits[row["precision"]], limits["bandwidth"]
    least = 1000 * max(row["tflop"] / rate, row["moved_gb"] / bandwidth)
    found = {"matrix_tflop_per_s": rate, "bandwidth_gb_per_s": bandwidth}
    return {**found, "limit_ms": least, "share_of_limit": least / row["median_ms"]}


def device_limits(compute: ComputeSettings, precisions: Sequence[str]) -> dict[str, float]:
    """The rate of large matrix products in each precision (TFLOP/s), and of copying memory (`bandwidth`, GB/s)."""
    device = pick_device(compute)
    largest, length = (8192, 2**28) if device.type == "cuda" else (2048, 2**26)
    found = {}
    for precision in precisions:
        set_precision(precision)
        dtype = dtype_of(precision)
        size, seconds = 128, 0.0
        # A device that does not compute in this precision itself may need minutes for a product of the largest size.
        while size < largest and seconds < 0.1:
            size *= 2
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
            seconds = min(timed(lambda a=a, b=b: a @ b, device) for _ in range(5))
        found[precision] = 2 * size**3 / 1e12 / seconds
    source, target = (torch.zeros(length, device=device) for _ in "st")
    found["bandwidth"] = 2 * source.nbytes / 1e9 / min(timed(lambda: target.copy_(source), device) for _ in range(7))
    return found


class Inference:
    """One image through the generator, when called.

    Attributes:
        network, sources: the generator as it is run, and what it is given.
        autocast: what it runs under.

    """

    def __init__(self, settings: RunSettings, variant: Variant, device: torch.device) -> None:
        torch.manual_seed(0)
        method = build_method(settings)
        self.network = method.build_generator()
        self.sources = noise_pyramid(method, device, channels=method.channels[0])
        plain, dtype = variant.way == "plain", dtype_of(variant.precision)
        if plain:
            method.prepare_inference(self.network)
            self.network.to(device)
        else:
            prepare(method, self.network, device, variant.precision)
            self.sources = [s.to(dtype=dtype, memory_format=torch.channels_last) for s in self.sources]
        if variant.way == "compiled":
            self.network.compile()
        self.autocast = autocast(device, variant.precision if plain else "fp32")

    def __call__(self) -> None:
        with torch.inference_mode(), self.autocast:
            self.network(self.sources)


def training_step(settings: RunSettings, variant: Variant, device: torch.device) -> Callable[[], Any]:
    """One step, of the phase that trains everything."""
    training = settings.training.model_copy(update={"precision": variant.precision})
    settings = settings.model_copy(update={"training": training})
    method = build_method(settings)
    phase = method.phases(training)[-1]
    perceptual = None
    if settings.perceptual is not None:
        perceptual = VGG19Features(settings.perceptual.width).to(device)
    sources, targets = (noise_pyramid(method, device, training.batch_size, count) for count in method.channels)
    state = TrainingState(method, settings, device)
    state.begin_phase(method, phase, resumed=False)
    if variant.way == "plain":
        for network in (state.generator, state.discriminator):
            network.to(memory_format=torch.contiguous_format)
        state.optimizers = {
            name: torch.optim.Adam(getattr(state, name).parameters(), training.learning_rate, (0.5, 0.999))
            for name in state.optimizers
        }
        return lambda: plain_step(method, state, sources, targets, perceptual)
    if perceptual is not None:
        perceptual.to(memory_format=state.layout)
    sources, targets = (
        [image.contiguous(memory_format=state.layout) for image in images] for images in (sources, targets)
    )
    if variant.way == "compiled":
        state.compile()
        if perceptual is not None:
            perceptual.compile()
    return lambda: step(method, state, sources, targets, perceptual, training.learning_rate, None)


def plain_step(
    method: Method, state: TrainingState, sources: list[Tensor], targets: list[Tensor], perceptual: nn.Module | None
) -> dict[str, float]:
    """One update as one writes it first: each loss with passes of its own, its values read at once."""
    with state.autocast():
        outputs = state.generator(sources)
    targets = targets[: len(outputs)]
    losses: dict[str, float] = {}

    def update(name: str, terms: dict[str, Tensor]) -> None:
        weights = list(getattr(state, name).parameters())
        gradients = torch.autograd.grad(sum(terms.values()), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        state.optimizers[name].step()
        losses.update({key: term.item() for key, term in terms.items()})

    def update_discriminator() -> None:
        detached = [output.detach() for output in outputs]
        with state.autocast():
            terms = method.discriminator_losses(state.discriminator, sources, targets, detached)
        update("discriminator", terms)

    def update_generator() -> None:
        with state.autocast():
            terms = method.generator_losses(state.discriminator, sources, targets, outputs, perceptual)
        update("generator", terms)

    order = (update_generator, update_discriminator)
    for function in order if method.generator_first else order[::-1]:
        function()
    return losses


def _needs(settings: RunSettings, part: str, precision: str) -> tuple[int, int]:
    """FLOP, and the fewest bytes that its convolutions move, without any work done twice."""
    method = build_method(settings)
    if part == "training":
        training = settings.training.model_copy(update={"precision": precision})
        phase = method.phases(training)[-1]
        needs = step_needs(method, settings.model_copy(update={"training": training}), phase, ComputeSettings())
        return needs.flop, needs.moved
    with torch.device("meta"), torch.no_grad(), Meter() as meter:
        network = prepare(method, method.build_generator(), torch.device("meta"), precision)
        scales = method.scales(method.options, settings.size)
        sources = blank_pyramid(scales, settings.size, channels=method.channels[0])
        before = meter.flop, meter.moved
        network([source.to(dtype_of(precision)) for source in sources])
        return meter.flop - before[0], meter.moved - before[1]
