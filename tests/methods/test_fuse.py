"""Generators rewritten for CUDA compute what they computed before, and are counted as they run there."""

import copy
import sys

import pytest
import torch
from conftest import TRAINABLE, make_settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msgunet.data.pairs import pyramid
from msgunet.device.meter import Meter
from msgunet.device.notes import say
from msgunet.methods import cudnn_graphs, generator, norm_act
from msgunet.methods.conv_act import ConvAct, filled
from msgunet.methods.folding import drop_cancelled_biases, fold_batch_norm, fold_parametrizations
from msgunet.methods.fuse import CroppedConv, crop_padding, fuse_convolutions, fuse_norms, reflect_by_slices
from msgunet.methods.networks import MSGUNet, SameConv4, conv_block
from msgunet.methods.norm_act import NormAct, Reflect
from msgunet.methods.norms import InstanceNorm, fixed_statistics, per_image_norms
from msgunet.methods.recompute import Stages
from msgunet.methods.registry import build_method

CPU = torch.device("cpu")


def folded(name):
    """A method and its generator with random weights and statistics, as `prepare` has it before rewriting."""
    method = build_method(make_settings("unused", name))
    torch.manual_seed(0)
    network = method.build_generator()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
            nn.init.normal_(layer.bias)
    method.prepare_inference(network)
    fold_parametrizations(network)
    fold_batch_norm(network)
    drop_cancelled_biases(network)
    return method, network.to(memory_format=torch.channels_last)


def images(method, batch=2):
    return pyramid(torch.rand(batch, 3, 64, 64) * 2 - 1, method.scales(method.options, (64, 64)), "photo")


def run(network, sources):
    torch.manual_seed(1)
    with torch.no_grad():
        return network(sources)


def fuse_all(network):
    fuse_norms(network)
    fuse_convolutions(network)


@pytest.mark.parametrize("rewrite", [fuse_convolutions, crop_padding, fuse_norms, fuse_all, reflect_by_slices])
@pytest.mark.parametrize("name", TRAINABLE)
def test_a_rewritten_network_computes_the_same(name, rewrite):
    """In double precision, where only a wrong rewriting makes a difference."""
    method, network = folded(name)
    network.double()
    sources = [source.double() for source in images(method)]
    expected = run(network, sources)
    names = list(network.state_dict())
    rewritten = copy.deepcopy(network)
    rewrite(rewritten)
    for before, after in zip(expected, run(rewritten, sources), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    assert names == list(network.state_dict())
    if name == "msgunet":
        kinds = [type(layer) for layer in rewritten.modules()]
        assert (SameConv4 in kinds) == (rewrite in (fuse_norms, reflect_by_slices))
        convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        same = sum(isinstance(layer, SameConv4) for layer in convolutions)
        whole = (len(convolutions), 0)
        expected = {fuse_convolutions: whole, fuse_all: whole, crop_padding: (0, same)}.get(rewrite, (0, 0))
        assert (kinds.count(ConvAct), kinds.count(CroppedConv)) == expected
    if name.startswith("pix2pixhd") and rewrite is fuse_all:
        kinds = [type(layer) for layer in rewritten.modules()]
        assert {nn.ReflectionPad2d, nn.ReLU, InstanceNorm, nn.Tanh}.isdisjoint(kinds)
        assert kinds.count(NormAct) == len(per_image_norms(network))


@pytest.mark.parametrize("channels", [[12, 20, 28], [4, 4, 4], [13, 26, 51], [9, 8, 16]])
def test_any_number_of_channels_is_filled(channels):
    """Sources are filled up to eight channels, and so is what they are concatenated with."""
    method = build_method(make_settings("unused", "msgunet", options={"channels": channels, "width": 1.0}))
    torch.manual_seed(0)
    network = method.build_generator().eval().double()
    fold_batch_norm(network)
    sources = [source.double() for source in images(method)]
    expected = run(network, sources)
    fuse_convolutions(network)
    for before, after in zip(expected, run(network, sources), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in TRAINABLE if name != "spade"])
def test_in_bf16_the_rewritten_network_is_as_near_to_fp32_as_the_plain_one(name):
    method, network = folded(name)
    sources = images(method, 1)
    exact = run(network, sources)
    plain = copy.deepcopy(network).bfloat16()
    fused = copy.deepcopy(plain)
    fuse_all(fused)
    halves = [source.bfloat16() for source in sources]
    largest = [
        max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in zip(run(one, halves), exact, strict=True))
        for one in (plain, fused)
    ]
    # Rounding of 8 bits in each of some 20 layers. Both round alike but for the order of bias and sum.
    assert largest[1] < max(0.02, 1.5 * largest[0])


@pytest.mark.parametrize("name", ["pix2pixhd", "pix2pixhd_local"])
def test_fused_norms_take_fixed_statistics(name):
    """As the tiles of an image do, which use those of the whole."""
    method, network = folded(name)
    whole, part = images(method, 1), [source[..., :32] for source in images(method, 1)]
    fused = copy.deepcopy(network)
    fuse_all(fused)
    found = []
    for one in (network, fused):
        with torch.no_grad(), fixed_statistics(one, whole):
            found.append(run(one, part)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(run(fused, part)[0], found[1], rtol=1e-2, atol=1e-2)


def test_odd_padding_is_on_the_same_side():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 8)
    for side in ("end", "start"):
        block = conv_block(SameConv4(3, 5, side), 5).eval()
        fold_batch_norm(block)
        network = nn.Sequential(block)
        expected = run(network, x)
        for rewrite in (fuse_convolutions, crop_padding):
            other = copy.deepcopy(network)
            rewrite(other)
            torch.testing.assert_close(run(other, x), expected)


