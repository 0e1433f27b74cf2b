"""The Triton kernels compute what PyTorch computes. Triton's interpreter runs them on a CPU."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from msgunet.methods import norm_act
from msgunet.methods.norm_act import reflected

TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
LAST = torch.channels_last
CHILD = """
import sys
import torch
from msgunet.methods import norm_kernels
calls = torch.load(sys.argv[1])
results = []
for most, name, arguments in calls:
    norm_kernels._MOST_PARTS = most
    results.append(getattr(norm_kernels, name)(*arguments))
torch.save(results, sys.argv[1])
"""


def interpreted(folder, calls):
    """Run kernels in a process of its own, since Triton decides at its first import whether it interprets."""
    torch.save(calls, folder / "calls.pt")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", CHILD, folder / "calls.pt"], env=environment, check=True)
    return torch.load(folder / "calls.pt")


def image(*shape, dtype=torch.float32, mean=0.0):
    torch.manual_seed(0)
    return (torch.randn(shape) + mean).to(dtype).contiguous(memory_format=LAST)


@TRITON
def test_statistics(tmp_path):
    # A mean that is large beside the deviation, as before a norm that subtracts it.
    images = [image(*shape, mean=100.0) for shape in [(1, 3, 5, 7), (2, 64, 9, 16), (1, 70, 33, 40), (1, 4, 2, 2)]]
    cases = [(most, x) for x in images for most in (1024, 3)]
    results = interpreted(tmp_path, [(most, "image_statistics", (x, 1e-5)) for most, x in cases])
    for (_, x), (mean, scale) in zip(cases, results, strict=True):
        variance, expected = torch.var_mean(x.double(), (2, 3), correction=0)
        torch.testing.assert_close(mean.double(), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(scale.double(), torch.rsqrt(variance + 1e-5), rtol=1e-4, atol=0)


def cases():
    """Arguments of `norm_act`, and the outputs that PyTorch computes."""
    ways = [
        (0, True, False, True, 6),
        (1, True, False, True, 6),
        (3, False, True, True, 6),
        (3, False, False, False, 8),
    ]
    for dtype in (torch.float32, torch.bfloat16):
        for pad, relu, adds, normalise, channels in ways:
            x, other = image(2, 6, 5, 40, dtype=dtype), image(2, 6, 5, 40, dtype=dtype, mean=1.0)
            y, mean, scale = x.float(), None, None
            if normalise:
                mean, scale = torch.randn(2, 6), torch.rand(2, 6) + 0.5
                y = (y - mean[:, :, None, None]) * scale[:, :, None, None]
            y = F.relu(y) if relu else y
            y = y + other.float() if adds else y
            expected = F.pad(F.pad(y, (pad,) * 4, "reflect") if pad else y, (0, 0, 0, 0, 0, channels - 6))
            yield (x, mean, scale, other if adds else None, relu, pad, channels), expected.to(dtype)


@TRITON
def test_all_that_follows(tmp_path):
    given, expected = zip(*cases(), strict=True)
    for found, right in zip(interpreted(tmp_path, [(1, "apply", one) for one in given]), expected, strict=True):
        assert found.is_contiguous(memory_format=LAST)
        torch.testing.assert_close(found, right)


@TRITON
@pytest.mark.parametrize("name", ["*bf16", "*fp32"])
def test_the_kernels_compile_for_an_h100(name):
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    from msgunet.methods import norm_kernels

    tensors = {"x": name, "other": name, "out": name}
    numbers = dict.fromkeys(("pixels", "channels", "channels_out", "parts", "chunk", "height", "width", "pad"), "i32")
    constants = [
        ("_part_statistics", {"steps": 32, "pixel_block": 64, "block": 64}),
        ("_joined_statistics", {"steps": 8, "part_block": 128, "block": 16}),
        *(
            ("_apply", {"normalise": norm, "relu": norm, "adds": adds, "column_block": 32, "block": 64})
            for norm, adds in ((True, False), (True, True), (False, False))
        ),
    ]
    for kernel, given in constants:
        function = getattr(norm_kernels, kernel)
        types = tensors | numbers | {"eps": "fp32"} | dict.fromkeys(given, "constexpr")
        signature = {argument: types.get(argument, "*fp32") for argument in function.arg_names}
        places = {(function.arg_names.index(key),): value for key, value in given.items()}
        source = compiler.ASTSource(function, signature, places)
        assert compiler.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_all_that_follows_without_the_kernels():
    for given, right in cases():
        torch.testing.assert_close(torch.ops.msgunet.norm_act(*given), right)


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
@pytest.mark.parametrize("pad", [1, 3])
def test_reflection_by_slices(pad, layout):
    x = image(2, 3, 4, 9).contiguous(memory_format=layout)
    found = reflected(x, pad)
    assert torch.equal(found, F.pad(x, (pad,) * 4, "reflect"))
    assert found.is_contiguous(memory_format=layout)


def test_the_operations_pass_pytorchs_own_checks():
    x = image(2, 6, 5, 7)
    torch.library.opcheck(torch.ops.msgunet.image_statistics.default, (x,))
    mean, scale = torch.ops.msgunet.image_statistics(x)
    torch.library.opcheck(torch.ops.msgunet.norm_act.default, (x, mean, scale, x, True, 1, 6))
    torch.library.opcheck(torch.ops.msgunet.norm_act.default, (x, None, None, None, False, 0, 6))


def test_sides_that_are_too_short_are_named():
    with pytest.raises(ValueError, match="an image of 9x3 pixels cannot be padded by 3 reflected pixels"):
        norm_act.Reflect(3)(image(1, 2, 3, 9))
