"""Two ways to do the same work: plain PyTorch, and the engine of this project (also under torch.compile)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.cost.count import noise_pyramid
from msgunet.device.pick import seed_random_numbers
from msgunet.device.precision import autocast, dtype_of
from msgunet.methods.inference import layout_of, prepare
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method
from msgunet.methods.replay import CudaRecording, Replayed
from msgunet.methods.vgg19 import VGG19Features
from msgunet.training.graphs import Steps, graph_for
from msgunet.training.state import TrainingState
from msgunet.training.step import step


@dataclass(frozen=True)
class Variant:
    """A precision and a way to do the same work: `plain`, `engine` or `compiled` (the engine under torch.compile)."""

    way: str
    precision: str


class Inference:
    """A callable that runs one image through the generator.

    On a GPU the engine's passes are a CUDA graph from the third one on, as in a translation, unless `graphs` is false.

    Attributes:
        network, sources: the prepared generator and its input.
        autocast: the context that it runs in.

    """

    def __init__(self, settings: RunSettings, variant: Variant, device: torch.device, graphs: bool = True) -> None:
        seed_random_numbers(device, 0)
        method = build_method(settings)
        self.network = method.build_generator()
        self.sources = noise_pyramid(method, device, channels=method.channels[0])
        plain, dtype = variant.way == "plain", dtype_of(variant.precision)
        if plain:
            method.prepare_inference(self.network)
            self.network.to(device)
        else:
            prepare(method, self.network, device, variant.precision)
            layout = layout_of(self.network, device.type, variant.precision)
            self.sources = [s.to(dtype=dtype, memory_format=layout) for s in self.sources]
        if variant.way == "compiled":
            self.network.compile()
        graphs = graphs and device.type == "cuda" and variant.way == "engine"
        self._passes = Replayed(self.network, CudaRecording if graphs else None)
        self.autocast = autocast(device, variant.precision if plain else "fp32")

    def __call__(self) -> None:
        with torch.inference_mode(), self.autocast:
            self._passes(self.sources)


def training_step(
    settings: RunSettings, variant: Variant, device: torch.device, graphs: bool = True
) -> Callable[[], Any]:
    """Return a function that runs one step of the last phase, which trains everything.

    On a GPU the engine's steps are a CUDA graph from the fourth one on, as in a training, unless `graphs` is false.
    """
    training = settings.training.model_copy(update={"precision": variant.precision})
    settings = settings.model_copy(update={"training": training})
    method = build_method(settings)
    phase = method.phases(training)[-1]
    perceptual = None
    if settings.perceptual is not None:
        perceptual = VGG19Features(settings.perceptual.width).to(device)
    sources, targets = (noise_pyramid(method, device, training.batch_size, channels) for channels in method.channels)
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
        perceptual.keep_weights_in(variant.precision).to(memory_format=state.layout)
    sources, targets = (
        [image.contiguous(memory_format=state.layout) for image in images] for images in (sources, targets)
    )
    if variant.way == "compiled":
        state.compile()
        if perceptual is not None:
            perceptual.compile()
    compute = ComputeSettings(compile=variant.way == "compiled", cuda_graphs="auto" if graphs else "off")
    watched = filter(None, (method, state.generator, state.discriminator, perceptual))
    steps = Steps(device, graph_for(compute, device, 1), watched, state.optimizers.values)

    def one(images: Sequence[Tensor]) -> dict[str, Tensor]:
        views = images[: len(sources)], images[len(sources) :]
        return step(method, state, *map(list, views), perceptual, training.learning_rate, None)

    return lambda: steps(one, [*sources, *targets])


def plain_step(
    method: Method, state: TrainingState, sources: list[Tensor], targets: list[Tensor], perceptual: nn.Module | None
) -> dict[str, float]:
    """Run one straightforward update: each loss has separate passes, and its values are read immediately."""
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

    order = (update_generator, update_discriminator) if state.has_discriminator else (update_generator,)
    for function in order if method.generator_first else order[::-1]:
        function()
    return losses
