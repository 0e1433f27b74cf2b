"""Networks prepared for inference compute what they computed before."""

import copy

import pytest
import torch
from conftest import TRAINABLE, make_settings
from torch import nn

from msgunet.data.pairs import pyramid
from msgunet.methods.folding import drop_cancelled_biases
from msgunet.methods.norms import InstanceNorm
from msgunet.methods.registry import build_method


def biases(network: nn.Module) -> int:
    layers = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    return sum(layer.bias is not None for layer in layers)


@pytest.mark.parametrize("name", TRAINABLE)
def test_biases_that_a_norm_cancels_change_nothing(name, tmp_path):
    settings = make_settings(tmp_path, name)
    method = build_method(settings)
    torch.manual_seed(0)
    network = method.build_generator().double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)
    method.prepare_inference(network)
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    lean = copy.deepcopy(network)
    drop_cancelled_biases(lean)
    sources = pyramid(torch.rand(1, 3, 64, 64).double() * 2 - 1, method.scales(method.options, (64, 64)), "photo")
    with torch.no_grad():
        for before, after in zip(network(sources), lean(sources), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    if name.startswith("pix2pixhd"):
        assert biases(lean) == 1, "only the last convolution has no norm"
        assert biases(network) > 7


def test_a_bias_that_a_norm_keeps_stays():
    stored = nn.BatchNorm2d(4).eval()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), stored, nn.Conv2d(4, 4, 3), nn.ReLU(), InstanceNorm())
    drop_cancelled_biases(network)
    assert biases(network) == 2
