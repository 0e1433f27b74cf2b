"""Training steps through all phases, as a CUDA graph or without. On a CPU, a step that is kept replaces the graph."""

from unittest import mock

import torch
from conftest import make_settings, through_phases

from msgunet.core.settings import TrainingSettings
from msgunet.data.pairs import keyed_seed
from msgunet.device.pick import seed_random_numbers
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training.graphs import CudaGraph, Steps
from msgunet.training.state import TrainingState
from msgunet.training.step import step as one_step


class Kept(CudaGraph):
    """Keeps a step instead of recording its operations. As there, the capture changes no tensor.

    Attributes:
        states: the training's states; the last one is the current one.
        captures, replays: how many there were.

    """

    states: list[TrainingState]

    def __init__(self):
        self.captures = self.replays = 0
        self.free = 10

    def usual(self, step):
        return step()

    def waits(self, step):
        return step(), None

    def room(self):
        return 5, self.free

    def capture(self, step):
        self.captures += 1
        state = self.states[-1]
        tensors = list(tensors_of(state))
        before, numbers = [t.clone() for t in tensors], torch.get_rng_state()
        self._step, self._values = step, step().clone()
        torch.set_rng_state(numbers)
        for tensor, value in zip(tensors, before, strict=True):
            tensor.detach().copy_(value)
        return self._values

    def replay(self):
        self.replays += 1
        # A captured step does not set the rate again.
        with mock.patch.object(TrainingState, "set_rate"):
            self._values.copy_(self._step())

    def discard(self):
        self._step = self._values = None


def tensors_of(state):
    for network in (state.generator, state.discriminator):
        yield from network.state_dict().values()
    for optimizer in state.optimizers.values():
        for values in optimizer.state.values():
            yield from values.values()


def prepared(name, device, graph, dropout=True, **training):
    settings = make_settings("unused", name, training=TrainingSettings(**training))
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device(device))
    Kept.states = [state]
    perceptual = None
    if settings.perceptual:
        perceptual = load_perceptual(settings.perceptual, None).to(device).keep_weights_in(state._training.precision)
    watched = [x for x in (method, state.generator, state.discriminator, perceptual) if x is not None]
    return method, state, perceptual, Steps(state._device, graph, watched, state.optimizers.values)


def run(name, device, graph, count=18, alone=(), change=lambda method, state: None, **training):
    """Run steps through all phases, and return the losses of each and the state."""
    method, state, perceptual, steps = prepared(name, device, graph, **training)
    change(method, state)
    scales = method.scales(method.options, (64, 64))
    found, number = [], None
    for i, phase in enumerate(through_phases(method, state, state._training, count)):
        if number is not phase:
            steps.begin_phase()
            number = phase
        torch.manual_seed(i)
        images = [torch.rand(2, 3, 64 >> k, 64 >> k) * 2 - 1 for _ in "st" for k in range(scales)]
        seed_random_numbers(state._device, keyed_seed(0, "step", i))
        # The rate falls, as in a training.
        rate = 1e-3 / (1 + i // 3)
        state.set_rate(rate)

        def function(batch, phase=phase, rate=rate):
            views = (method.view(phase, [*half], "photo") for half in (batch[:scales], batch[scales:]))
            return one_step(method, state, *views, perceptual, rate, None)

        losses = steps(function, images, alone=i in alone)
        found.append({key: value.item() for key, value in losses.items()})
        state.step += 1
        state.update_average(state._training.ema)
    return found, state


def assert_same(first, second):
    (losses, one), (others, two) = first, second
    assert losses == others
    for a, b in zip(tensors_of(one), tensors_of(two), strict=True):
        assert torch.equal(a, b)
    if one.average is not None:
        assert all(torch.equal(a, b) for a, b in zip(one.average.parameters(), two.average.parameters(), strict=True))
