"""Losses shared by the methods.

All functions accept and return plain tensors; lists run over discriminator layers or VGG layers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from msgunet.device.precision import upcast
from msgunet.methods.fused import mean_distance

# torch's number for a reduction by summing.
_SUM = 2


def least_squares(scores: Tensor, real: bool) -> Tensor:
    """Return the mean squared distance of patch scores to 1 (real) or 0 (fake): the loss of LSGAN and Pix2Pix-HD."""
    return (upcast(scores) - float(real)).square().mean()


def cross_entropy(scores: Tensor, real: bool) -> Tensor:
    """Return the binary cross-entropy of patch scores (logits) against real or fake: the loss of Pix2Pix."""
    scores = upcast(scores)
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def l1_sum(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of the mean absolute difference; the mean is the paper's 1 / E_i (equation 1).

    Raises:
        TypeError: a tensor is passed instead of a list; its images would be taken for layers.

    """
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        raise TypeError("l1_sum takes two lists of tensors, but got a tensor; put it into a list: l1_sum([a], [b])")
    return torch.stack([_MeanDistance.apply(x, y) for x, y in zip(a, b, strict=True)]).sum()


class _MeanDistance(torch.autograd.Function):
    """Mean L1 that saves x and y, which the graph keeps anyway; torch's would also save their difference."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return mean_distance(x, y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        gradient_x = signs(x, y, gradient / x.numel())
        return gradient_x, -gradient_x if ctx.needs_input_grad[1] else None


def signs(x: Tensor, y: Tensor, scale: Tensor, one_kernel: bool | None = None) -> Tensor:
    """Return `scale` times the sign of x - y in the type of x: the gradient of an L1 distance.

    On a GPU it is one kernel instead of three: that of torch's smooth L1, with a smooth part no wider than 1e-30. On a
    CPU, that one takes ten times as long.
    """
    if one_kernel is None:
        one_kernel = x.device.type != "cpu" and x.dtype == y.dtype != torch.float16
    if one_kernel:
        return torch.ops.aten.smooth_l1_loss_backward(scale.to(x.dtype).expand_as(x), x, y, _SUM, 1e-30)
    return (x - y).sign_().mul_(scale).to(x.dtype)


def l1_per_image(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of each image in a batch: (N, C, H, W) to (N,)."""
    return (upcast(a) - upcast(b)).abs().mean((1, 2, 3))


def eager_gradient(loss: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Return `loss(image)`, and compute its gradient during the forward pass.

    The graph of the loss is freed when this returns. Instead of VGG-19's features at 2048x1024, only the gradient, as
    large as the image, is kept for the backward pass. Nothing is computed twice.
    """
    if torch.is_grad_enabled() and image.requires_grad:
        return _EagerGradient.apply(image, loss)
    return loss(image)


class _EagerGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            value = loss(image)
            ctx.save_for_backward(*torch.autograd.grad(value, image))
        return value.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None
