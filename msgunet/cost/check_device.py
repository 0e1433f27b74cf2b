"""Whether a GPU works: its memory and precisions, and each method's output, losses and memory compared with the CPU.

Networks have random weights. All is done in a minute, at sizes that a CPU computes in a second.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from msgunet.core.errors import UserError, is_out_of_memory
from msgunet.core.files import canonical_json
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.core.text import first_line
from msgunet.cost.bench import precisions_for
from msgunet.cost.count import noise_pyramid
from msgunet.device.facts import device_name
from msgunet.device.measuring import reset_peak_memory
from msgunet.device.pick import pick_device
from msgunet.device.precision import dtype_of, has_bf16, set_precision
from msgunet.methods.inference import layout_of, prepare
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method, method_of
from msgunet.methods.replay import USUAL_PASSES, CudaRecording, Replayed
from msgunet.methods.vgg19 import VGG19Features
from msgunet.training.memory import step_needs
from msgunet.training.state import TrainingState
from msgunet.training.step import step

_CPU = torch.device("cpu")
# Networks are halved until they have at most this many pixels.
_PIXELS = 256 * 256
_FREE = 2 * 2**30
# The error of an output (RMS) as a share of its standard deviation: the eight significant bits of bf16 and the eleven
# of tf32, magnified by layers and by norms over few values. On a CPU, bf16 has 0.004 (PAN) to 0.02 (Pix2Pix-HD).
_ERRORS = {"fp32": 1e-4, "tf32": 0.01, "bf16": 0.06}
# The error of the losses of a first step, relative to those above 0.1.
_LOSSES = 2e-3
# The memory taken may be this many times what was foretold, plus cuDNN's working memory.
_MEMORY = (0.7, 1.5, 2**28)
_BROKEN = (
    "results on this GPU would be wrong. Close other programs that use it, update its driver, and reinstall torch for "
    "this CUDA version; if the error stays, set compute.device to cpu and report it with this output"
)


def gpu() -> torch.device:
    """Return the GPU to check.

    Raises:
        UserError: torch cannot use any; the message says why and what to do.

    """
    if torch.cuda.is_available():
        return pick_device(ComputeSettings(device="cuda"))
    if torch.version.cuda is None:
        raise UserError(
            f"torch {torch.__version__} was built without CUDA; on Linux, 'make environment' installs one with it"
        )
    try:
        torch.cuda.init()
        reason = "it finds no device"
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
    raise UserError(
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use a GPU here: {reason}. See whether "
        "'nvidia-smi' lists one, whether the driver is new enough for this CUDA version, and whether "
        "CUDA_VISIBLE_DEVICES hides it"
    )


def check_device(runs: Sequence[RunSettings], device: torch.device) -> Iterator[tuple[str, str]]:
    """Check a device and each network on it.

    Args:
        runs: settings of runs; sizes are halved to at most 65,536 pixels, where the network allows it.
        device: the GPU; with a CPU the same is done on the CPU, without its memory.

    Yields:
        A line on each thing that was checked, and what to do about it, or an empty text if it is right.

    """
    if device.type == "cuda":
        yield from _facts(device)
    networks: dict[tuple[str, str], RunSettings] = {}
    for run in map(_halved, runs):
        # Entries that differ in their training only, or in a size that is halved, are the same network.
        networks.setdefault((run.method, canonical_json([run.file, run.size, run.options])), run)
    for small in networks.values():
        name = f"{small.entry} at {small.size[0]}x{small.size[1]}"
        try:
            yield from ((f"{name}, {line}", advice) for line, advice in _network(small, device))
        except RuntimeError as error:
            advice = "free its memory: other programs use it" if is_out_of_memory(error) else _BROKEN
            yield f"{name}: {first_line(error)}", advice


def _facts(device: torch.device) -> Iterator[tuple[str, str]]:
    properties = torch.cuda.get_device_properties(device)
    cudnn = torch.backends.cudnn.version()
    yield (
        f"{device_name(device)}, compute capability {properties.major}.{properties.minor}; torch {torch.__version__}, "
        f"CUDA {torch.version.cuda}, cuDNN {cudnn}",
        "",
    )
    free, total = torch.cuda.mem_get_info(device)
    full = f"only {free / 2**30:.1f} GiB are free: close the programs that 'nvidia-smi' lists"
    yield f"memory: {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free", full if free < _FREE else ""
    native = ["fp32", *(["tf32"] if properties.major >= 8 else []), *(["bf16"] if has_bf16(device) else [])]
    yield f"precision: {', '.join(native)} native; choose one of these as training.precision", ""


def _halved(settings: RunSettings) -> RunSettings:
    method = method_of(settings)
    options, size = method.Options.model_validate(settings.options), settings.size
    while size[0] * size[1] > _PIXELS:
        half = (size[0] // 2, size[1] // 2)
        if method.problem(options, half) is not None:
            break
        size = half
    return settings.model_copy(update={"size": size})


def _network(settings: RunSettings, device: torch.device) -> Iterator[tuple[str, str]]:
    method = build_method(settings)
    expected = _output(method, _CPU, "fp32")
    spread = expected.std().item()
    for precision in precisions_for(device, None):
        error = (_output(method, device, precision) - expected).square().mean().sqrt().item() / spread
        advice = "" if error <= _ERRORS[precision] else f"more than {_ERRORS[precision]:g}: {_BROKEN}"
        yield f"one image in {precision}: error {error:.1e} of the output's standard deviation", advice
    (wanted, _), (actual, taken) = (_losses(method, settings, place) for place in (_CPU, device))
    errors = {name: abs(actual[name] - value) / max(abs(value), 0.1) for name, value in wanted.items()}
    # NaN is larger than everything.
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    advice = "" if errors[worst] <= _LOSSES else f"not below {_LOSSES:g}: {_BROKEN}"
    yield f"one training step: largest error of a loss {errors[worst]:.1e} ({worst})", advice
    if device.type == "cuda":
        phase = method.phases(settings.training)[-1]
        need = step_needs(method, settings, phase, ComputeSettings()).memory
        low, high, more = _MEMORY
        wrong = (
            "the forecast of 'msgunet check' and of trainings is wrong for this GPU: leave that much more memory free, "
            "and report it with this output"
        )
        inside = low * need <= taken <= high * need + more
        yield f"memory of the step: {taken / 2**20:,.0f} MiB, foretold {need / 2**20:,.0f} MiB", "" if inside else wrong


def _without_dropout(network: nn.Module) -> nn.Module:
    """Switch dropout off: devices draw different random numbers."""
    for layer in network.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    return network


@torch.inference_mode()
def _output(method: Method, device: torch.device, precision: str) -> torch.Tensor:
    set_precision(precision)
    torch.manual_seed(0)
    network = prepare(method, _without_dropout(method.build_generator()), device, precision)
    record = CudaRecording if device.type == "cuda" else None
    sources = [source.to(device) for source in noise_pyramid(method, _CPU, channels=method.channels[0])]
    form = {"dtype": dtype_of(precision), "memory_format": layout_of(network, device.type, precision)}
    cast, passes = [source.to(**form) for source in sources], Replayed(network, record)
    for _ in range(USUAL_PASSES):
        passes(cast)
    return passes(cast)[0].float().cpu()


def _losses(method: Method, settings: RunSettings, device: torch.device) -> tuple[dict[str, float], int]:
    """Return the losses of a first step in fp32 and the bytes that a later step takes on a GPU."""
    set_precision("fp32")
    training = settings.training.model_copy(update={"precision": "fp32"})
    settings = settings.model_copy(update={"training": training})
    state = TrainingState(method, settings, device)
    _without_dropout(state.generator)
    state.begin_phase(method, method.phases(training)[-1], resumed=False)
    perceptual = None
    if settings.perceptual is not None:
        torch.manual_seed(0)
        perceptual = VGG19Features(settings.perceptual.width).keep_weights_in("fp32")
        perceptual.to(device, memory_format=state.layout)
    sources, targets = (
        [image.to(device) for image in noise_pyramid(method, _CPU, training.batch_size, channels)]
        for channels in method.channels
    )

    def run() -> dict[str, float]:
        losses = step(method, state, sources, targets, perceptual, training.learning_rate, None)
        return {name: value.item() for name, value in losses.items() if not name.startswith("gradient_")}

    first = run()
    if device.type != "cuda":
        return first, 0
    run()
    # The search for algorithms is over.
    reset_peak_memory(device)
    run()
    return first, torch.cuda.max_memory_allocated(device)
