"""Several processes that train one run together (data parallelism), each on a share of every batch.

`torchrun --nproc-per-node N -m -- msgunet train ...` starts them, one per GPU. Together they compute the same as one
process with the whole batch: batch norm and dropout cover the whole batch, and gradients and losses are averaged.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from msgunet.core.errors import InterruptedTraining, UserError
from msgunet.device.precision import upcast


class Processes:
    """The processes of a training: the `rank` of this process and the number of processes (`size`)."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, batch: Sequence[Any], parts: int) -> list[Any]:
        """Return this process's share of a batch that is split into `parts` micro-batches."""
        count = len(batch) // (parts * self.size)
        starts = [(part * self.size + self.rank) * count for part in range(parts)]
        return [item for start in starts for item in batch[start : start + count]]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor with its mean over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def any(self, value: bool) -> bool:
        """Return whether `value` is true in any process. This runs on the host and does not wait for the device."""
        if self.size == 1:
            return value
        flag = torch.tensor(float(value))
        dist.all_reduce(flag)
        return bool(flag)

    def broadcast(self, value: float) -> float:
        """Return the `value` of the first process."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        self.any(False)

    def join(self, network: nn.Module) -> None:
        """Make the batch norm and dropout layers of a network cover the whole batch."""
        if self.size == 1:
            return
        for layer in network.modules():
            # Change the class in place, so that names, weights and references to the layer stay valid.
            if type(layer) is nn.BatchNorm2d:
                layer.__class__ = _SharedBatchNorm
            elif type(layer) is nn.Dropout:
                layer.__class__ = _SharedDropout
                layer.processes = self


@contextmanager
def processes() -> Iterator[Processes]:
    """Connect the processes that torchrun started for the duration of the context; without torchrun, only this one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend)
    # After an error, leave the group as it is: a clean shutdown needs all processes, and NCCL would wait for them.
    try:
        yield Processes(dist.get_rank(), size)
    except InterruptedTraining:
        dist.destroy_process_group()
        raise
    except RuntimeError as error:
        if "closed by peer" not in str(error) and "reset by peer" not in str(error):
            raise
        raise UserError("another process of this training has ended; see its own error message") from error
    dist.destroy_process_group()


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose training statistics cover all processes; torch's version is for GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, variance, count = _moments(x)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return _Normalise.apply(x, mean, variance, self.weight, self.bias, self.eps)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the mean and variance of each channel over all processes, and the number of values per channel.

    All processes must have the same number of images.
    """
    mean = upcast(x.detach()).mean((0, 2, 3))
    dist.all_reduce(mean)
    mean /= dist.get_world_size()
    variance = (upcast(x.detach()) - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))
    dist.all_reduce(variance)
    variance /= dist.get_world_size()
    return mean, variance, x.numel() / x.shape[1] * dist.get_world_size()


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with gradients through the shared mean and variance."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        context.save_for_backward(x, mean, (variance + eps).rsqrt(), weight)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight = context.saved_tensors
        gradient = upcast(gradient)
        normalised = (upcast(x) - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        bias_gradient, weight_gradient = gradient.sum((0, 2, 3)), (gradient * normalised).sum((0, 2, 3))
        means = torch.cat((bias_gradient, weight_gradient))
        dist.all_reduce(means)
        means /= x.numel() / x.shape[1] * dist.get_world_size()
        a, b = (m.view(1, -1, 1, 1) for m in means.chunk(2))
        if weight is None:
            return ((gradient - a - normalised * b) * scale.view(1, -1, 1, 1)).to(x.dtype), *[None] * 5
        x_gradient = (gradient - a - normalised * b) * (weight * scale).view(1, -1, 1, 1)
        return x_gradient.to(x.dtype), None, None, weight_gradient, bias_gradient, None


class _SharedDropout(nn.Dropout):
    """Dropout that draws the mask of all processes' images and applies the part of this process."""

    processes: Processes

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        whole = torch.empty((len(x) * self.processes.size, *x.shape[1:]), dtype=x.dtype, device=x.device)
        whole = whole.contiguous(memory_format=layout).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * whole[self.processes.rank * len(x) :][: len(x)]
