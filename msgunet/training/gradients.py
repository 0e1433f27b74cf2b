"""The generator's gradients over a training (the paper's Fig. 2), also by depth.

For each layer, the norm and quantiles of |gradient| are recorded. For all layers together, a histogram with logarithmic
bins on both sides of zero is recorded. It shows both how close to zero the gradients are and how far they spread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from msgunet.core.files import write_csv

if TYPE_CHECKING:
    from msgunet.training.state import TrainingState

# Sixteen bins per decade from 1e-12 to 1e3. The outermost bins also hold all larger values, the innermost also zero.
_EXPONENTS = torch.arange(-12, 3.001, 1 / 16)
_POWERS = [float(10**e) for e in _EXPONENTS.double()]
_EDGES = torch.tensor(_POWERS, dtype=torch.float64)
# Rounded down to 32 bits: a value in 32 bits is above one of these if it is above that in 64 bits.
_EDGES_32 = torch.where(_EDGES.float().double() > _EDGES, _EDGES.float().nextafter(torch.zeros(())), _EDGES.float())
_NUMBERS = ("norm", "mean_abs", "q05_abs", "q50_abs", "q95_abs")
_QUANTILES = (0.05, 0.5, 0.95)


class GradientRecorder:
    """Records gradients in `rows`, at `records` steps that are evenly spaced over a training of `total` steps.

    If the time is limited instead (`total` is None), each record has its share of the time, and is made in the middle
    of it. `rows` is part of the checkpoint.
    """

    def __init__(self, records: int, total: int | None, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self._records = records
        self._made = len({row["step"] for row in rows})
        self._steps: set[int] | None = None
        if total is not None:
            self._steps = {max(0, round((i + 1) * total / records) - 1) for i in range(records)}

    def is_due(self, step: int, done: float) -> bool:
        """Return whether the gradients of this step are to be recorded.

        Args:
            step: counted from 0.
            done: the share of the training that is complete before it.

        """
        if self._steps is not None:
            return step in self._steps
        return self._made < self._records and done >= (self._made + 0.5) / self._records

    def hook(self, state: "TrainingState") -> Callable[[], None]:
        """Return the function to call between the generator's backward pass and its update."""
        return lambda: self._record(gradient_rows(state.generator, state.step + 1))

    def _record(self, rows: list[dict[str, Any]]) -> None:
        self.rows.extend(rows)
        self._made += 1

    def write(self, path: Path) -> None:
        """Write the rows as CSV if any records were requested."""
        if self._records:
            write_csv(path, self.rows)


def gradient_rows(generator: nn.Module, step: int) -> list[dict[str, Any]]:
    """Return one `layer` row per convolution and one `bin` row per non-empty histogram bin.

    Everything is computed on the device of the gradients, and fetched at once.
    """
    layers = _by_depth(generator)
    if not layers:
        return []
    numbers = torch.stack([_numbers(weight.grad.detach().flatten()) for _, weight in layers])
    counts = sum(_histogram(weight.grad.detach().flatten()) for _, weight in layers)
    values = torch.cat((numbers.flatten(), counts.double())).tolist()
    width = len(_NUMBERS)
    rows: list[dict[str, Any]] = []
    for depth, (name, weight) in enumerate(layers):
        found = dict(zip(_NUMBERS, values[depth * width :], strict=False))
        rows.append({"kind": "layer", "step": step, "layer": name, "depth": depth, "count": weight.numel(), **found})
    for i, count in enumerate(values[len(layers) * width :]):
        if count:
            low, high = _bin_edges(i)
            rows.append({"kind": "bin", "step": step, "low": low, "high": high, "count": int(count)})
    return rows


def _numbers(gradient: Tensor) -> Tensor:
    """Return `_NUMBERS` of a layer in 64 bits. The quantiles are those of at least a million values, or of all."""
    size = gradient.abs()
    selected = _sorted(size[:: max(1, len(size) // 1_000_000)])
    # Levels rounded to 32 bits, as in all records.
    ranks = torch.tensor(_QUANTILES).double() * (len(selected) - 1)
    # Single values, since a list as an index would be copied to the device.
    below, above = (
        torch.stack([selected[i] for i in places.long().tolist()]).double() for places in (ranks.floor(), ranks.ceil())
    )
    norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
    weights = (ranks - ranks.floor()).tolist()
    quantiles = torch.stack([torch.lerp(a, b, w) for a, b, w in zip(below, above, weights, strict=True)])
    return torch.cat((torch.stack((norm, size.mean(dtype=torch.float64))), quantiles))


def _sorted(values: Tensor) -> Tensor:
    # On a CPU, NumPy's sort takes a small part of the time of torch's.
    return torch.from_numpy(np.sort(values.numpy())) if values.device.type == "cpu" else values.sort().values


def _histogram(gradient: Tensor) -> Tensor:
    """Return the number of values in each bin, from the largest negative ones to the largest positive ones."""
    size = gradient.abs()
    if size.dtype == torch.float32:
        edges = _EDGES_32.to(size.device)
    else:
        size, edges = size.double(), _EDGES.to(size.device)
    index = torch.bucketize(size, edges, out_int32=True).clamp_(1, len(edges) - 1)
    # The negative bins are left of the middle, from large to small magnitude; the positive bins are right of it.
    index = torch.where(gradient < 0, -index, index).add_(len(edges) - 1)
    return torch.bincount(index, minlength=2 * len(edges))


def _bin_edges(index: int) -> tuple[float, float]:
    middle = len(_EXPONENTS) - 1
    # Never 0, since the bins on each side begin at 1.
    i = abs(index - middle)
    low, high = 0.0 if i == 1 else _POWERS[i - 1], _POWERS[i]
    # Subtracted, since -0.0 would be written with its sign.
    return (low, high) if index > middle else (-high, 0.0 - low)


def _by_depth(generator: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the convolution weights that have a gradient, ordered from the input to the output."""
    layers = [(n, p) for n, p in generator.named_parameters() if p.ndim == 4 and p.grad is not None]
    return sorted(layers, key=lambda layer: generator.depth(layer[0]))
