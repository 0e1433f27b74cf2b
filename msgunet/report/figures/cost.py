"""The cost of the generators at every size."""

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from msgunet.core.provenance import device_of
from msgunet.report.collect import Collection
from msgunet.report.figures.speed import speed_figure
from msgunet.report.figures.style import NamedFigure, add_legend, plain_ticks, styles
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
    caption = (
        "Cost of one image for each generator at every size of the suite that it can be built for, in fp32; "
        f"1 MAC = 2 FLOP. {device_of(cost)}, commit {cost['commit'].iloc[0]}."
    )
    yield NamedFigure("cost_by_size", "Cost by size", caption, _by_size(collection, cost[cost["part"] == "generator"]))


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
