"""Messages of torch and Python about common mistakes, in words."""

import pytest
import torch

import msgunet
from msgunet.core.bugs import in_words
from msgunet.training.fitting import layers_checked


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda nn, x: nn.Linear(32, 8)(x(1, 64)), "takes 32 values, but its input has 64 (shape 1x64)"),
        (lambda nn, x: nn.BatchNorm2d(32)(x(1, 64, 8, 8)), "takes 32 channels, but its input has 64"),
        (lambda nn, x: nn.InstanceNorm2d(32, affine=True)(x(1, 64, 8, 8)), "takes 32 channels, but its input has 64"),
        (lambda nn, x: nn.GroupNorm(4, 32)(x(1, 64, 8, 8)), "takes 32 channels, but its input has 64"),
        (lambda nn, x: x(1, 64, 8, 8) + x(1, 32, 8, 8), "shapes do not fit: one tensor has "),
        (
            lambda nn, x: torch.cat((x(1, 3, 8, 8), x(1, 3, 9, 8)), 1),
            "shapes do not fit: torch.cat of tensors whose oth",
        ),
        (lambda nn, x: nn.Linear(32, 8)([x(1, 32)]), "a list where a tensor is expected"),
        (lambda nn, x: [x(1)] - [x(1)], "a list where a tensor is expected"),
        (lambda nn, x: torch.cat(x(1, 3), 1), "a tensor where a list is expected"),
    ],
)
def test_torchs_messages_are_put_in_words(device, call, expected):
    """The patterns are those of the installed torch, so that a new version's messages are noticed."""
    with torch.device(device), layers_checked(), pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
        call(torch.nn, lambda *shape: torch.zeros(shape))
    assert expected in in_words(caught.value)


@pytest.mark.parametrize("layer", [torch.nn.Conv2d(32, 8, 3), torch.nn.ConvTranspose2d(32, 8, 3)], ids=["down", "up"])
def test_torchs_own_check_of_channels_is_put_in_words(layer):
    with pytest.raises(RuntimeError) as caught:
        layer(torch.zeros(1, 64, 8, 8))
    assert "takes 32 channels, but its input has 64 (shape [1, 64, 8, 8])" in in_words(caught.value)


class Options(msgunet.MethodOptions):
    width: float = 1.0


def misspelt_variable():
    some_width = 3
    return some_width + some_widht  # noqa: F821


def misspelt_import():
    from msgunet import PatchGan  # noqa: F401


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda: Options().widht, "width"),
        (lambda: torch.nn.Cov2d, "Conv2d"),
        (lambda: torch.zeros(1).sqeeze(), "squeeze"),
        (lambda: msgunet.Metod, "Method"),
        (misspelt_variable, "some_width"),
        (misspelt_import, "PatchGAN"),
    ],
)
def test_the_nearest_name_is_offered(call, near):
    with pytest.raises((AttributeError, NameError, ImportError)) as caught:
        call()
    assert in_words(caught.value).endswith(f"; did you mean '{near}'?")


def test_without_a_near_name_nothing_is_offered():
    with pytest.raises(AttributeError) as caught:
        Options().zzz  # noqa: B018
    assert in_words(caught.value) == "AttributeError: 'Options' object has no attribute 'zzz'"
