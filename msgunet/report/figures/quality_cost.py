"""Quality against time and memory."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from msgunet.core.metrics import METRICS, headings
from msgunet.report.collect import Collection
from msgunet.report.figures.labels import place_labels
from msgunet.report.figures.style import add_legend, plain_ticks, styles, wrapped


def quality_cost(collection: Collection, means: pd.DataFrame, trainings: pd.DataFrame) -> Figure:
    """Draw the means of all methods against time and memory, in one panel for each metric.

    Titles stand next to the points if there is space for all of them. Otherwise the points have numbers, and a legend
    below lists them in the order of the rows.

    Args:
        collection: the results.
        means: one row for each method, with its means, their intervals and the cost.
        trainings: one row for each training of the methods that have several.

    """
    metrics = collection.settings["metrics"]
    trainings = trainings.merge(means[["entry", "latency_ms"]], on="entry")
    shape = (3.3 * len(metrics), 3.3)
    figure, axes = plt.subplots(1, len(metrics), figsize=shape, squeeze=False, layout="constrained")
    style_of, names = styles(collection), headings(metrics)
    panels = dict(zip(metrics, axes[0], strict=True))
    for metric, axis in panels.items():
        defined = means[means[metric].notna()]
        _pareto(axis, defined.sort_values("latency_ms"), metric)
        for row in defined.to_dict("records"):
            of_row = trainings.loc[trainings["entry"] == row["entry"], metric]
            _point(axis, row, metric, of_row, row["peak_memory_mib"] / means["peak_memory_mib"].max(), style_of)
        axis.set(xscale="log", xlabel="time per image (ms)", ylabel=names[metric])
        axis.margins(0.45, 0.2)
        plain_ticks(axis.xaxis)
    memory = [f"{value:,.0f} MiB" for value in means["peak_memory_mib"]]
    titles = [f"{wrapped(title, 24)}\n{size}" for title, size in zip(means["title"], memory, strict=True)]
    if not _label(figure, panels, means, trainings, titles):
        numbers = [str(i + 1) for i in range(len(means))]
        lines = [f"{i}  {title}, {size}" for i, title, size in zip(numbers, means["title"], memory, strict=True)]
        markers = [Line2D([], [], **{**style_of[entry], "linestyle": ""}) for entry in means["entry"]]
        add_legend(figure, markers, lines, "outside lower center")
        _label(figure, panels, means, trainings, numbers)
    return figure


def _point(axis: Axes, row: dict, metric: str, trainings: pd.Series, share: float, style_of: dict[str, dict]) -> None:
    """Draw a method: its mean with the interval, the means of its trainings, and a bubble for its share of memory."""
    x, y, style = row["latency_ms"], row[metric], style_of[row["entry"]]
    colour = {"color": style["color"]}
    axis.errorbar(x, y, [[y - row[f"{metric}_low"]], [row[f"{metric}_high"] - y]], **colour, linewidth=1, capsize=2)
    axis.scatter(x, y, 25 + 500 * share, **colour, alpha=0.35, linewidths=0)
    edge = {"edgecolors": style["color"], "linewidths": 0.8, "zorder": 4}
    axis.scatter([x] * len(trainings), trainings, 22, color="white", marker="D", **edge)
    # Above the diamonds, which are larger: both are seen where a training's mean is that of all.
    axis.scatter(x, y, 14, **colour, marker=style["marker"], zorder=5)


def _label(
    figure: Figure, panels: dict[str, Axes], means: pd.DataFrame, trainings: pd.DataFrame, texts: Sequence[str]
) -> bool:
    """Write a text next to each method's point in all panels; draw none and return False if one finds no place."""
    figure.draw_without_rendering()
    drawn = []
    for metric, axis in panels.items():
        defined = means[metric].notna()
        points, others = (frame[["latency_ms", metric]].dropna().to_numpy(float) for frame in (means, trainings))
        labels = place_labels(axis, points, list(itertools.compress(texts, defined)), others)
        if labels is None:
            for label in drawn:
                label.remove()
            return False
        drawn += labels
    return True


def _pareto(axis: Axes, rows: pd.DataFrame, metric: str) -> None:
    quality = rows[metric] if METRICS[metric].higher_is_better else -rows[metric]
    best = rows[quality > quality.cummax().shift(fill_value=-np.inf)]
    axis.plot(best["latency_ms"], best[metric], color="0.4", linewidth=1, linestyle="--", zorder=0)
