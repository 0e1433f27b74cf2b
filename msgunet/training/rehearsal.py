"""A dry run of a training step on shapes alone: whether a method's code works, and how much memory it needs."""

import torch

from msgunet.core.bugs import contract_bug
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.methods.contract import built, checked_outputs
from msgunet.methods.norms import whole_image_layers
from msgunet.methods.registry import build_method
from msgunet.training.fitting import layers_checked
from msgunet.training.memory import step_needs


def rehearse(settings: RunSettings, compute: ComputeSettings) -> str:
    """Run one step of each phase of a training on the `meta` device, and return a one-line summary.

    Raises:
        MethodBug: the code of the method does not do what a training expects, such as an output of the target's shape.

    """
    method = build_method(settings)
    width, height = settings.size
    scales = method.scales(method.options, settings.size)
    with torch.device("meta"), torch.no_grad(), layers_checked():
        generator = built(method, "build_generator")
        sources = blank_pyramid(scales, settings.size, channels=settings.channels[0])
        outputs = checked_outputs(method, generator, generator(sources))
    for k, output in enumerate(outputs):
        expected = (1, settings.channels[1], height >> k, width >> k)
        if tuple(output.shape) != expected:
            raise contract_bug(
                method,
                [type(generator).forward, type(method).build_generator],
                f"the output at scale {k} has shape {tuple(output.shape)}, the target {expected}",
            )
    phases = method.phases(settings.training) if method.trainable else []
    needs = [step_needs(method, settings, phase, compute).memory for phase in phases]
    step = f"a training step works and needs about {max(needs) / 2**20:,.0f} MiB" if needs else "nothing to train"
    layers = whole_image_layers(generator)
    tiles = f"; not for tiles: {', '.join(layers)} (docs/own-method.md)" if layers else ""
    return f"{settings.entry} ({settings.file}) at {width}x{height}: {step}{tiles}"
