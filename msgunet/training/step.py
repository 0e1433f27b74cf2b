"""One step of a training: both losses, both updates, nothing computed twice and no waiting for the device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msgunet.methods.method import Method
from msgunet.training.gradients import GradientRecorder
from msgunet.training.state import TrainingState


def step(
    method: Method,
    state: TrainingState,
    sources: list[Tensor],
    targets: list[Tensor],
    perceptual: nn.Module | None,
    rate: float,
    recorder: GradientRecorder | None,
) -> dict[str, Tensor]:
    """One update of generator and discriminator, in the method's order.

    With `training.accumulate` the batch goes through the networks in so many parts, whose gradients are averaged.

    Returns the weighted terms of both losses and the L2 norm of both gradients (`gradient_generator` and
    `gradient_discriminator`), still on the device. An update with a loss or gradient that is not finite changes no
    weight; who reads the values must then stop (see `History.settle`).
    """
    after_backward = recorder and recorder.hook(state)
    for optimizer in state.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    chunks = [[image.chunk(state.parts) for image in images] for images in (sources, targets)]
    parts = [tuple([image[i] for image in images] for images in chunks) for i in range(state.parts)]
    order = _generator_first if method.generator_first else _discriminator_first
    return order(method, state, parts, perceptual, rate, after_backward)


def _forward(state: TrainingState, sources: list[Tensor], targets: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The generator's outputs, and the targets that they are judged against: those of the scales that it has."""
    with state.autocast():
        outputs = state.generator(sources)
    return outputs, targets[: len(outputs)]


def _generator_first(
    method: Method,
    state: TrainingState,
    parts: list[tuple[list[Tensor], list[Tensor]]],
    perceptual: nn.Module | None,
    rate: float,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """Pix2Pix-HD's order: both losses read the discriminator as it was before, so that one pass serves both."""
    of_generator, of_discriminator = _Terms(len(parts)), _Terms(len(parts))
    for sources, wanted in parts:
        outputs, targets = _forward(state, sources, wanted)
        discriminator = _OnePass(state.discriminator)
        # The generator's gradient stops here for a moment, so that the discriminator's pass can be gone through twice.
        leaves = [output.detach().requires_grad_() for output in outputs]
        with state.autocast():
            total = of_generator.add(method.generator_losses(discriminator, sources, targets, leaves, perceptual))
        # Beside the outputs' gradients those of terms that reach the weights in another way, such as a penalty on them.
        weights = _trainable(state.generator)
        gradients = torch.autograd.grad(total, [*leaves, *weights], retain_graph=True, allow_unused=True)
        with state.autocast():
            total = of_discriminator.add(method.discriminator_losses(discriminator, sources, targets, leaves))
        _backward(total, state.discriminator)
        # With these goes the discriminator's graph, before the generator's backward pass needs memory.
        del discriminator, total
        for weight, gradient in zip(weights, gradients[len(leaves) :], strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
        pairs = zip(outputs, gradients, strict=False)
        given = [(output, gradient) for output, gradient in pairs if output.requires_grad and gradient is not None]
        if given:
            torch.autograd.backward(*zip(*given, strict=True))
    losses = _update(state, "generator", of_generator.mean, rate, after_backward)
    return losses | _update(state, "discriminator", of_discriminator.mean, rate)


def _discriminator_first(
    method: Method,
    state: TrainingState,
    parts: list[tuple[list[Tensor], list[Tensor]]],
    perceptual: nn.Module | None,
    rate: float,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """Pix2Pix's order: the generator is judged by the discriminator that has just learnt."""
    of_generator, of_discriminator = _Terms(len(parts)), _Terms(len(parts))
    # The generator's graphs of all parts wait until the discriminator has learnt from all of them.
    made = [(sources, *_forward(state, sources, targets)) for sources, targets in parts]
    for sources, outputs, targets in made:
        detached = [output.detach() for output in outputs]
        with state.autocast():
            total = of_discriminator.add(method.discriminator_losses(state.discriminator, sources, targets, detached))
        _backward(total, state.discriminator)
    losses = _update(state, "discriminator", of_discriminator.mean, rate)
    with _frozen(state.discriminator):
        while made:
            sources, outputs, targets = made.pop(0)
            with state.autocast():
                terms = method.generator_losses(state.discriminator, sources, targets, outputs, perceptual)
                total = of_generator.add(terms)
            _backward(total, state.generator)
    return _update(state, "generator", of_generator.mean, rate, after_backward) | losses


class _Terms:
    """The terms of a loss: their mean over the parts of a batch."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self.mean: dict[str, Tensor] = {}

    def add(self, terms: dict[str, Tensor]) -> Tensor:
        """Take in the terms of a part; returns what of it is to be minimised."""
        for name, term in terms.items():
            share = term.detach() / self._parts
            self.mean[name] = self.mean[name] + share if name in self.mean else share
        return _sum(terms) / self._parts


class _OnePass:
    """Stands for a discriminator: called like it, it judges the same images once only, however often it is asked."""

    def __init__(self, discriminator: nn.Module) -> None:
        self._discriminator = discriminator
        self._seen: list[tuple[list[Tensor], Any]] = []

    def __call__(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> Any:
        asked = [*sources, *images]
        seen = (r for known, r in self._seen if [*map(id, known)] == [*map(id, asked)])
        result = next(seen, None)
        if result is None:
            # Whoever asks first may not want gradients, but the next one may.
            with torch.enable_grad():
                result = self._discriminator(sources, images)
            self._seen.append((asked, result))
        return [list(scale) for scale in result]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._discriminator, name)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Without gradients for the parameters that have them now."""
    parameters = _trainable(network)
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _backward(total: Tensor, network: nn.Module) -> None:
    """Add the gradients of one network's weights, and of no other's."""
    # A phase may freeze all of a network.
    if weights := _trainable(network):
        total.backward(inputs=weights)


def _update(
    state: TrainingState,
    network: str,
    terms: dict[str, Tensor],
    rate: float,
    after_backward: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """One step of a network's optimiser; returns the terms and the norm of the gradient, over all processes."""
    optimizer = state.optimizers[network]
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    state.processes.average([*gradients, *terms.values()])
    if after_backward is not None:
        after_backward()
    total = _sum(terms)
    norm = nn.utils.get_total_norm(gradients).to(total.device)
    finite = torch.isfinite(total) & torch.isfinite(norm)
    for group in optimizer.param_groups:
        group["lr"] = state.rate(network, rate)
    # Fused Adam leaves the weights alone where this is 1, decided on the device, so that nobody waits for it here.
    optimizer.found_inf = (~finite).to(torch.float32)
    optimizer.step()
    return {**terms, f"gradient_{network}": norm}
