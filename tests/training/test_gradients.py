"""The gradient records, against numpy."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from msgunet.training import gradients
from msgunet.training.gradients import GradientRecorder, gradient_rows

# Sixteen bins per decade.
EDGES = 10 ** (np.arange(-12 * 16, 3 * 16 + 1) / 16)


class Layers(nn.Module):
    """Two convolutions whose gradients are given; a bias, and a convolution that takes no part."""

    def __init__(self, last: np.ndarray, first: np.ndarray) -> None:
        super().__init__()
        self.last, self.first, self.unused = (nn.Conv2d(n, 1, 1, bias=n > 1) for n in (len(last), len(first), 1))
        for layer, gradient in ((self.last, last), (self.first, first)):
            layer.weight.grad = torch.from_numpy(gradient).float().view(layer.weight.shape)
            layer.bias.grad = torch.ones(1)

    def depth(self, name: str) -> int:
        return {"first.weight": 1, "last.weight": 2}[name]


def rows_of(last: np.ndarray, first: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = pd.DataFrame(gradient_rows(Layers(last, first), step=7))
    assert set(frame["step"]) == {7}
    return frame[frame["kind"] == "layer"], frame[frame["kind"] == "bin"]


def test_each_layers_size_and_quantiles_from_the_input_to_the_output():
    draw = np.random.default_rng(0)
    gradients = {"first.weight": draw.normal(0, 1e-3, 300), "last.weight": draw.normal(0, 20, 77)}
    layers, _ = rows_of(gradients["last.weight"], gradients["first.weight"])
    assert list(layers["layer"]) == ["first.weight", "last.weight"]
    assert list(layers["depth"]) == [0, 1]
    for row in layers.to_dict("records"):
        gradient = gradients[row["layer"]]
        quantiles = [row[f"q{percent}_abs"] for percent in ("05", "50", "95")]
        assert quantiles == pytest.approx(np.quantile(np.abs(gradient), (0.05, 0.5, 0.95)), rel=1e-5)
        assert (row["count"], row["norm"]) == (len(gradient), pytest.approx(np.sqrt(np.sum(gradient**2)), rel=1e-5))
        assert row["mean_abs"] == pytest.approx(np.mean(np.abs(gradient)), rel=1e-5)


def test_the_bins_are_numpys_on_both_sides_of_zero():
    draw = np.random.default_rng(0)
    first = 10 ** draw.uniform(-14, 4, 3000) * draw.choice([-1, 1], 3000)
    last = np.concatenate([[0, 0, 1e-30, -1e-30, 5e3, -5e3, 999, 0.9e-12, 1.1e-12], 10 ** draw.uniform(-3, 1, 50)])
    _, bins = rows_of(last, first)
    values = np.concatenate([first, last]).astype(np.float32).astype(float)
    # The innermost bins also hold zero, the outermost everything beyond.
    edges = np.concatenate([[0], EDGES[1:]])
    for sign in (1, -1):
        side = values[values >= 0] if sign > 0 else -values[values < 0]
        counts, _ = np.histogram(np.minimum(side, EDGES[-1]), edges)
        expected = {(low, high): n for low, high, n in zip(edges, edges[1:], counts, strict=False) if n}
        ours = bins[(bins["high"] if sign > 0 else -bins["low"]) > 0]
        inner, outer = (ours["low"], ours["high"]) if sign > 0 else (-ours["high"], -ours["low"])
        order = np.argsort(inner.to_numpy())
        assert inner.to_numpy()[order] == pytest.approx([low for low, _ in expected], rel=1e-5, abs=0)
        assert outer.to_numpy()[order] == pytest.approx([high for _, high in expected], rel=1e-5, abs=0)
        assert ours["count"].to_numpy()[order].tolist() == list(expected.values())


@pytest.mark.parametrize(
    ("records", "total", "steps"),
    [(4, 100, [24, 49, 74, 99]), (1, 8, [7]), (3, 10, [2, 6, 9]), (5, 2, [0, 1]), (0, 10, [])],
)
def test_records_are_spread_evenly_and_end_with_the_last_step(records, total, steps, tmp_path):
    recorder = GradientRecorder(records, total, [])
    assert [step for step in range(total) if recorder.is_due(step, step / total)] == steps
    recorder.write(tmp_path / "gradients.csv")
    assert (tmp_path / "gradients.csv").exists() == bool(steps)


def test_records_of_a_time_limited_training_are_spread_over_the_time_also_after_a_resume():
    """Steps that take 7 % of the time each: a record in the middle of each fifth, at the first step after it."""
    state = SimpleNamespace(generator=nn.Module(), step=0)
    rows = []
    recorder = GradientRecorder(5, None, rows)
    made = []
    for step, done in enumerate(np.arange(0, 1, 0.07)):
        if step == 8:
            recorder = GradientRecorder(5, None, rows)
        if recorder.is_due(step, done):
            recorder.hook(state)()
            # A generator without gradients has no rows; a row stands for each record.
            rows.append({"step": step + 1})
            made.append(round(done, 2))
    assert made == [0.14, 0.35, 0.56, 0.7, 0.91]


def as_before(generator: nn.Module, step: int) -> list[dict]:
    """Return the records as they were computed at first: on the CPU, with logarithms in 64 bits."""
    rows, exponents = [], torch.arange(-12, 3.001, 1 / 16).double()
    counts = torch.zeros(2 * len(exponents), dtype=torch.int64)
    for depth, name in enumerate(("first", "last")):
        gradient = getattr(generator, name).weight.grad.flatten().double()
        size = gradient.abs()
        quantiles = torch.quantile(size[:: max(1, len(size) // 1_000_000)], torch.tensor([0.05, 0.5, 0.95]).double())
        numbers = (float(gradient.norm()), float(size.mean()), *quantiles.tolist())
        layer = {"kind": "layer", "step": step, "layer": f"{name}.weight", "depth": depth, "count": len(size)}
        rows.append(layer | dict(zip(("norm", "mean_abs", "q05_abs", "q50_abs", "q95_abs"), numbers, strict=True)))
        index = torch.bucketize(size.clamp(min=1e-300).log10(), exponents).clamp(1, len(exponents) - 1)
        index = torch.where(gradient < 0, len(exponents) - 1 - index, len(exponents) - 1 + index)
        counts += torch.bincount(index, minlength=len(counts))
    bins = [(*gradients._bin_edges(i), int(counts[i])) for i in counts.nonzero().flatten().tolist()]
    return rows + [{"kind": "bin", "step": step, "low": low, "high": high, "count": n} for low, high, n in bins]


@pytest.mark.parametrize("size", [2, 1000, 2_100_000])
def test_the_records_are_those_of_earlier_versions(size):
    """To the last bit, also on the edges of bins."""
    draw = np.random.default_rng(0)
    first = 10 ** draw.uniform(-14, 4, size) * draw.choice([-1, 0, 1], size)
    last = np.concatenate([[0, 1, 10, -100, 1000, -1e-12, 1e-45], EDGES, -EDGES])
    network = Layers(last, first)
    assert gradient_rows(network, 7) == as_before(network, 7)


def test_gradients_in_64_bits_are_compared_in_64_bits():
    """Each edge is the upper end of its bin."""
    edges = gradients._EDGES[1:-1]
    network = Layers(edges.numpy(), edges.numpy()).double()
    for layer in (network.first, network.last):
        layer.weight.grad = edges.view(layer.weight.shape).clone()
    bins = [row for row in gradient_rows(network, 1) if row["kind"] == "bin"]
    assert [row["high"] for row in bins] == edges.tolist()
    assert {row["count"] for row in bins} == {2}


def test_the_records_are_fetched_at_once(monkeypatch):
    """Fetching waits for a GPU: only the histograms ask for the largest index."""
    fetched, item = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: fetched.append(x.numel()) or item(x))
    for name in ("item", "cpu", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a value of its own"))
    rows = gradient_rows(Layers(np.ones(50), np.ones(70)), 1)
    assert len(rows) == 3
    assert max(fetched) == 2 * 5 + 2 * len(EDGES)
    assert sum(n > 3 for n in fetched) == 1, "apart from the places of the quantiles, which the CPU computes"
