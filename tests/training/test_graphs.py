"""Steps as a CUDA graph are those without, to the last bit. On a CPU, a step that is kept replaces the graph."""

from unittest import mock

import numpy as np
import pytest
import torch
from conftest import TRAINABLE, make_settings, through_phases

from msgunet.core.settings import ComputeSettings, TrainingSettings
from msgunet.data.pairs import keyed_seed
from msgunet.device.pick import seed_random_numbers
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training import graphs
from msgunet.training.graphs import WARM_UP, CudaGraph, Steps, graph_for
from msgunet.training.state import TrainingState
from msgunet.training.step import step as one_step

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


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


def difference(first, second):
    """Return the largest difference of losses and gradients' norms."""
    return max(abs(a[key] - b[key]) for a, b in zip(first[0], second[0], strict=True) for key in a)


@pytest.fixture
def deterministic(monkeypatch):
    """On a GPU, sums in a fixed order."""
    for name, value in (("deterministic", True), ("benchmark", False)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TRAINABLE)
def test_steps_as_a_graph_are_those_without(deterministic, name, device):
    """Through all phases, with dropout, a falling rate, an average of the weights, and a step that runs alone.

    Some operations of a GPU have no fixed order, such as the gradient of reflection padding. Where two trainings
    without a graph differ, one with a graph may differ ten times as much.
    """
    graph = Kept() if device == "cpu" else CudaGraph(torch.device(device))
    with_graph = run(name, device, graph, alone=(5,), ema=0.9)
    without = run(name, device, None, ema=0.9)
    noise = 0.0 if device == "cpu" else difference(without, run(name, device, None, ema=0.9))
    if noise == 0:
        assert_same(with_graph, without)
    else:
        assert difference(with_graph, without) < 10 * noise
    if device == "cpu":
        phases = len(build_method(make_settings("unused", name)).phases(TrainingSettings(epochs=1, decay_epochs=1)))
        assert graph.captures == phases
        assert graph.replays == 18 - phases * WARM_UP - 1


@pytest.mark.parametrize("device", DEVICES)
def test_the_random_numbers_of_a_graph_are_those_without(deterministic, device):
    """Pix2Pix has dropout: with the same numbers in every step, the losses would differ."""
    graph = Kept() if device == "cpu" else CudaGraph(torch.device(device))
    assert run("pix2pix", device, graph, 8)[0] == run("pix2pix", device, None, 8)[0]


class Failing(Kept):
    """A capture that fails after the step's code has run, as at a copy to the CPU."""

    def capture(self, step):
        super().capture(step)
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might")
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904


def test_after_a_capture_that_fails_the_training_goes_on_as_usual(capsys):
    graph = Failing()
    assert_same(run("msgunet", "cpu", graph, 8), run("msgunet", "cpu", None, 8))
    assert graph.captures == 1, "it is tried once"
    assert capsys.readouterr().err == (
        "no CUDA graph, since operation not permitted when stream is capturing; each operation of a step is launched\n"
    )


def test_a_step_that_waits_for_the_device_is_not_captured(capsys):
    graph = Kept()
    graph.waits = lambda step: (step(), "own.py:7 waits for the device")
    assert_same(run("msgunet", "cpu", graph, 6), run("msgunet", "cpu", None, 6))
    assert graph.captures == 0
    assert "no CUDA graph, since own.py:7 waits for the device;" in capsys.readouterr().err


def test_without_enough_memory_nothing_is_captured(capsys):
    graph = Kept()
    graph.free = 4
    run("msgunet", "cpu", graph, 5)
    assert graph.captures == 0
    assert "since it needs 0.0 GiB of memory and 0.0 GiB is free" in capsys.readouterr().err


def counting(method, state):
    """Let the generator's loss depend on a counter."""
    losses = method.generator_losses
    method.count = 0

    def counted(*arguments):
        method.count += 1
        return {key: value * method.count for key, value in losses(*arguments).items()}

    method.generator_losses = counted


