"""A dry run of a training step on shapes alone: whether a method's code works, and how much memory it needs."""

import torch

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.methods.registry import build_method
from msgunet.training.memory import step_needs


def rehearse(settings: RunSettings, compute: ComputeSettings) -> str:
    """Run one step of each phase of a training on the `meta` device, and return a one-line summary.

    Raises:
        UserError: the generator's output does not have the shape of the target.

    """
    method = build_method(settings)
    width, height = settings.size
    scales = method.scales(method.options, settings.size)
    with torch.device("meta"), torch.no_grad():
        output = method.build_generator()(blank_pyramid(scales, settings.size, channels=settings.channels[0]))[0]
    expected = (1, settings.channels[1], height, width)
    if tuple(output.shape) != expected:
        raise UserError(f"methods.{settings.entry}: the output has shape {tuple(output.shape)}, the target {expected}")
    phases = method.phases(settings.training) if method.trainable else []
    needs = [step_needs(method, settings, phase, compute).memory for phase in phases]
    step = f"a training step works and needs about {max(needs) / 2**20:,.0f} MiB" if needs else "nothing to train"
    return f"{settings.entry} ({settings.file}) at {width}x{height}: {step}"
