"""One training step: both losses and both updates, without repeated computation or waiting for the device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msgunet.methods.contract import checked_outputs, checked_scores, checked_terms, unconnected
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
    """Update the generator and the discriminator once, in the method's order.

    With `training.accumulate`, the batch is split into that many micro-batches, and their gradients are averaged.

    Return the weighted terms of both losses and the L2 norm of both gradients (`gradient_generator` and
    `gradient_discriminator`), still on the device. An update with a loss or gradient that is not finite changes no
    weight; the code that reads the values must then stop the training (see `History.settle`).
    """
    state.set_rate(rate)
    after_backward = recorder and recorder.hook(state)
    for optimizer in state.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    chunks = [[image.chunk(state.parts) for image in images] for images in (sources, targets)]
    parts = [tuple([image[i] for image in images] for images in chunks) for i in range(state.parts)]
    if not state.has_discriminator:
        order = _generator_alone
    else:
        order = _generator_first if method.generator_first else _discriminator_first
    return order(method, state, parts, perceptual, after_backward)


def _forward(
    method: Method, state: TrainingState, sources: list[Tensor], targets: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the generator's outputs and the targets at the scales of these outputs."""
    outputs = checked_outputs(method, state.generator, state.generator(sources))
    return outputs, targets[: len(outputs)]


