"""Losses shared by the methods.

All take and return plain tensors; lists run over discriminator layers or VGG layers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from msgunet.device.precision import upcast


def least_squares(scores: Tensor, real: bool) -> Tensor:
    """Mean squared distance of patch scores to 1 (real) or 0 (fake): the loss of LSGAN and Pix2Pix-HD."""
    return (upcast(scores) - float(real)).square().mean()


def cross_entropy(scores: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of patch scores (logits) against real or fake: the loss of Pix2Pix."""
    scores = upcast(scores)
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def l1_sum(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference; the mean over elements is the paper's 1 / E_i (equation 1)."""
    return torch.stack([_MeanDistance.apply(x, y) for x, y in zip(a, b, strict=True)]).sum()


class _MeanDistance(torch.autograd.Function):
    """L1, mean over elements. torch's keeps the difference for the backward pass; x and y are kept by others anyway."""

    @staticmethod
    def forward(context: Any, x: Tensor, y: Tensor) -> Tensor:
        context.save_for_backward(x, y)
        return (upcast(x) - upcast(y)).abs_().mean()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = context.saved_tensors
        difference = upcast(x) - upcast(y)
        of_x = difference.sign_().mul_(gradient / x.numel()).to(x.dtype)
        return of_x, -of_x if context.needs_input_grad[1] else None


def l1_per_image(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each image in a batch, (N, C, H, W) to (N,)."""
    return (upcast(a) - upcast(b)).abs().mean((1, 2, 3))


def eager_gradient(loss: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """`loss(image)`, whose gradient is computed in the forward pass already.

    The loss's graph is gone when this returns: of VGG-19's features at 2048x1024 only the gradient, as large as the
    image, waits for the backward pass, and nothing is computed twice.
    """
    if torch.is_grad_enabled() and image.requires_grad:
        return _EagerGradient.apply(image, loss)
    return loss(image)


class _EagerGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, image: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            value = loss(image)
            context.save_for_backward(*torch.autograd.grad(value, image))
        return value.detach()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.saved_tensors[0], None
