"""The speed of the engine: training steps and inference, compared with plain PyTorch and with the device limits.

`plain` is straightforward PyTorch: contiguous memory, batch norm as a separate layer, separate passes for every loss,
and losses read after each step. `engine` is this project's optimised path. Both are timed in one process, in turns.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from msgunet.core.errors import UserError
from msgunet.core.files import atomic, canonical_json, short_hash
from msgunet.core.frames import read_frame
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.cost.predict import needs
from msgunet.cost.throughput import FileTranslation
from msgunet.cost.variants import Inference, Variant, training_step
from msgunet.device.facts import flat_facts
from msgunet.device.limits import Limits, foretold
from msgunet.device.measuring import in_new_process, peak_memory, reset_peak_memory, timed, warm_up_libraries
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import dtype_of, has_bf16, set_precision
from msgunet.methods.registry import build_method

PARTS = ("inference", "training")
_PRECISIONS = ("fp32", "tf32", "bf16")
_WAYS = ("plain", "engine", "compiled")
# A call and its FLOP.
_Work = tuple[Callable[[], Any], int]
_KEY = ["entry", "width", "height", "part", "settings"]


def bench(
    runs: Sequence[RunSettings],
    out: Path,
    compute: ComputeSettings,
    parts: Sequence[str] = PARTS,
    precisions: Sequence[str] | None = None,
    repeats: int = 10,
    compiled: bool = False,
    budget: float | None = None,
) -> pd.DataFrame:
    """Time the network of every run, in each part. The CSV is written after each one; rows that it holds are skipped.

    The first part of all networks comes before the second part of any. After `budget` seconds no further one begins.

    Raises:
        UserError: the CSV comes from another commit, device or number of threads, or the device does not support a
            requested precision.

    """
    device = pick_device(compute)
    require_gpu(compute, device)
    ways = _WAYS if compiled else _WAYS[:2]
    selected_precisions = precisions_for(device, precisions)
    environment = flat_facts(device, compute.threads)
    frame = _existing_rows(out, environment)
    limits: dict[str, float] = {}
    end = math.inf if budget is None else time.monotonic() + budget
    left = []
    for part in parts:
        for settings in runs:
            key = [settings.entry, *settings.size, part, _identity(settings)]
            # Files are not translated by a compiled network.
            requested = {(way, p) for p in selected_precisions for way in (_WAYS[:2] if part == "translate" else ways)}
            existing = (frame[_KEY] == key).all(axis=1)
            measured = set(zip(frame["way"][existing], frame["precision"][existing], strict=True))
            if requested <= measured:
                continue
            # All variants of the same work are timed in one process, including those that were measured before.
            selected = requested | measured
            variants = [Variant(way, p) for p in _PRECISIONS for way in _WAYS if (way, p) in selected]
            label = f"{settings.entry} at {settings.size[0]}x{settings.size[1]}, {part}"
            if len(frame) and time.monotonic() > end:
                left.append(label)
                continue
            print(label, file=sys.stderr, flush=True)
            of_variants = {precision for _, precision in selected}
            if device.type == "cuda":
                # Networks in other precisions have products in fp32, too.
                of_variants.add("fp32")
            if not of_variants <= limits.keys():
                limits = in_new_process("the device limits", device_limits, compute, of_variants)
            rows = in_new_process(label, time_part, settings, part, variants, compute, repeats, limits)
            labelled = [dict(zip(_KEY, key, strict=True)) | row for row in rows]
            new = pd.DataFrame(labelled).assign(**environment)
            frame = pd.concat([frame[~existing], new], ignore_index=True) if len(frame) else new
            with atomic(out) as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n")
    if left:
        text = f"not begun within {budget:g} seconds: {'; '.join(left)}; the same command continues with them"
        print(text, file=sys.stderr, flush=True)
    return frame


def _identity(settings: RunSettings) -> str:
    """Return a hash of the settings that determine the work of a step, except the precision."""
    fields = settings.model_dump(mode="json", include={"method", "version", "options", "perceptual"})
    fields |= settings.training.model_dump(include={"batch_size", "accumulate"})
    return short_hash(canonical_json(fields))


def precisions_for(device: torch.device, requested: Sequence[str] | None) -> Sequence[str]:
    """Return the requested precisions; by default fp32 and those that the device supports natively.

    Raises:
        UserError: tf32 is requested on a CPU.

    """
    cuda = device.type == "cuda"
    if requested is None:
        return ["fp32", *(["tf32"] if cuda else []), *(["bf16"] if has_bf16(device) else [])]
    if "tf32" in requested and not cuda:
        raise UserError("tf32 is for CUDA GPUs; a CPU supports fp32 and bf16")
    return requested


def _existing_rows(out: Path, environment: dict[str, Any]) -> pd.DataFrame:
    """Return the rows that were measured before."""
    if not out.is_file():
        return pd.DataFrame(columns=[*_KEY, "way", "precision"])
    frame = read_frame(out)
    for key in ("commit", "device", "threads"):
        if (frame[key] != environment[key]).any():
            raise UserError(
                f"{out} holds rows with {key} '{frame[key].iloc[0]}', but the current {key} is '{environment[key]}'; "
                "choose another --out, or remove the file to start again"
            )
    return frame


def time_part(
    settings: RunSettings,
    part: str,
    variants: Sequence[Variant],
    compute: ComputeSettings,
    repeats: int,
    limits: dict[str, float],
) -> list[dict[str, Any]]:
    """Measure time, memory and operations of all variants in turns, and compare them with the limits of the device.

    Speed-ups are relative to the first variant. `foretold_ms` is the time of the engine on a GPU at these limits. Of
    `translate`, the time is that of one image, and `network_share` the network's share of it.
    """
    device = pick_device(compute)
    warm_up_libraries(device)
    make = {"inference": Inference, "training": training_step, "translate": FileTranslation}[part]
    calls, memory = [], []
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
        if device.type == "cuda":
            # The engine captures this step as a CUDA graph; a pass, the one before.
            timed(calls[-1], device)
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(repeats):
        for variant, call, seconds in zip(variants, calls, times, strict=True):
            set_precision(variant.precision)
            seconds.append(timed(call, device) / (call.images if part == "translate" else 1))
    batch = settings.training.batch_size if part == "training" else 1
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in build_method(settings).build_generator().parameters())
    first = np.array(times[0])
    work = {p: needs(settings, part, p, device.type) for p in dict.fromkeys(v.precision for v in variants)}
    rows = []
    for variant, call, seconds, peak in zip(variants, calls, map(np.array, times), memory, strict=True):
        counted = work[variant.precision]
        low, median, high = 1000 * np.quantile(seconds, [0.25, 0.5, 0.75])
        speedup = np.quantile(first / seconds, [0.25, 0.5, 0.75])
        row: dict[str, Any] = {
            "way": variant.way,
            "precision": variant.precision,
            "parameters": parameters,
            "median_ms": median,
            "q25_ms": low,
            "q75_ms": high,
            "repeats": repeats,
            "batch": batch,
            "images_per_s": 1000 * batch / median,
            "speedup": speedup[1],
            "speedup_q25": speedup[0],
            "speedup_q75": speedup[2],
            "peak_memory_mib": peak,
            "tflop": counted.flop / 1e12,
            "moved_gb": counted.moved / 1e9,
            "tflop_per_s": counted.flop / 1e9 / median,
        }
        row |= limits_of(row, limits)
        if part == "translate":
            row["network_share"] = 1000 * call.network_seconds(repeats) / median
        elif device.type == "cuda" and variant.way == "engine":
            measured = Limits({p: limits[p] for p in limits if p != "bandwidth"}, limits["bandwidth"], "this device")
            row["foretold_ms"] = foretold(counted.operations, variant.precision, measured)["ms"].sum()
        rows.append(row)
    return rows


def limits_of(row: dict[str, Any], limits: dict[str, float]) -> dict[str, float]:
    """Return the measured device limits for a row, the time that they allow, and the share of the limit it reaches."""
    rate, bandwidth = limits[row["precision"]], limits["bandwidth"]
    limit_ms = 1000 * max(row["tflop"] / rate, row["moved_gb"] / bandwidth)
    measured = {"limit_tflop_per_s": rate, "bandwidth_gb_per_s": bandwidth}
    return {**measured, "limit_ms": limit_ms, "share_of_limit": limit_ms / row["median_ms"]}


def device_limits(compute: ComputeSettings, precisions: Sequence[str]) -> dict[str, float]:
    """Measure the device's best rate in each precision (TFLOP/s), and that of memory copies (`bandwidth`, GB/s).

    The rate is that of a large matrix product or a large convolution, whichever is faster: on some devices the
    libraries for one reach only half the rate of the other.
    """
    device = pick_device(compute)
    cuda = device.type == "cuda"
    limits = {}
    for precision in precisions:
        set_precision(precision)
        dtype = dtype_of(precision)
        largest = {_product: 8192, _convolution: 512} if cuda else {_product: 2048, _convolution: 128}
        limits[precision] = max(_best_rate(work, size, device, dtype) for work, size in largest.items())
    # Random numbers: zeros could be compressed on their way.
    source, target = (torch.rand(2**28 if cuda else 2**26, device=device) for _ in "st")
    limits["bandwidth"] = 2 * source.nbytes / 1e9 / min(timed(lambda: target.copy_(source), device) for _ in range(7))
    return limits


def _best_rate(work: Callable[..., _Work], largest: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return the TFLOP/s of the fastest of several calls, whose size grows up to `largest`."""
    size, seconds, best = largest // 32, 0.0, 0.0
    # Without native support for a precision, a device can need minutes for the largest size.
    while size < largest and seconds < 0.1:
        size *= 2
        call, flop = work(size, device, dtype)
        with torch.inference_mode():
            seconds = min(timed(call, device) for _ in range(7))
        best = max(best, flop / 1e12 / seconds)
    return best


def _product(size: int, device: torch.device, dtype: torch.dtype) -> _Work:
    """Return a product of two square matrices, and its FLOP."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    return lambda: a @ b, 2 * size**3


def _convolution(side: int, device: torch.device, dtype: torch.dtype) -> _Work:
    """Return a 3x3 convolution of a square image in as many channels as keep any device busy, and its FLOP."""
    channels = 256
    image = torch.randn(1, channels, side, side, device=device)
    weights = torch.randn(channels, channels, 3, 3, device=device)
    x, w = (values.to(dtype, memory_format=torch.channels_last) for values in (image, weights))
    return lambda: F.conv2d(x, w, padding=1), 2 * channels**2 * 9 * side**2