def _generator_alone(
    method: Method,
    state: TrainingState,
    parts: list[tuple[list[Tensor], list[Tensor]]],
    perceptual: nn.Module | None,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """The update of a method without a discriminator."""
    terms = _Terms(method, "generator_losses", len(parts), bool(_trainable(state.generator)))
    for sources, all_targets in parts:
        with state.autocast():
            outputs, targets = _forward(method, state, sources, all_targets)
            total = terms.add(method.generator_losses(state.discriminator, sources, targets, outputs, perceptual))
        _backward(total, state.generator)
    return _update(state, "generator", terms.mean, after_backward)


def _generator_first(
    method: Method,
    state: TrainingState,
    parts: list[tuple[list[Tensor], list[Tensor]]],
    perceptual: nn.Module | None,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """Pix2Pix-HD's order: both losses use the discriminator before its update, so that one pass serves both."""
    generator_terms, discriminator_terms = _both_terms(method, state, len(parts))
    for sources, all_targets in parts:
        with state.autocast():
            outputs, targets = _forward(method, state, sources, all_targets)
        discriminator = _OnePass(method, state.discriminator)
        # Detach the outputs, so that both losses can backpropagate through the same pass of the discriminator.
        leaves = [output.detach().requires_grad_() for output in outputs]
        with state.autocast():
            total = generator_terms.add(method.generator_losses(discriminator, sources, targets, leaves, perceptual))
        # Some terms depend on the weights directly, such as a penalty on them: also compute their gradients.
        weights = _trainable(state.generator)
        gradients = torch.autograd.grad(total, [*leaves, *weights], retain_graph=True, allow_unused=True)
        with state.autocast():
            total = discriminator_terms.add(method.discriminator_losses(discriminator, sources, targets, leaves))
        _backward(total, state.discriminator)
        # Free the discriminator's graph before the generator's backward pass needs memory.
        del discriminator, total
        for weight, gradient in zip(weights, gradients[len(leaves) :], strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
        pairs = zip(outputs, gradients, strict=False)
        connected = [(output, gradient) for output, gradient in pairs if output.requires_grad and gradient is not None]
        if connected:
            torch.autograd.backward(*zip(*connected, strict=True))
    losses = _update(state, "generator", generator_terms.mean, after_backward)
    return losses | _update(state, "discriminator", discriminator_terms.mean)


def _discriminator_first(
    method: Method,
    state: TrainingState,
    parts: list[tuple[list[Tensor], list[Tensor]]],
    perceptual: nn.Module | None,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """Pix2Pix's order: the discriminator is updated first, and the generator's loss uses the updated discriminator."""
    generator_terms, discriminator_terms = _both_terms(method, state, len(parts))
    # Keep the generator's graphs of all micro-batches until the discriminator has been updated with all of them.
    with state.autocast():  # one context, so that the weights are converted once
        pending = [(sources, *_forward(method, state, sources, targets)) for sources, targets in parts]
    for sources, outputs, targets in pending:
        detached = [output.detach() for output in outputs]
        with state.autocast():
            total = discriminator_terms.add(
                method.discriminator_losses(state.discriminator, sources, targets, detached)
            )
        _backward(total, state.discriminator)
    losses = _update(state, "discriminator", discriminator_terms.mean)
    with _frozen(state.discriminator):
        while pending:
            sources, outputs, targets = pending.pop(0)
            with state.autocast():
                terms = method.generator_losses(state.discriminator, sources, targets, outputs, perceptual)
                total = generator_terms.add(terms)
            _backward(total, state.generator)
    return _update(state, "generator", generator_terms.mean, after_backward) | losses


def _both_terms(method: Method, state: TrainingState, parts: int) -> tuple["_Terms", "_Terms"]:
    """Return empty terms of the generator's and of the discriminator's loss."""
    generator = _Terms(method, "generator_losses", parts, bool(_trainable(state.generator)))
    return generator, _Terms(method, "discriminator_losses", parts, bool(_trainable(state.discriminator)))


class _Terms:
    """The terms of a loss, averaged over the micro-batches of a batch."""

    def __init__(self, method: Method, loss: Any, parts: int, trains: bool) -> None:
        self._method, self._loss, self._parts, self._trains = method, loss, parts, trains
        self.mean: dict[str, Tensor] = {}

    def add(self, terms: dict[str, Tensor]) -> Tensor:
        """Add the terms of a micro-batch, and return its share of the loss to be minimised."""
        checked_terms(self._method, self._loss, terms)
        if self._trains and not any(term.requires_grad for term in terms.values()):
            raise unconnected(self._method, self._loss)
        for name, term in terms.items():
            share = term.detach() / self._parts
            self.mean[name] = self.mean[name] + share if name in self.mean else share
        return _sum(terms) / self._parts


class _OnePass:
    """A discriminator that evaluates the same images only once, however often it is called with them."""

    def __init__(self, method: Method, discriminator: nn.Module) -> None:
        self._method, self._discriminator = method, discriminator
        self._results: list[tuple[list[Tensor], Any]] = []

    def __call__(self, sources: Sequence[Tensor], images: Sequence[Tensor]) -> Any:
        inputs = [*sources, *images]
        matches = (r for known, r in self._results if [*map(id, known)] == [*map(id, inputs)])
        result = next(matches, None)
        if result is None:
            # The first caller may not need gradients, but a later caller may.
            with torch.enable_grad():
                result = checked_scores(self._method, self._discriminator, self._discriminator(sources, images))
            self._results.append((inputs, result))
        return [list(scale) for scale in result]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._discriminator, name)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Freeze the trainable parameters of a network for the duration of the context."""
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
    """Accumulate the gradients of the weights of `network` only."""
    # A phase can freeze a whole network.
    if weights := _trainable(network):
        total.backward(inputs=weights)


def _update(
    state: TrainingState,
    network: str,
    terms: dict[str, Tensor],
    after_backward: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """Run one step of a network's optimiser. Return the terms and the gradient's norm, over all processes."""
    optimizer = state.optimizers[network]
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    state.processes.average([*gradients, *terms.values()])
    if after_backward is not None:
        after_backward()
    total = _sum(terms)
    norm = nn.utils.get_total_norm(gradients).to(total.device)
    finite = torch.isfinite(total) & torch.isfinite(norm)
    # Fused Adam skips the update if this is 1. The decision is made on the device, so that the host need not wait.
    optimizer.found_inf = (~finite).to(torch.float32)
    optimizer.step()
    return {**terms, f"gradient_{network}": norm}
