"""Fig. 2 (gradient distribution), and gradients by depth over the training."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from msgunet.report.collect import Collection
from msgunet.report.figures.style import NamedFigure, add_legend
from msgunet.report.tables import Tables

_VARIANTS = {"without": "without intermediate outputs", "with": "with intermediate outputs"}
_STYLES = {
    "without": {"color": "#E69F00", "linestyle": "--", "marker": "s"},
    "with": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}


def draw(collection: Collection, _: Tables) -> Iterator[NamedFigure]:
    """Yield both figures once both variants are trained."""
    frames = {run.folder.name: run.table("gradients.csv") for run in collection.gradients}
    if not frames or any(frame is None for frame in frames.values()):
        return
    run = collection.gradients[0]
    steps = sorted(frames["with"]["step"].unique())
    caption = (
        f"Gradients of the generator's convolution weights in {run.title}, trained with and without intermediate "
        f"outputs on {collection.data_conditions(run.settings.dataset)}; {len(steps)} records over {max(steps)} steps."
    )
    conditions = f"{collection.run_conditions([run])}; {collection.environment()}."
    histogram = f"{caption} The histograms cover the last quarter of the records. {conditions}"
    yield NamedFigure("fig2_gradients", "Fig. 2: gradient distribution", histogram, _histogram(frames))
    by_layer = f"{caption} Root mean square per layer; layers run from input to output. {conditions}"
    yield NamedFigure("gradient_depth", "Gradients by depth over the training", by_layer, _depth(frames))


def _histogram(frames: dict[str, pd.DataFrame]) -> Figure:
    """Draw the gradient distributions without and with intermediate outputs, as in the paper, and their magnitudes.

    All are taken over the last quarter of the records. Both distributions have the same axes. The third panel, not in
    the paper, compares the magnitudes.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    bins = {variant: _last_bins(frames[variant]) for variant in _VARIANTS}
    limit = max(_quantile(frame, 0.99) for frame in bins.values())
    edges = np.linspace(-limit, limit, 82)
    for axis, (variant, label) in zip(axes, _VARIANTS.items(), strict=False):
        frame = bins[variant]
        axis.stairs(_rebin(frame, edges), edges, fill=True, color=_STYLES[variant]["color"])
        axis.set(title=label, xlabel="gradient", yscale="log")
        magnitudes = frame.assign(
            low=frame[["low", "high"]].abs().min(axis=1), high=frame[["low", "high"]].abs().max(axis=1)
        )
        decades = np.logspace(-8, 2, 41)
        axes[2].stairs(
            _rebin(magnitudes, decades),
            decades,
            color=_STYLES[variant]["color"],
            label=label,
            linewidth=1.5,
            linestyle=_STYLES[variant]["linestyle"],
        )
    shared = [axis.get_ylim() for axis in axes[:2]]
    for axis in axes[:2]:
        axis.set_ylim(max(min(low for low, _ in shared), 1e-3), max(high for _, high in shared))
    axes[0].set_ylabel("share of the gradients (%)")
    axes[2].set(title="magnitudes", ylabel="share of the gradients (%)", xlabel="|gradient|", xscale="log")
    axes[2].legend(fontsize=7, loc="upper left")
    axes[2].margins(y=0.35)
    return figure


def _last_bins(frame: pd.DataFrame) -> pd.DataFrame:
    bins = frame[frame["kind"] == "bin"]
    steps = sorted(bins["step"].unique())
    last = bins[bins["step"] >= steps[-max(1, len(steps) // 4)]]
    return last.groupby(["low", "high"])["count"].sum().reset_index()


def _quantile(bins: pd.DataFrame, share: float) -> float:
    """Return the magnitude below which `share` of the gradients are."""
    bins = bins.assign(magnitude=bins[["low", "high"]].abs().max(axis=1)).sort_values("magnitude")
    return float(bins["magnitude"].iloc[int(np.searchsorted(bins["count"].cumsum(), share * bins["count"].sum()))])


def _rebin(bins: pd.DataFrame, edges: np.ndarray) -> np.ndarray:
    """Return the percentage of gradients between `edges`, with each recorded bin spread evenly over its width."""
    bins = bins.sort_values("low")
    points = np.unique(bins[["low", "high"]].to_numpy())
    mass = np.zeros(len(points))
    for low, high, count in bins[["low", "high", "count"]].itertuples(index=False):
        inside = (points > low) & (points <= high)
        mass[inside] += count * np.diff(points, prepend=points[0])[inside] / (high - low)
    cumulative = np.interp(edges, points, mass.cumsum())
    return 100 * np.diff(cumulative) / mass.sum()


def _depth(frames: dict[str, pd.DataFrame]) -> Figure:
    """Draw RMS gradients by depth: a heat map over the training for each variant, and the medians."""
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout="constrained", width_ratios=(1, 1, 1.1))
    grids = {variant: _by_layer(frames[variant]) for variant in _VARIANTS}
    positive = np.concatenate([grid.to_numpy().ravel() for grid in grids.values()])
    positive = positive[positive > 0]
    scale = LogNorm(positive.min(), positive.max())
    for axis, (variant, label) in zip(axes, _VARIANTS.items(), strict=False):
        grid = grids[variant]
        # Darker means larger, in greyscale too.
        mesh = axis.pcolormesh(grid.columns, range(len(grid)), grid, norm=scale, cmap="viridis_r", shading="nearest")
        axis.set(title=label, xlabel="step")
        axis.set_yticks(range(len(grid)), grid.index, fontsize=6)
        axis.invert_yaxis()
        axis.grid(False)
        median = grid.median(axis=1)
        axes[2].plot(median, range(len(median)), markersize=3, **_STYLES[variant])
    figure.colorbar(mesh, ax=axes[1], label="RMS gradient")
    layers = list(grids["with"].index)
    axes[2].set_yticks(range(len(layers)), layers, fontsize=6)
    axes[2].invert_yaxis()
    axes[2].set(title="median over the training", xlabel="RMS gradient", xscale="log")
    add_legend(figure, axes[2].get_lines(), list(_VARIANTS.values()), "outside lower right")
    return figure


def _by_layer(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the RMS gradient of each layer (rows, from input to output) at each recorded step (columns)."""
    layers = frame[frame["kind"] == "layer"]
    # Only one of the variants has heads.
    body = layers[~layers["layer"].str.startswith("heads")].sort_values(["step", "depth"])
    rms = body["norm"] / np.sqrt(body["count"])
    names = body["layer"].str.removesuffix(".weight").str.removesuffix(".0")
    body = body.assign(rms=rms, name=names)
    return body.pivot(index="name", columns="step", values="rms").loc[list(dict.fromkeys(body["name"]))]
