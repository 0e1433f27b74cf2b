"""In bf16, a training step moves few bytes, and its values are those of fp64 within the precision."""

import pytest
import torch

from msgunet.device.meter import Meter
from msgunet.methods.losses import l1_sum, signs
from msgunet.methods.vgg19 import VGG19Features


def features(dtype=torch.bfloat16, device="cpu"):
    torch.manual_seed(0)
    x, y = (torch.randn(2, 16, 24, 24, device=device).to(dtype) for _ in "xy")
    # As after ReLU, both have equal zeros.
    return (x.relu() if i == 0 else x for i, x in enumerate((x, y.relu())))


def test_the_l1_of_bf16_features_is_that_of_fp64():
    x, y = features()
    x.requires_grad_()
    ours = l1_sum([x], [y])
    (gradient,) = torch.autograd.grad(3 * ours, x)
    exact = (x.detach().double() - y.double()).abs().mean()
    assert ours.dtype == torch.float32
    # The differences are rounded to 8 bits, independently; the sum is not.
    assert abs(ours.item() / exact.item() - 1) < 1e-4
    expected = 3 / x.numel() * (x.detach().double() - y.double()).sign()
    assert gradient.dtype == torch.bfloat16
    assert ((gradient == 0) == (expected == 0)).all()
    torch.testing.assert_close(gradient.double(), expected, rtol=2**-8, atol=0)


def test_the_l1_of_fp32_features_is_unchanged():
    x, y = features(torch.float32)
    assert l1_sum([x], [y]).item() == (x - y).abs().mean().item()


def test_a_tensor_instead_of_a_list_is_refused():
    """Its images would be taken for layers: the loss would grow with the batch."""
    x, y = features()
    for arguments in ((x, y), ([x], y), (x, [y])):
        with pytest.raises(TypeError, match=r"l1_sum takes two lists of tensors, but got a tensor; put it into a list"):
            l1_sum(*arguments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_signs_in_one_kernel_are_those_in_three(dtype):
    x, y = features(dtype)
    scale = torch.tensor(0.37 / x.numel())
    three, one = (signs(x, y, scale, one_kernel) for one_kernel in (False, True))
    assert (x == y).any(), "zeros are among them"
    assert one.dtype == three.dtype == dtype
    assert torch.equal(one, three)


@pytest.mark.parametrize(("device", "one"), [("cpu", False), ("meta", True)])
def test_signs_are_one_kernel_where_it_is_the_faster_way(device, one):
    with Meter() as meter:
        signs(*features(device=device), torch.ones((), device=device))
    assert (("smooth_l1_loss_backward", "bf16") in meter.operations) == one
    with Meter() as meter:
        x, y = features(device=device)
        signs(x, y.float(), torch.ones((), device=device))
    assert ("smooth_l1_loss_backward", "bf16") not in meter.operations, "of two types"


def test_the_l1_reads_each_tensor_as_seldom_as_possible():
    with torch.device("meta"), Meter() as meter:
        x, y = features(device="meta")
        size = x.nbytes
        x.requires_grad_()
        meter.operations.clear()
        l1_sum([x], [y]).backward()
    moved = sum(operation.bytes for operation in meter.operations.values())
    # The difference and its sum, then the gradient from both; small scalars.
    assert moved < (3 + 1 + 3) * size + 200


def test_vgg19_with_weights_in_bf16_computes_what_autocast_computes():
    torch.manual_seed(0)
    network = VGG19Features(0.125)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(image)
        found = network.keep_weights_in("bf16")(image)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert network.mean.dtype == torch.float32
