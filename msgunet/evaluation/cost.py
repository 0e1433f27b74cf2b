"""What networks cost: parameters, MACs and FLOPs by two counters, latency and peak memory.

One multiply-accumulate (MAC) is two floating-point operations (FLOP). fvcore counts MACs and calls them flops; here the
columns say what they hold.
"""

import contextlib
import json
import math
import multiprocessing
import re
import resource
import statistics
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msgunet.config import ComputeSettings, CostSettings
from msgunet.files import write_csv
from msgunet.inference import pick_device
from msgunet.method import Method
from msgunet.provenance import facts
from msgunet.registry import get_method

_CONVOLUTIONS = ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution")


def cost(settings_file: Path, out: Path, compute: ComputeSettings, counts_only: bool = False) -> None:
    """Write one row per network and size that `settings_file` (a plan's `cost.json`) lists."""
    text = json.loads(settings_file.read_text(encoding="utf-8"))
    networks = text.pop("networks")
    settings = CostSettings.model_validate(text)
    device = pick_device(compute)
    rows = []
    for network in networks:
        row: dict[str, Any] = {"entry": network["entry"], "title": network["title"]}
        row |= {"width": network["size"][0], "height": network["size"][1], "used": network["used"], **counts(network)}
        if not counts_only:
            row |= _in_fresh_process(network, settings, compute)
        rows.append(row)
        print(f"{row['title']} {row['width']}x{row['height']}: {row['gmac']:.3f} GMAC", file=sys.stderr, flush=True)
    environment = facts(device, compute.threads)
    environment["versions"] = " ".join(f"{k}={v}" for k, v in environment["versions"].items())
    write_csv(out, [{**row, **environment} for row in rows])


def build(network: dict[str, Any], size: tuple[int, int] | None = None) -> tuple[Method, nn.Module]:
    """The method and its generator in evaluation mode, from a network's description in `cost.json`."""
    cls = get_method(network["method"])
    method = cls(cls.Options.model_validate(network["options"]), size or tuple(network["size"]))
    return method, method.build_generator().eval()


def _sources(scales: int, size: tuple[int, int], **where: Any) -> list[torch.Tensor]:
    width, height = size
    return [torch.zeros(1, 3, height >> k, width >> k, **where) for k in range(scales)]


def counts(network: dict[str, Any]) -> dict[str, Any]:
    """Parameters and convolution MACs of one forward pass at batch 1, by torch's counter and by fvcore.

    torch counts on the `meta` device at the true size. fvcore has to run the network: it does so at the smallest size
    that fits, and the result is scaled by the area, which is exact for convolutions at sizes that divide.
    """
    size = tuple(network["size"])
    with torch.device("meta"):
        method, generator = build(network)
        sources = _sources(method.scales(method.options, size), size)
        with FlopCounterMode(display=False) as counter:
            generator(sources)
    gmac = counter.get_total_flops() / 2e9
    by_fvcore, skipped = _fvcore_gmac(network)
    return {
        "parameters": sum(p.numel() for p in generator.parameters()),
        "gmac": gmac,
        "gflop": 2 * gmac,
        "gmac_fvcore": by_fvcore,
        "fvcore_skipped": skipped,
    }


def _fvcore_gmac(network: dict[str, Any]) -> tuple[float, str]:
    from fvcore.nn import FlopCountAnalysis

    full = tuple(network["size"])
    cls = get_method(network["method"])
    options = cls.Options.model_validate(network["options"])
    # The network itself depends on its size: build it for the full one, run it at the smallest with the same shape.
    stride = math.lcm(cls.stride(options, full), 2 ** (cls.scales(options, full) - 1))
    step = math.gcd(full[0] // stride, full[1] // stride)
    factor = max(f for f in range(1, step + 1) if step % f == 0 and min(full) // f >= 2 * stride) if step > 1 else 1
    small = (full[0] // factor, full[1] // factor)
    method, generator = build(network)
    if not list(generator.parameters()):
        return 0.0, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(generator, (_sources(method.scales(options, full), small),))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
    macs = sum(by_operator[name] for name in ("conv", "conv_transpose"))
    skipped: Counter = analysis.unsupported_ops()
    return macs * factor**2 / 1e9, " ".join(sorted(name.removeprefix("aten::") for name in skipped))


def _in_fresh_process(network: dict[str, Any], settings: CostSettings, compute: ComputeSettings) -> dict[str, Any]:
    """Time one network in a process of its own, so that no other network's memory counts."""
    # A fork server has torch imported already; on macOS forking is not safe, and each process imports for itself.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(["torch", __name__])
    with context.Pool(1) as pool:
        return pool.apply(timing, (network, settings, compute))


def timing(network: dict[str, Any], settings: CostSettings, compute: ComputeSettings) -> dict[str, Any]:
    """Latency of one forward pass at batch 1 (milliseconds: median and quartiles) and peak memory (MiB).

    Memory on CUDA is the device's peak; on a CPU the process's peak above what it held before the network was built.
    """
    device = pick_device(compute)
    cuda = device.type == "cuda"
    _forget_peak()
    before = _memory_mib("VmRSS")
    method, generator = build(network)
    method.prepare_inference(generator)
    generator.to(device, memory_format=torch.channels_last)
    size = tuple(network["size"])
    sources = _sources(method.scales(method.options, size), size, device=device)
    sources = [source.contiguous(memory_format=torch.channels_last) for source in sources]
    times = []
    with torch.inference_mode():
        for i in range(settings.warmup + settings.repeats):
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            generator(sources)
            if cuda:
                torch.cuda.synchronize()
            if i >= settings.warmup:
                times.append(1000 * (time.perf_counter() - start))
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else _memory_mib("VmHWM") - before
    return {
        "latency_ms": median,
        "latency_q25_ms": low,
        "latency_q75_ms": high,
        "peak_memory_mib": peak,
        "memory_kind": "device" if cuda else "process, above the state before the network",
        "repeats": settings.repeats,
    }


def _memory_mib(field: str) -> float:
    """Resident memory of the process: `VmRSS` now, `VmHWM` at its peak. Where Linux does not tell, the peak for both.

    getrusage's peak will not do on Linux: a new process inherits that of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(rf"{field}:\s*(\d+) kB", status.read_text(encoding="utf-8"))[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _forget_peak() -> None:
    """Let `VmHWM` start again from now; where that is not allowed, the peak of the imports stays in it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
