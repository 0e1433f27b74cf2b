"""The generator's gradients over a training (the paper's Fig. 2), also by depth.

For each layer, the norm and quantiles of |gradient| are recorded. For all layers together, a histogram with logarithmic
bins on both sides of zero is recorded. It shows both how close to zero the gradients are and how far they spread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from msgunet.core.files import write_csv

if TYPE_CHECKING:
    from msgunet.training.state import TrainingState

# Sixteen bins per decade from 1e-12 to 1e3. The outermost bins also hold all larger values, the innermost also zero.
_EXPONENTS = torch.arange(-12, 3.001, 1 / 16)


class GradientRecorder:
    """Records gradients in `rows`, at `records` steps that are evenly spaced over a training of `total` steps.

    `rows` is part of the checkpoint.
    """

    def __init__(self, records: int, total: int, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self._steps = {max(0, round((i + 1) * total / records) - 1) for i in range(records)} if records else set()

    def is_due(self, step: int) -> bool:
        """Return whether the gradients of this step (counted from 0) are to be recorded."""
        return step in self._steps

    def hook(self, state: "TrainingState") -> Callable[[], None]:
        """Return the function to call between the generator's backward pass and its update."""
        return lambda: self.rows.extend(gradient_rows(state.generator, state.step + 1))

    def write(self, path: Path) -> None:
        """Write the rows as CSV if any records were requested."""
        if self._steps:
            write_csv(path, self.rows)


def gradient_rows(generator: nn.Module, step: int) -> list[dict[str, Any]]:
    """Return one `layer` row per convolution and one `bin` row per non-empty histogram bin."""
    rows: list[dict[str, Any]] = []
    counts = torch.zeros(2 * len(_EXPONENTS), dtype=torch.int64)
    for depth, (name, weight) in enumerate(_by_depth(generator)):
        gradient = weight.grad.detach().flatten().double().cpu()
        size = gradient.abs()
        quantiles = torch.quantile(size[:: max(1, len(size) // 1_000_000)], torch.tensor([0.05, 0.5, 0.95]).double())
        rows.append(
            {
                "kind": "layer",
                "step": step,
                "layer": name,
                "depth": depth,
                "count": gradient.numel(),
                "norm": float(gradient.norm()),
                "mean_abs": float(size.mean()),
                "q05_abs": float(quantiles[0]),
                "q50_abs": float(quantiles[1]),
                "q95_abs": float(quantiles[2]),
            }
        )
        index = torch.bucketize(size.clamp(min=1e-300).log10(), _EXPONENTS.double()).clamp(1, len(_EXPONENTS) - 1)
        # The negative bins are left of the middle, from large to small magnitude; the positive bins are right of it.
        index = torch.where(gradient < 0, len(_EXPONENTS) - 1 - index, len(_EXPONENTS) - 1 + index)
        counts += torch.bincount(index, minlength=len(counts))
    for i in counts.nonzero().flatten().tolist():
        low, high = _bin_edges(i)
        rows.append({"kind": "bin", "step": step, "low": low, "high": high, "count": int(counts[i])})
    return rows


def _bin_edges(index: int) -> tuple[float, float]:
    middle = len(_EXPONENTS) - 1
    power = [float(10**e) for e in _EXPONENTS.double()]
    if index >= middle:
        i = index - middle
        return (0.0 if i <= 1 else power[i - 1]), power[max(i, 1)]
    i = middle - index
    return -power[i], (0.0 if i <= 1 else -power[i - 1])


def _by_depth(generator: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the convolution weights that have a gradient, ordered from the input to the output."""
    layers = [(n, p) for n, p in generator.named_parameters() if p.ndim == 4 and p.grad is not None]
    return sorted(layers, key=lambda layer: generator.depth(layer[0]))
