"""In bf16, each weight is converted once in a context, and the count on shapes knows it."""

import pytest
import torch
from conftest import make_settings

from msgunet.core.settings import ComputeSettings, TrainingSettings
from msgunet.device.meter import Meter
from msgunet.methods.registry import build_method
from msgunet.training.memory import blank_batch, step_needs
from msgunet.training.state import TrainingState
from msgunet.training.step import step

CPU = torch.device("cpu")


def conversions(name, parts=1):
    """Return how many tensors a real step converts to bf16, and how many the count on shapes says."""
    training = TrainingSettings(precision="bf16", batch_size=parts, accumulate=parts)
    settings = make_settings("unused", name, training=training)
    method = build_method(settings)
    phase = method.phases(training)[-1]
    state = TrainingState(method, settings, CPU)
    state.begin_phase(method, phase, resumed=False)
    images = blank_batch(method, settings, phase, CPU)
    with Meter() as meter:
        step(method, state, *images, None, 1e-3, None)
    counted = step_needs(method, settings, phase, ComputeSettings()).operations
    return [len(operations[("_to_copy", "bf16")].each) for operations in (meter.operations, counted)]


@pytest.mark.parametrize("name", ["pan", "pix2pix"])
def test_the_count_on_shapes_converts_what_autocast_converts(name):
    real, counted = conversions(name)
    assert counted == real


def test_micro_batches_share_the_converted_weights_of_the_generator():
    (one, _), (two, _) = (conversions("pix2pix", parts) for parts in (1, 2))
    generator = build_method(make_settings("unused", "pix2pix")).build_generator()
    weights = sum(1 for layer in generator.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d))
    assert two <= 2 * one - weights
