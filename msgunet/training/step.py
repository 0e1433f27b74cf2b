"""One step of a training: both losses, both updates, nothing computed twice and no waiting for the device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msgunet.evaluation.gradients import GradientRecorder
from msgunet.method import Method
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

    Returns the weighted terms of both losses and the L2 norm of both gradients (`gradient_generator` and
    `gradient_discriminator`), still on the device. An update with a loss or gradient that is not finite changes no
    weight; who reads the values must then stop (see `History.settle`).
    """
    with state.autocast():
        outputs = state.generator(sources)
    # A generator without intermediate outputs is judged against the targets of the scales that it has.
    targets = targets[: len(outputs)]
    after_backward = recorder and recorder.hook(state)
    order = _generator_first if method.generator_first else _discriminator_first
    return order(method, state, sources, targets, outputs, perceptual, rate, after_backward)


def _generator_first(
    method: Method,
    state: TrainingState,
    sources: list[Tensor],
    targets: list[Tensor],
    outputs: list[Tensor],
    perceptual: nn.Module | None,
    rate: float,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """Pix2Pix-HD's order: both losses read the discriminator as it was before, so that one pass serves both."""
    discriminator = _OnePass(state.discriminator)
    # The generator's gradient stops here for a moment, so that the discriminator's pass can be gone through twice.
    leaves = [output.detach().requires_grad_() for output in outputs]
    with state.autocast():
        terms = method.generator_losses(discriminator, sources, targets, leaves, perceptual)
    total = _sum(terms)
    # Beside the outputs' gradients those of terms that reach the weights in another way, such as a penalty on them.
    weights = _trainable(state.generator)
    gradients = torch.autograd.grad(total, [*leaves, *weights], retain_graph=True, allow_unused=True)
    losses = {name: term.detach() for name, term in terms.items()}
    finite = torch.isfinite(total.detach())
    # With these goes the perceptual network's graph, before the generator's backward pass needs memory.
    del terms, total
    state.optimizers["generator"].zero_grad(set_to_none=True)
    for weight, gradient in zip(weights, gradients[len(leaves) :], strict=True):
        weight.grad = gradient
    pairs = zip(outputs, gradients, strict=False)
    given = [(output, gradient) for output, gradient in pairs if output.requires_grad and gradient is not None]
    if given:
        torch.autograd.backward(*zip(*given, strict=True))
    losses |= _update(state, "generator", finite, rate, after_backward)
    with state.autocast():
        terms = method.discriminator_losses(discriminator, sources, targets, leaves)
    return losses | _minimise(state, "discriminator", terms, rate)


def _discriminator_first(
    method: Method,
    state: TrainingState,
    sources: list[Tensor],
    targets: list[Tensor],
    outputs: list[Tensor],
    perceptual: nn.Module | None,
    rate: float,
    after_backward: Callable[[], None] | None,
) -> dict[str, Tensor]:
    """Pix2Pix's order: the generator is judged by the discriminator that has just learnt."""
    detached = [output.detach() for output in outputs]
    with state.autocast():
        terms = method.discriminator_losses(state.discriminator, sources, targets, detached)
    of_discriminator = _minimise(state, "discriminator", terms, rate)
    with _frozen(state.discriminator):
        with state.autocast():
            terms = method.generator_losses(state.discriminator, sources, targets, outputs, perceptual)
        return _minimise(state, "generator", terms, rate, after_backward) | of_discriminator


class _OnePass:
    """Stands for a discriminator: called like it, it judges the same pictures once only, however often it is asked."""

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
    yield
    for parameter in parameters:
        parameter.requires_grad_(True)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _minimise(
    state: TrainingState,
    network: str,
    terms: dict[str, Tensor],
    rate: float,
    after_backward: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """Backward pass into one network's weights alone, and its update; returns the terms and the gradient's norm."""
    total = _sum(terms)
    state.optimizers[network].zero_grad(set_to_none=True)
    # A phase may freeze all of a network.
    if weights := _trainable(getattr(state, network)):
        total.backward(inputs=weights)
    losses = {name: term.detach() for name, term in terms.items()}
    return losses | _update(state, network, torch.isfinite(total.detach()), rate, after_backward)


def _update(
    state: TrainingState, network: str, finite: Tensor, rate: float, after_backward: Callable[[], None] | None
) -> dict[str, Tensor]:
    optimizer = state.optimizers[network]
    if after_backward is not None:
        after_backward()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients).to(finite.device)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # Fused Adam leaves the weights alone where this is 1, decided on the device, so that nobody waits for it here.
    optimizer.found_inf = (~(finite & torch.isfinite(norm))).to(torch.float32)
    optimizer.step()
    return {f"gradient_{network}": norm}
