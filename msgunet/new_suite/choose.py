"""The size and the length of trainings that a machine can do in a given time, chosen by timing a few steps."""

import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from msgunet.core.errors import UserError
from msgunet.core.paths import WEIGHTS
from msgunet.core.pipeline import usable_cores
from msgunet.core.settings import ComputeSettings, ImageFormat, RunSettings, TrainingSettings
from msgunet.cost.variants import Variant, training_step
from msgunet.data.manifest import steps_per_epoch
from msgunet.methods.registry import build_method, get_method
from msgunet.methods.weights import VGG19
from msgunet.new_suite.discover import Discovery
from msgunet.suite.runs import merged_training
from msgunet.training.memory import free_memory, step_needs

METHODS = ("pix2pix", "pan", "pix2pixhd", "msgunet")
# The published networks need a GPU. On a CPU: a quarter of the width, and learning rates for short trainings.
_NARROW: dict[str, dict[str, Any]] = {
    "pix2pix": {
        "options": {"width": 0.25, "discriminator_width": 0.25, "downsamplings": 5},
        "training": {"learning_rate": 4e-4, "ema": 0.99},
    },
    "pan": {
        "options": {"width": 0.25, "discriminator_width": 0.25, "downsamplings": 5},
        "training": {"learning_rate": 2e-4, "ema": 0.99},
    },
    "pix2pixhd": {
        "options": {"width": 0.25, "discriminator_width": 0.25, "downsamplings": 3, "blocks": 3, "perceptual": 60},
        "training": {"learning_rate": 5e-4, "ema": 0.99},
    },
    "msgunet": {
        "options": {"width": 0.25, "discriminator_width": 0.125, "levels": 6, "beta": 20},
        "training": {"learning_rate": 1e-3, "ema": 0.98},
    },
}
_UNTRAINED = {"weights": "untrained", "width": 0.125}
_IMAGENET = {"weights": "imagenet", "width": 1.0}
# Default hours for all trainings together.
HOURS = {"cpu": 8.0, "cuda": 24.0}
# Shorter trainings tell nothing about a method; trainings longer than the published 200 epochs are no better.
_FEWEST_EPOCHS, _MOST_EPOCHS = 4, 200
_FEWEST_STEPS = 500
_LONGEST_SIDE = 2048
# Below this, MSG U-Net has only one scale.
_SHORTEST_SIDE = 92
# Fraction of the free memory that trainings can use.
_MEMORY_SHARE = 0.8
# Seconds. Networks whose steps would take longer even on the fastest device are not timed.
_LONGEST_STEP = 60.0


# The number of hours that an error suggests is larger than the computed one, since steps take longer at times.
_MARGIN = 1.3


@dataclass(frozen=True)
class Step:
    """The measured time of a training step, and the operations in it (FLOP)."""

    seconds: float
    flop: float


@dataclass(frozen=True)
class Choice:
    """The size, the epochs and each method's training step."""

    size: tuple[int, int]
    epochs: int
    steps: dict[str, Step]