def test_layers_that_cannot_be_fused_stay():
    grouped = nn.Conv2d(8, 8, 3, groups=2)
    mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    bare = nn.Conv2d(8, 8, 3, bias=False)
    network = nn.Sequential(Stages(grouped, nn.ReLU(), mirrored, nn.ReLU(), bare), nn.Conv2d(8, 8, 3), nn.ReLU())
    before = copy.deepcopy(network)
    fuse_convolutions(network)
    assert str(network) == str(before)


def test_a_layer_that_adds_is_one_operation():
    block = Stages(nn.ConvTranspose2d(8, 16, 3, 2, 1, output_padding=1), nn.ReLU())
    x, skip = torch.randn(1, 8, 8, 8), torch.randn(1, 16, 16, 16)
    expected = run(lambda _: block(x) + skip, None)
    fuse_convolutions(block)
    with Meter() as meter:
        y = run(lambda _: block.plus(x, skip), None)
    torch.testing.assert_close(y, expected)
    ((name, precision), operation) = next(iter(meter.operations.items()))
    assert len(meter.operations) == 1
    assert (name, precision) == ("conv_act", "fp32")
    flop = 2 * 8 * 16 * 9 * 64
    assert operation.each == [(flop, 4 * (8 * 64 + 8 * 16 * 9 + 16 + 2 * 16 * 256))]
    assert meter.flop == flop


def test_filled_channels_are_no_work():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    fused = ConvAct(conv, (1, 1, 1, 1), "tanh")
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.testing.assert_close(fused(x), torch.tanh(conv(x)))
        torch.testing.assert_close(fused(filled(x, 8)), torch.tanh(conv(x)))
    assert fused.weight.shape == (8, 8, 3, 3)
    assert counter.get_total_flops() == 4 * 2 * 9 * 9 * 64


def test_the_operation_passes_pytorchs_own_checks():
    conv = SameConv4(8, 8)
    arguments = (torch.randn(1, 8, 8, 8), conv.weight.detach(), torch.randn(8), torch.randn(1, 8, 8, 8))
    settings = ((1, 1), conv.pad, False, (0, 0), "leaky_relu", 0.2, 64)
    torch.library.opcheck(torch.ops.msgunet.conv_act.default, (*arguments, *settings))


def test_only_cuda_is_rewritten():
    method = build_method(make_settings("unused"))
    for precision, kind, expected in [("bf16", "cuda", ConvAct), ("fp32", "cuda", CroppedConv), ("bf16", "cpu", None)]:
        network = generator.prepare(method, method.build_generator(), CPU, precision, kind)
        found = {ConvAct, CroppedConv} & {type(layer) for layer in network.modules()}
        assert found == ({expected} - {None}), (precision, kind)
    assert MSGUNet.channel_multiple == 1


def test_without_the_package_layers_stay_plain_and_a_line_says_so_once(monkeypatch, capsys):
    reason = "the package nvidia-cudnn-frontend, which is the extra 'cuda', is missing"
    monkeypatch.setitem(sys.modules, "cudnn", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cudnn_graphs.problem.cache_clear()
    monkeypatch.setattr(norm_act, "problem", lambda: None)
    say.cache_clear()
    method = build_method(make_settings("unused"))
    for _ in range(2):
        network = generator.prepare(method, method.build_generator(), CPU, "bf16", "cuda")
        assert {ConvAct, CroppedConv} & {type(layer) for layer in network.modules()} == {CroppedConv}
    cudnn_graphs.problem.cache_clear()
    assert capsys.readouterr().err == f"convolutions run as plain layers, which takes more time: {reason}\n"


def test_an_old_gpu_stays_plain(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    cudnn_graphs.problem.cache_clear()
    assert cudnn_graphs.problem(torch.device("cuda")) == "they need compute capability 8.0 or newer"
    cudnn_graphs.problem.cache_clear()


def test_without_triton_reflection_keeps_the_layout(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(norm_act, "problem", lambda: "No module named 'triton'")
    monkeypatch.setattr(cudnn_graphs, "problem", lambda device: None)
    say.cache_clear()
    method = build_method(make_settings("unused", "pix2pixhd"))
    for _ in range(2):
        network = generator.prepare(method, method.build_generator(), CPU, "bf16", "cuda")
        kinds = {type(layer) for layer in network.modules()}
        assert {ConvAct, Reflect, InstanceNorm} <= kinds
        assert {NormAct, nn.ReflectionPad2d}.isdisjoint(kinds)
    expected = "norms run as plain layers, which takes more time: Triton cannot be used (No module named 'triton')\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("name", "precision", "kind", "expected"),
    [
        ("pix2pixhd", "fp32", "cuda", torch.contiguous_format),
        ("pix2pixhd", "tf32", "cuda", torch.channels_last),
        ("pix2pix", "fp32", "cuda", torch.contiguous_format),
        ("msgunet", "fp32", "cuda", torch.channels_last),
        ("pix2pixhd", "fp32", "cpu", torch.channels_last),
    ],
)
def test_the_layout_is_the_one_that_was_measured_to_be_faster(name, precision, kind, expected):
    method = build_method(make_settings("unused", name))
    network = generator.prepare(method, method.build_generator(), CPU, precision, kind)
    weights = [w for w in network.parameters() if w.ndim == 4 and min(w.shape) > 1]
    assert all(weight.is_contiguous(memory_format=expected) for weight in weights)
    assert generator.layout_of(network, kind, precision) == expected
