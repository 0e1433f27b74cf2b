"""A step that changes more than tensors on its device is not captured, and goes on as if nothing had been tried."""

import numpy as np
import pytest
import torch
from kept import Kept, assert_same, run


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
