"""Operations on feature maps that PyTorch has only as several kernels, each of which reads and writes them again.

On CUDA each is one kernel, which torch compiles when it is first used (`torch.cuda.jiterator`). Elsewhere they consist
of PyTorch's operations, and on the `meta` device they are one operation, so that they are counted as on CUDA.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from msgunet.core.text import first_line
from msgunet.device.notes import say

# The body of each kernel, for one element. `T` is at least 32 bits wide. Comparisons let NaN pass, as ReLU does.
SOURCES = {
    "bias_relu": """template <typename T> T bias_relu(T x, T bias) {
        T y = x + bias;
        return y <= T(0) ? T(0) : y;
    }""",
    "relu_l1_backward": """template <typename T> T relu_l1_backward(T gradient, T y, T target, T scale) {
        T sign = T(y > target) - T(y < target);
        return y <= T(0) ? T(0) : gradient + scale * sign;
    }""",
}


def _bias_relu(x: Tensor, bias: Tensor) -> Tensor:
    return (x + bias).relu_()


def _relu_l1_backward(gradient: Tensor, y: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    return torch.where(y <= 0, 0, gradient + scale * (y - target).sign_())


_SLOW: dict[str, Callable[..., Tensor]] = {"bias_relu": _bias_relu, "relu_l1_backward": _relu_l1_backward}


@functools.cache
def _kernel(name: str, device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Return the kernel, or the operations that it replaces if it cannot be compiled or computes something else."""
    count = {"bias_relu": 2, "relu_l1_backward": 4}[name]
    # Each pair of a negative, zero and positive value, and one value for the others.
    some, others = [[-1.5], [0.0], [2.0]], [-0.5, 0.0, 3.0]
    values = (some, others) if count == 2 else (0.25, some, others, 0.5)
    tried = [torch.tensor(value, device=device, dtype=dtype) for value in values]
    try:
        kernel = torch.cuda.jiterator._create_jit_fn(SOURCES[name])
        found = kernel(*tried)
        reason = "" if torch.equal(found, _SLOW[name](*tried)) else "it computes something else"
    except Exception as error:  # a compiler that is missing, or fails in any way
        reason = first_line(error)
    if reason:
        say(f"{name}: several kernels instead of one ({reason})")
        return _SLOW[name]
    return kernel


def _on_cuda(name: str) -> Callable[..., Tensor]:
    def run(first: Tensor, *rest: Tensor) -> Tensor:
        widest = max((first, *rest), key=Tensor.dim)
        return _kernel(name, widest.device, widest.dtype)(first, *rest)

    return run


_LIBRARY = torch.library.Library("msgunet", "DEF")
_LIBRARY.define("bias_relu(Tensor x, Tensor bias) -> Tensor")
_LIBRARY.define("relu_l1_backward(Tensor gradient, Tensor y, Tensor target, Tensor scale) -> Tensor")
for _name, _slow in _SLOW.items():
    _LIBRARY.impl(_name, _slow, "CPU")
    _LIBRARY.impl(_name, _on_cuda(_name), "CUDA")
_LIBRARY.impl("bias_relu", lambda x, bias: torch.empty_like(x), "Meta")
_LIBRARY.impl("relu_l1_backward", lambda gradient, y, target, scale: torch.empty_like(y), "Meta")


def mean_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean absolute difference.

    In bf16 the difference stays in bf16, which keeps its sign, and only the sum is in fp32: copies in fp32 would move
    four times the bytes.
    """
    difference = x - y
    if difference.dtype in (torch.bfloat16, torch.float16):
        return torch.linalg.vector_norm(difference, 1, dtype=torch.float32) / x.numel()
    return difference.abs_().mean()


def bias_relu(x: Tensor, bias: Tensor) -> Tensor:
    """Return relu(x + bias) for `x` (N, C, H, W) and a frozen `bias` (C,)."""
    return _BiasReLU.apply(x, bias)


def bias_relu_distance(x: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return y = relu(x + bias) as `bias_relu`, and the mean absolute difference of y and a frozen `target`."""
    return _BiasReLUDistance.apply(x, bias, target)


def _forward(x: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.msgunet.bias_relu(x, bias.to(x.dtype).view(-1, 1, 1))


class _BiasReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        y = _forward(x, bias)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, 0), None


class _BiasReLUDistance(torch.autograd.Function):
    """The gradient of both outputs in one kernel: autograd would write that of the distance, add it, then mask it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        y = _forward(x, bias)
        ctx.save_for_backward(y, target)
        return y, mean_distance(y, target)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, by_distance: Tensor | None) -> tuple[Tensor | None, None, None]:
        y, target = ctx.saved_tensors
        if by_distance is None:
            return (None if gradient is None else torch.ops.aten.threshold_backward(gradient, y, 0)), None, None
        if gradient is None:  # nothing but the distance uses the last layer
            gradient = y.new_zeros(())
        scale = (by_distance / y.numel()).to(y.dtype)
        return torch.ops.msgunet.relu_l1_backward(gradient, y, target, scale), None, None