def drawing(method, state):
    """Let the generator's loss depend on a random number of the CPU."""
    losses = method.generator_losses
    method.generator_losses = lambda *a: {k: v * torch.rand(()).item() for k, v in losses(*a).items()}


def of_numpy(draw):
    """Return a change as `drawing`, with numbers of NumPy."""

    def change(method, state):
        losses, method.draw = method.generator_losses, draw
        method.generator_losses = lambda *a: {k: v * float(draw()) for k, v in losses(*a).items()}

    return change


class Pool:
    """A helper of a method that remembers something."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return self.count


def with_generator(method, state):
    """Let the method have a generator of its own."""
    method.generator = np.random.default_rng(0)
    of_numpy(lambda: method.generator.random())(method, state)


def with_pool(method, state):
    """Let the method have a helper."""
    method.pool = pool = Pool()
    of_numpy(lambda: pool())(method, state)


def replacing(method, state):
    """Let the generator keep a tensor of the last step."""
    losses = method.generator_losses

    def kept(discriminator, sources, *rest):
        state.generator.last = sources[0].mean()
        return losses(discriminator, sources, *rest)

    method.generator_losses = kept


class KeepsRandom(Kept):
    """The random numbers of the CPU are no tensors of the device: a capture draws them."""

    def capture(self, step):
        before = torch.get_rng_state()
        values = super().capture(step)
        torch.set_rng_state(before)
        torch.rand(())
        return values


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (counting, "a step changes the attribute count of MSGUNetMethod"),
        (replacing, "a step changes the attribute last of MSGUNet"),
        (drawing, "a step draws random numbers on the CPU"),
        (of_numpy(np.random.rand), "a step draws random numbers from random or NumPy"),
        (with_generator, "a step changes the attribute generator of MSGUNetMethod"),
        (with_pool, "a step changes the attribute pool of MSGUNetMethod"),
    ],
)
def test_a_step_that_changes_more_than_tensors_is_not_captured(capsys, change, reason):
    """Otherwise each step would repeat what the first one did."""
    graph, found = KeepsRandom() if change is drawing else Kept(), []
    for each in (graph, None):
        np.random.seed(0)
        found.append(run("msgunet", "cpu", each, 7, change=change))
    assert_same(*found)
    assert f"no CUDA graph, since {reason};" in capsys.readouterr().err


def test_a_step_that_runs_alone_early_does_not_replace_the_search_for_waits(capsys):
    graph, searched = Kept(), []
    graph.waits = lambda step: (searched.append(1) or step(), None)
    assert_same(run("pix2pix", "cpu", graph, 8, alone=(0, 2)), run("pix2pix", "cpu", None, 8))
    assert searched == [1]
    assert graph.replays == 8 - 2 - WARM_UP


def test_images_of_another_size_are_captured_anew():
    """The captured step would read the images of before."""
    graph = Kept()
    state = prepared("pix2pix", "cpu", None)[1]
    steps = Steps(torch.device("cpu"), graph, (), state.optimizers.values)
    sums = [
        steps(lambda images: {"sum": images[0].sum()}, [torch.full((size,), float(i))])["sum"].item()
        for i, size in enumerate([2] * 6 + [3] * 6)
    ]
    assert sums == [i * size for i, size in enumerate([2] * 6 + [3] * 6)]
    assert (graph.captures, graph.replays) == (2, 6)


@pytest.mark.parametrize(
    ("compute", "processes", "device", "expected"),
    [
        ({}, 1, "cuda", True),
        ({"cuda_graphs": "off"}, 1, "cuda", False),
        ({"compile": True}, 1, "cuda", False),
        ({"activation_checkpointing": True}, 1, "cuda", False),
        ({}, 2, "cuda", False),
        ({}, 1, "cpu", False),
    ],
)
def test_graphs_are_for_plain_steps_on_one_gpu(monkeypatch, compute, processes, device, expected):
    monkeypatch.setattr(graphs, "CudaGraph", lambda device: device)
    found = graph_for(ComputeSettings(**compute), torch.device(device), processes)
    assert (found is not None) == expected
