"""The cost of the generators at every size."""

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.figure import Figure

from msgunet.core.provenance import device_of
from msgunet.report.collect import Collection
from msgunet.report.figures.speed import speed_figure
from msgunet.report.figures.style import NamedFigure, add_legend, plain_ticks, styles, wrapped
from msgunet.report.tables import Tables

_COLUMNS = {"tflop": "operations (TFLOP)", "latency_ms": "time (ms)", "peak_memory_mib": "peak memory (MiB)"}


def draw(collection: Collection, tables: Tables) -> Iterator[NamedFigure]:
    """Yield operations, time and memory by number of pixels, and the results of `msgunet bench` if there are any."""
    speed = collection.speed()
    if speed is not None:
        yield speed_figure(speed, collection.titles)
    cost = tables.frames["cost"]
    if cost.empty:
        return
    generators = cost[cost["part"] == "generator"]
    one_size = len(generators[["width", "height"]].drop_duplicates()) == 1
    at = (
        "{width}×{height}".format(**generators.iloc[0])
        if one_size
        else "every size of the suite that it can be built for"
    )
    caption = (
        f"Cost of one image for each generator at {at}, in fp32; 1 MAC = 2 FLOP. {device_of(cost)}, commit "
        f"{cost['commit'].iloc[0]}."
    )
    if one_size:
        yield NamedFigure("cost_by_size", f"Cost at {at}", caption, _at_one_size(collection, generators))
    else:
        yield NamedFigure("cost_by_size", "Cost by size", caption, _by_size(collection, generators))


def _at_one_size(collection: Collection, cost: pd.DataFrame) -> Figure:
    """Draw a bar for each method, since curves by size would be single points."""
    columns = {name: label for name, label in _COLUMNS.items() if name in cost}
    style_of = {entry: style for entry, style in styles(collection).items() if (cost["entry"] == entry).any()}
    rows = cost.set_index("entry").loc[list(style_of)]
    titles = [wrapped(collection.titles[entry], 32) for entry in style_of]
    lines = max(title.count("\n") + 1 for title in titles)
    shape = (1.5 + 2.6 * len(columns), 0.7 + max(0.26, 0.17 * lines) * len(rows))
    figure, axes = plt.subplots(1, len(columns), figsize=shape, squeeze=False, sharey=True, layout="constrained")
    for axis, (column, label) in zip(axes[0], columns.items(), strict=True):
        bars = axis.barh(range(len(rows)), rows[column], 0.6, color=[style["color"] for style in style_of.values()])
        texts = [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in rows[column]]
        axis.bar_label(bars, texts, padding=3, fontsize=7)
        axis.set(xlabel=label, xlim=(0, 1.3 * rows[column].max()))
        axis.set_yticks(range(len(rows)), titles, fontsize=8)
        axis.grid(visible=False, axis="y")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
    axes[0][0].invert_yaxis()
    return figure


def _by_size(collection: Collection, cost: pd.DataFrame) -> Figure:
    columns = {name: label for name, label in _COLUMNS.items() if name in cost}
    figure, axes = plt.subplots(1, len(columns), figsize=(3.1 * len(columns), 2.9), squeeze=False, layout="constrained")
    sizes = cost[["width", "height"]].drop_duplicates()
    sizes = sizes.assign(pixels=sizes["width"] * sizes["height"]).sort_values("pixels")
    labels = [f"{w}×{h}" for w, h in zip(sizes["width"], sizes["height"], strict=True)]
    for axis, (column, label) in zip(axes[0], columns.items(), strict=True):
        for entry, style in styles(collection).items():
            rows = cost[cost["entry"] == entry].copy()
            rows["pixels"] = rows["width"] * rows["height"]
            rows = rows.sort_values("pixels")
            axis.plot(rows["pixels"], rows[column], **style)
        axis.set(xscale="log", yscale="log", ylabel=label)
        axis.set_xticks(sizes["pixels"], labels, rotation=30, ha="right", fontsize=7)
        axis.minorticks_off()
        plain_ticks(axis.yaxis)
    titles = [collection.titles[entry] for entry in styles(collection)]
    add_legend(figure, axes[0][0].get_lines(), titles, "outside lower center")
    return figure
