"""The cost of networks: parameters, MACs and FLOPs by two counters, latency and peak memory.

One multiply-accumulate (MAC) is two floating-point operations (FLOP). fvcore counts MACs and calls them flops; the
column names here state which of the two they hold.
"""

import math
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from msgunet.core.files import atomic
from msgunet.core.settings import ComputeSettings, CostSettings, Network, NetworkList
from msgunet.data.pairs import blank_pyramid
from msgunet.device.facts import flat_facts
from msgunet.device.measuring import in_new_process, peak_memory, reset_peak_memory, timed, warm_up_libraries
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import set_precision
from msgunet.methods.contract import built
from msgunet.methods.folding import fold_parametrizations
from msgunet.methods.inference import layout_of, prepare
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import VGG19Features
from msgunet.report.published import with_paper_cost


def cost(networks: NetworkList, out: Path, compute: ComputeSettings, counts_only: bool = False) -> None:
    """Write one row per network and size, with the paper's numbers where it has them. Only generators are timed."""
    device = pick_device(compute)
    if networks.networks and not counts_only:
        require_gpu(compute, device)
    rows = []
    for network in networks.networks:
        row: dict[str, Any] = {"entry": network.entry, "method": network.method, "part": network.part}
        row |= {"width": network.size[0], "height": network.size[1], "used": network.used, **counts(network)}
        row["settings"] = network.identity
        if network.part == "generator" and not counts_only:
            row |= in_new_process(
                "{} at {}x{}".format(network.entry, *network.size), timing, network, networks, compute
            )
        rows.append(row)
        size = f"{row['width']}x{row['height']}"
        print(f"{network.entry}, {network.part}, {size}: {row['gmac']:.3f} GMAC", file=sys.stderr, flush=True)
    environment = flat_facts(device, compute.threads)
    # A suite that only has trivial rows has no networks.
    frame = with_paper_cost(pd.DataFrame(rows).assign(**environment)) if rows else pd.DataFrame()
    with atomic(out) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def build(network: Network) -> tuple[Method, nn.Module]:
    """Build the method that `network` describes, and its generator in evaluation mode."""
    method = build_method(network)
    generator = built(method, "build_generator").eval()
    fold_parametrizations(generator)
    return method, generator


def counts(network: Network) -> dict[str, Any]:
    """Count the parameters, and the convolution MACs of one forward pass at batch size 1.

    PyTorch counts on the `meta` device at the true size, so no memory is needed. fvcore counts generators too, as a
    check. The parts are the `generator`, the `discriminator` (all its scales, on one source and image) and the
    `perceptual` network (one image, all 16 convolutions).
    """
    size, part = network.size, network.part
    with torch.device("meta"):
        if part == "perceptual":
            model, inputs = VGG19Features(network.options["width"]), blank_pyramid(1, size)
        else:
            method, model = build(network)
            scales = method.scales(method.options, size)
            inputs = [blank_pyramid(scales, size, channels=channels) for channels in network.channels]
            if part == "discriminator":
                model = built(method, "build_discriminator")
            else:
                inputs = inputs[:1]
        with FlopCounterMode(display=False) as counter:
            model(*inputs)
    gmac = counter.get_total_flops() / 2e9
    row = {"parameters": sum(p.numel() for p in model.parameters()), "gmac": gmac, "tflop": 2 * gmac / 1000}
    if part == "generator":
        row["gmac_fvcore"], row["fvcore_skipped"] = _fvcore_gmac(network)
    return row


def _fvcore_gmac(network: Network) -> tuple[float, str]:
    """Return the GMACs that fvcore counts, and the operators that it does not count.

    fvcore must run the network. It runs at the smallest size with the same aspect ratio, and the result is scaled by
    the area; this is exact for convolutions, because the sizes divide evenly. The weights are uninitialised.
    """
    from fvcore.nn import FlopCountAnalysis

    full = network.size
    with torch.device("meta"):
        method, generator = build(network)
    generator.to_empty(device="cpu")
    scales = method.scales(method.options, full)
    stride = math.lcm(method.stride(method.options, full), 2 ** (scales - 1))
    common = math.gcd(full[0] // stride, full[1] // stride)
    # Instance norm and reflection padding need more than one pixel at the lowest level.
    fits = (f for f in range(1, common + 1) if common % f == 0 and min(full) // f >= 2 * stride)
    factor = max(fits, default=1)
    small = (full[0] // factor, full[1] // factor)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(generator, (blank_pyramid(scales, small, channels=network.channels[0]),))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
    macs = sum(by_operator[name] for name in ("conv", "conv_transpose"))
    skipped = sorted(name.removeprefix("aten::") for name in analysis.unsupported_ops())
    return macs * factor**2 / 1e9, " ".join(skipped)


def timing(network: Network, settings: CostSettings, compute: ComputeSettings) -> dict[str, Any]:
    """Measure the latency (milliseconds: median and quartiles) and peak memory (MiB) of a forward pass at batch size 1.

    On CUDA the memory is the device's peak. On a CPU it is the process's peak above its memory before the network was
    built.
    """
    device = pick_device(compute)
    set_precision("fp32")
    warm_up_libraries(device)
    times = []
    with peak_memory(device) as peak, torch.inference_mode():
        method, generator = build(network)
        prepare(method, generator, device)
        layout = layout_of(generator, device.type, "fp32")
        noise = noise_pyramid(method, device, channels=network.channels[0])
        sources = [source.contiguous(memory_format=layout) for source in noise]
        for i in range(settings.warmup + settings.repeats):
            if i == settings.warmup:
                reset_peak_memory(device)
            seconds = timed(lambda: generator(sources), device)
            if i >= settings.warmup:
                times.append(1000 * seconds)
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {
        "latency_ms": median,
        "latency_q25_ms": low,
        "latency_q75_ms": high,
        "peak_memory_mib": peak[0],
        "memory_kind": "device" if device.type == "cuda" else "process, above the state before the network",
        "repeats": settings.repeats,
    }


def noise_pyramid(method: Method, device: torch.device, batch: int = 1, channels: int = 3) -> list[Tensor]:
    """Return noise in [-1, 1] at each scale, (batch, channels, height, width). On black images a device is faster."""
    blank = blank_pyramid(method.scales(method.options, method.size), method.size, batch, device, channels)
    return [torch.rand(level.shape, device=device) * 2 - 1 for level in blank]
