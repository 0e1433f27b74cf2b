"""Triton kernels for per-image norms in channels-last memory: statistics, and all that follows them in one pass.

Triton comes with PyTorch for CUDA. With `TRITON_INTERPRET=1` the same kernels run on a CPU, for tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS, _MOST_PARTS = 64, 1024


@triton.jit
def _part_statistics(
    x, means, squares, pixels, channels, parts, steps: tl.constexpr, pixel_block: tl.constexpr, block: tl.constexpr
):
    """Compute the mean, and the sum of squared distances from it, of each channel over a part of an image."""
    image = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    channel = tl.program_id(2) * block + tl.arange(0, block)
    inside = channel < channels
    count = 0.0
    mean = tl.zeros([block], tl.float32)
    square = tl.zeros([block], tl.float32)
    for step in range(0, steps):
        pixel = (part * steps + step) * pixel_block + tl.arange(0, pixel_block)
        known = pixel < pixels
        mask = known[:, None] & inside[None, :]
        place = (image * pixels + pixel[:, None]) * channels + channel[None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        own = tl.sum(known.to(tl.float32), 0)
        own_mean = tl.sum(values, 0) / tl.maximum(own, 1.0)
        distance = tl.where(mask, values - own_mean[None, :], 0.0)
        # The statistics of two sets together (Chan et al. 1979), which does not subtract large numbers.
        total = count + own
        apart = own_mean - mean
        share = own / tl.maximum(total, 1.0)
        square += tl.sum(distance * distance, 0) + apart * apart * count * share
        mean += apart * share
        count = total
    place = (image * parts + part) * channels + channel
    tl.store(means + place, mean, mask=inside)
    tl.store(squares + place, square, mask=inside)


@triton.jit
def _joined_statistics(
    means, squares, mean_out, scale_out, pixels, channels, chunk, parts, eps,
    steps: tl.constexpr, part_block: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Join the statistics of an image's parts to its mean and 1 / sqrt(variance + eps)."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    inside = channel < channels
    mean = tl.zeros([block], tl.float32)
    for step in range(0, steps):
        part = step * part_block + tl.arange(0, part_block)
        mask = (part < parts)[:, None] & inside[None, :]
        share = tl.maximum(tl.minimum(pixels - part * chunk, chunk), 0).to(tl.float32) / pixels
        place = (image * parts + part[:, None]) * channels + channel[None, :]
        mean += tl.sum(share[:, None] * tl.load(means + place, mask=mask, other=0.0), 0)
    square = tl.zeros([block], tl.float32)
    for step in range(0, steps):
        part = step * part_block + tl.arange(0, part_block)
        mask = (part < parts)[:, None] & inside[None, :]
        count = tl.maximum(tl.minimum(pixels - part * chunk, chunk), 0).to(tl.float32)
        place = (image * parts + part[:, None]) * channels + channel[None, :]
        apart = tl.load(means + place, mask=mask, other=0.0) - mean[None, :]
        own = tl.load(squares + place, mask=mask, other=0.0) + count[:, None] * apart * apart
        square += tl.sum(tl.where(mask, own, 0.0), 0)
    place = image * channels + channel
    tl.store(mean_out + place, mean, mask=inside)
    tl.store(scale_out + place, 1.0 / tl.sqrt(square / pixels + eps), mask=inside)


@triton.jit
def _apply(
    x, means, scales, other, out, height, width, channels, channels_out, pad, normalise: tl.constexpr,
    relu: tl.constexpr, adds: tl.constexpr, column_block: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Normalise, apply ReLU, add, pad by reflection and fill channels with zeros; each if it is asked for."""
    rows = height + 2 * pad
    image = (tl.program_id(0) // rows).to(tl.int64)
    row = tl.program_id(0) % rows
    column = tl.program_id(1) * column_block + tl.arange(0, column_block)
    channel = tl.program_id(2) * block + tl.arange(0, block)
    from_row = height - 1 - tl.abs(height - 1 - tl.abs(row - pad))
    from_column = width - 1 - tl.abs(width - 1 - tl.abs(column - pad))
    known = channel < channels
    in_row = column < width + 2 * pad
    mask = in_row[:, None] & known[None, :]
    place = ((image * height + from_row) * width + from_column[:, None]) * channels + channel[None, :]
    values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if normalise:
        mean = tl.load(means + image * channels + channel, mask=known, other=0.0)
        scale = tl.load(scales + image * channels + channel, mask=known, other=0.0)
        values = (values - mean[None, :]) * scale[None, :]
    if relu:
        values = tl.maximum(values, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if adds:
        values += tl.load(other + place, mask=mask, other=0.0).to(tl.float32)
    place = ((image * rows + row) * (width + 2 * pad) + column[:, None]) * channels_out + channel[None, :]
    mask = in_row[:, None] & (channel < channels_out)[None, :]
    tl.store(out + place, values.to(out.dtype.element_ty), mask=mask)


def image_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / sqrt(variance + eps), (N, C) each, over the pixels of `x`: (N, C, H, W), channels-last."""
    count, channels, height, width = x.shape
    pixels = height * width
    # Powers of two, so that few kernels are compiled for images of many sizes.
    steps = triton.next_power_of_2(triton.cdiv(pixels, _PIXELS * _MOST_PARTS))
    chunk = _PIXELS * steps
    parts = triton.cdiv(pixels, chunk)
    block = min(64, triton.next_power_of_2(channels))
    means, squares = torch.empty((2, count, parts, channels), dtype=torch.float32, device=x.device)
    mean, scale = torch.empty((2, count, channels), dtype=torch.float32, device=x.device)
    grid = (count, parts, triton.cdiv(channels, block))
    _part_statistics[grid](x, means, squares, pixels, channels, parts, steps=steps, pixel_block=_PIXELS, block=block)
    _joined_statistics[count, triton.cdiv(channels, 16)](
        means, squares, mean, scale, pixels, channels, chunk, parts, eps,
        steps=triton.next_power_of_2(triton.cdiv(parts, 128)), part_block=128, block=16,
    )  # fmt: skip
    return mean, scale


def apply(
    x: Tensor, mean: Tensor | None, scale: Tensor | None, other: Tensor | None, relu: bool, pad: int, channels: int
) -> Tensor:
    """Return the padded and filled output (N, channels, H + 2 pad, W + 2 pad) for channels-last tensors."""
    count, own, height, width = x.shape
    shape = (count, channels, height + 2 * pad, width + 2 * pad)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    block = min(64, triton.next_power_of_2(channels))
    columns = 2048 // block
    grid = (count * shape[2], triton.cdiv(shape[3], columns), triton.cdiv(channels, block))
    unused = x  # a kernel takes a tensor in each place
    _apply[grid](
        x, unused if mean is None else mean, unused if scale is None else scale, unused if other is None else other,
        out, height, width, own, channels, pad, normalise=mean is not None, relu=relu, adds=other is not None,
        column_block=columns, block=block,
    )  # fmt: skip
    return out