def choose(found: Discovery, hours: float, device: torch.device) -> Choice:
    """Return the largest size at which all methods can be trained for long enough."""
    sizes = _sizes(found.size, device)
    if not sizes:
        raise UserError(
            "images of {}x{} are too small: the shorter side needs at least {} pixels (it is the most common size); "
            "enlarge the images, or write a suite for them (docs/suites.md)".format(*found.size, _SHORTEST_SIDE)
        )
    fewest = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, -(-_FEWEST_STEPS // found.counts[0])))
    advice = "pass more with --hours"
    for size in sizes:
        steps = _times(found, size, device, hours)
        if steps is None:
            continue
        each = [step.seconds * steps_per_epoch(found.counts[0], _batch(name, device)) for name, step in steps.items()]
        # Parallel trainings on a CPU slow each other down.
        concurrent = _concurrent(device)
        per_epoch = max(*each, sum(each) / (0.75 * concurrent if concurrent > 1 else 1))
        epochs = min(_MOST_EPOCHS, int(3600 * hours / per_epoch))
        print(f"{size[0]}x{size[1]}: {per_epoch:.0f} s per epoch of all methods", file=sys.stderr)
        if epochs >= fewest:
            return Choice(size, epochs, steps)
        advice = f"pass at least --hours {math.ceil(_MARGIN * fewest * per_epoch / 36) / 100:g}"
    raise UserError(
        f"{hours:g} hours are too few to train {len(METHODS)} methods on {found.counts[0]} pairs, even of small "
        f"images; {advice}"
    )


def _concurrent(device: torch.device) -> int:
    """Return the number of trainings that run in parallel: on a CPU, one per core."""
    if device.type != "cpu":
        return 1
    return min(len(METHODS), usable_cores())


def _sizes(size: tuple[int, int], device: torch.device) -> list[tuple[int, int]]:
    """Return sizes that all methods support, with nearly the aspect ratio of the images, from their full size down."""
    scale = min(1.0, _LONGEST_SIDE / max(size))
    sizes: list[tuple[int, int]] = []
    while min(size) * scale >= _SHORTEST_SIDE:
        target = tuple(side * scale for side in size)
        near = [_near(side) for side in target]
        fits = [(w, h) for w in near[0] for h in near[1] if not _problems((w, h), device)]
        if fits:
            sizes.append(min(fits, key=lambda candidate: _distance(candidate, target)))
        scale /= 2**0.5
    return list(dict.fromkeys(sizes))


def _near(side: float) -> list[int]:
    """Return the multiples of 32 within 25 % of a side, and the next multiple on either side."""
    first, last = int(0.75 * side / 32), int(1.25 * side / 32) + 1
    return [32 * count for count in range(max(1, first), last + 1)]


def _distance(size: tuple[int, int], target: Sequence[float]) -> float:
    """Return how much a size changes the aspect ratio and, with less weight, the area of images."""
    stretch = [a / b for a, b in zip(size, target, strict=True)]
    return abs(stretch[0] / stretch[1] - 1) + 0.3 * abs(stretch[0] * stretch[1] - 1)


def _problems(size: tuple[int, int], device: torch.device) -> list[str]:
    methods = {name: get_method(name) for name in METHODS}
    return [p for name, cls in methods.items() if (p := cls.problem(_options(name, device), size))]


def entry_of(name: str, device: torch.device) -> dict[str, Any]:
    """Return the settings of a method in the suite: the published ones on a GPU, narrow ones on a CPU."""
    return _NARROW[name] if device.type == "cpu" else {}


def _options(name: str, device: torch.device) -> Any:
    return get_method(name).Options.model_validate(entry_of(name, device).get("options", {}))


def _batch(name: str, device: torch.device) -> int:
    return entry_of(name, device).get("training", {}).get("batch_size", 1)


def _times(found: Discovery, size: tuple[int, int], device: torch.device, hours: float) -> dict[str, Step] | None:
    """Return one training step of each method; None if one needs too much memory or time."""
    torch.set_num_threads(1)
    free = free_memory(device)
    timed: dict[str, Step] = {}
    for name in METHODS:
        settings = _settings(name, found, size, device)
        method = build_method(settings)
        phase = method.phases(settings.training)[-1]
        needs = step_needs(method, settings, phase, ComputeSettings())
        # Speeds that nothing comes near: 0.1 TFLOP/s for a CPU core, 100 TFLOP/s for a GPU in fp32.
        least = needs.flop / (1e11 if device.type == "cpu" else 1e14)
        allowed = 3600 * hours / (_FEWEST_EPOCHS * found.counts[0])
        too_large = free is not None and needs.memory * _concurrent(device) > _MEMORY_SHARE * free
        if too_large or least > min(_LONGEST_STEP, allowed):
            return None
        step = training_step(settings, Variant("engine", "fp32"), device)
        step()
        times = []
        # On a GPU, the fourth step is captured as a CUDA graph, and the fifth is one.
        for _ in range(5 if device.type == "cuda" else 3):
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            if times[-1] > 10:
                break
        timed[name] = Step(min(times), needs.flop)
        del step
        gc.collect()
    return timed


def _settings(name: str, found: Discovery, size: tuple[int, int], device: torch.device) -> RunSettings:
    cls, options, entry = get_method(name), _options(name, device), entry_of(name, device)
    formats = [ImageFormat.model_validate(found.options.get(f"{role}_format", {})) for role in ("source", "target")]
    perceptual = perceptual_of(device) if cls.uses_perceptual(options) else None
    training = merged_training(
        cls.recipe(options, size), TrainingSettings(), TrainingSettings.model_validate(entry.get("training", {}))
    )
    return RunSettings(
        suite="new",
        dataset="new",
        data="",
        source_kind=found.options.get("source_kind", "photo"),
        target_kind=found.options.get("target_kind", "photo"),
        source_format=formats[0],
        target_format=formats[1],
        entry=name,
        method=name,
        version=cls.version,
        size=size,
        seed=0,
        options=options.model_dump(mode="json"),
        training=training,
        perceptual=perceptual,
    )


def msgunet_scales(size: tuple[int, int], device: torch.device) -> int:
    """Return how many scales MSG U-Net has at a size."""
    return get_method("msgunet").scales(_options("msgunet", device), size)


def perceptual_of(device: torch.device) -> dict[str, Any]:
    """Return the perceptual weights: published if a GPU or the file is available, else untrained."""
    return _IMAGENET if device.type == "cuda" or (WEIGHTS / VGG19.name).is_file() else _UNTRAINED
