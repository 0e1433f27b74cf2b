"""The fused operations on feature maps compute what PyTorch's do, with a fraction of the bytes."""

import ctypes
import math
import shutil
import subprocess

import pytest
import torch
from torch.nn import functional as F

from msgunet.device.meter import Meter
from msgunet.methods import fused
from msgunet.methods.losses import eager_gradient, l1_sum
from msgunet.methods.vgg19 import VGG19Features

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def vgg(monkeypatch, width=0.125, device="cpu"):
    """Return a network with the fused operations, also on a CPU, and two images."""
    torch.manual_seed(0)
    network = VGG19Features(width)
    for layer in network.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    monkeypatch.setattr(network, "_fused", lambda _: True, raising=False)
    images = (torch.rand(2, 3, 32, 32).to(device) * 2 - 1 for _ in "xy")
    return network.to(device), *images


def plain(monkeypatch, network):
    monkeypatch.setattr(network, "_fused", lambda _: False)


def loss_and_gradient(network, image, target, layers=range(16)):
    image = image.detach().requires_grad_()
    with torch.no_grad():
        features = network(target, layers)
    loss = network.distances(image, features, layers).sum()
    return loss.detach(), *torch.autograd.grad(loss, image)


@pytest.mark.parametrize("layers", [range(16), (1, 3, 4), (2,)])
@pytest.mark.parametrize("device", DEVICES)
def test_fused_distances_and_their_gradient_are_those_of_plain_operations(monkeypatch, device, layers):
    network, image, target = vgg(monkeypatch, device=device)
    network.double()
    found = loss_and_gradient(network, image.double(), target.double(), layers)
    plain(monkeypatch, network)
    expected = loss_and_gradient(network, image.double(), target.double(), layers)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    image = image.double().requires_grad_()
    features = [F.relu(x) for x in network(target.double(), layers)]
    (usual,) = torch.autograd.grad(l1_sum(network(image, layers), features), image)
    torch.testing.assert_close(found[1], usual, rtol=1e-12, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_fused_distances_in_bf16_are_those_of_fp64_within_its_precision(monkeypatch, device):
    network, image, target = vgg(monkeypatch, 0.5, device)
    network.double()
    exact, along = loss_and_gradient(network, image.double(), target.double())
    network.float().keep_weights_in("bf16")
    with torch.autocast(device, torch.bfloat16):
        rough, nearly = loss_and_gradient(network, image, target)
        plain(monkeypatch, network)
        as_before, before = loss_and_gradient(network, image, target)
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    similar = [F.cosine_similarity(along.flatten(), g.double().flatten(), 0).item() for g in (nearly, before)]
    assert similar[0] > 0.9
    # Rounding less often is no worse than the plain operations.
    assert 1 - similar[0] < 1.2 * (1 - similar[1])
    assert as_before.item() == pytest.approx(rough.item(), rel=0.01)


def test_the_eager_gradient_of_fused_distances_moves_a_third_less():
    found = []
    for prepared in (False, True):
        with torch.device("meta"), Meter() as meter:
            network = VGG19Features(0.5)
            if prepared:
                network.keep_weights_in("fp32")
            image, target = (torch.empty(1, 3, 64, 64) for _ in "xy")
            features = network(target)
            image.requires_grad_()
            meter.operations.clear()
            eager_gradient(lambda x, n=network, f=features: n.distances(x, f).sum(), image).backward()
        found.append(sum(o.bytes for (name, _), o in meter.operations.items() if "convolution" not in name))
    before, after = found
    assert after < 0.68 * before


def test_targets_need_one_kernel_a_layer_less(monkeypatch):
    with torch.device("meta"), torch.no_grad(), Meter() as meter:
        network = VGG19Features(0.5).keep_weights_in("fp32")
        network(torch.empty(1, 3, 64, 64), (0, 1, 2))
    calls = {name: len(operation.each) for (name, _), operation in meter.operations.items()}
    assert (calls["convolution"], calls["bias_relu"]) == (3, 3), "later layers are not computed"
    assert not {"bias", "relu"} & calls.keys()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_source_of_each_kernel_computes_what_its_operations_do(tmp_path):
    """The same text that a GPU runs, compiled for the CPU."""
    calls = {"bias_relu": "a, b", "relu_l1_backward": "a, b, c, d"}
    functions = "".join(
        f'{fused.SOURCES[name]}\nextern "C" float run_{name}(float a, float b, float c, float d) '
        f"{{ return {name}<float>({arguments}); }}\n"
        for name, arguments in calls.items()
    )
    (tmp_path / "kernels.cpp").write_text(functions)
    library = tmp_path / "kernels.so"
    subprocess.run(["g++", "-shared", "-fPIC", str(tmp_path / "kernels.cpp"), "-o", str(library)], check=True)
    compiled = ctypes.CDLL(str(library))
    values = [-2.0, -0.5, 0.0, 0.5, 2.0]
    for name, slow in fused._SLOW.items():
        run = getattr(compiled, f"run_{name}")
        run.restype, run.argtypes = ctypes.c_float, [ctypes.c_float] * 4
        count = len(calls[name].split(","))
        for a in values:
            for b in values:
                for c in values:
                    arguments = [torch.tensor(v) for v in (a, b, c, 0.25)]
                    assert run(a, b, c, 0.25) == slow(*arguments[:count]).item(), (name, a, b, c)
        # ReLU and its gradient let NaN pass: such a loss must not look finite.
        nan = [float("nan")] * 4
        assert math.isnan(run(*nan))
        assert math.isnan(slow(*map(torch.tensor, nan[:count])).item())


def test_a_kernel_that_fails_or_errs_is_replaced_by_its_operations(monkeypatch, capsys):
    def wrong(source):
        if "relu_l1_backward" in source:
            raise RuntimeError("nvrtc: error: failed to open libnvrtc-builtins.so\nmore")
        return lambda x, bias: x

    monkeypatch.setattr(torch.cuda.jiterator, "_create_jit_fn", wrong)
    fused._kernel.cache_clear()
    for name, slow in fused._SLOW.items():
        assert fused._kernel(name, torch.device("cpu"), torch.float32) is slow
    fused._kernel.cache_clear()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "bias_relu: several kernels instead of one (it computes something else)",
        "relu_l1_backward: several kernels instead of one (nvrtc: error: failed to open libnvrtc-builtins.so)",
    ]


def test_a_kernel_that_computes_the_same_is_used(monkeypatch, capsys):
    right = lambda x, bias: (x + bias).clamp(min=0)  # noqa: E731
    monkeypatch.setattr(torch.cuda.jiterator, "_create_jit_fn", lambda _: right)
    fused._kernel.cache_clear()
    assert fused._kernel("bias_relu", torch.device("cpu"), torch.bfloat16) is right
    fused._kernel.cache_clear()
    assert capsys.readouterr().err == ""
