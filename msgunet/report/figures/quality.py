"""Quality of the methods: per image, and against their cost."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msgunet.core.metrics import METRICS
from msgunet.core.provenance import device_of
from msgunet.report.collect import Collection, Run
from msgunet.report.figures.style import NamedFigure, plain_ticks, styles
from msgunet.report.summary import per_image, status_of
from msgunet.report.tables import Tables

_SEEDS = "Diamonds: the mean of each training. "


def draw(collection: Collection, tables: Tables) -> Iterator[NamedFigure]:
    """Yield, for each data set, the metrics of all test images, and the means against time and memory."""
    for dataset in collection.datasets:
        rows = {name: runs for name, runs in collection.runs_of(dataset).items() if status_of(runs) == "done"}
        if not rows:
            continue
        conditions = f"{collection.data_conditions(dataset)}; {collection.environment()}"
        protocol = collection.protocols(dataset)[0]
        several = any(len(runs) > 1 for runs in rows.values())
        yield NamedFigure(
            f"distributions_{dataset}",
            f"Metrics of every test image, {dataset}",
            f"One dot per test image{' (trainings averaged)' if several else ''}, {protocol} protocol. Boxes show the "
            "quartiles with the median; whiskers extend to the last image within 1.5 times the box. "
            f"{'Diamonds: the mean of each training. ' if several else ''}{conditions}.",
            _distributions(collection, rows, protocol),
        )
        protocol = "full" if "full" in collection.settings["protocols"] else protocol
        cost = tables.frames["cost"]
        summary = tables.frames["table1"]
        means = summary[(summary["dataset"] == dataset) & (summary["protocol"] == protocol) & (summary["trained"])]
        means = means[means["status"] == "done"]
        if "latency_ms" in cost and len(means):
            generators = cost[cost["part"] == "generator"]
            merged = means.merge(
                generators.drop(columns=["suite", "device", "commit"]), on=["entry", "width", "height"]
            )
            yield NamedFigure(
                f"quality_cost_{dataset}",
                f"Quality against time and memory, {dataset}",
                f"Means over test images ({protocol} protocol) against the time of one image through the generator at "
                f"its own size, in fp32. Bubbles: peak memory. Bars: 95 % intervals. {_SEEDS if several else ''}Dashed "
                "line: methods that no other method beats in both speed and quality. Timed on "
                f"{device_of(cost)}. {conditions}.",
                _quality_cost(collection, merged, _of_trainings(tables, dataset, protocol)),
            )


def _of_trainings(tables: Tables, dataset: str, protocol: str) -> dict[str, pd.DataFrame]:
    """Return the means of each training of the methods that have several."""
    frame = tables.frames["seeds"]
    frame = frame[(frame["dataset"] == dataset) & (frame["protocol"] == protocol)]
    return {str(entry): part for entry, part in frame.groupby("entry") if len(part) > 1}


def _distributions(collection: Collection, rows: dict[str, list[Run]], protocol: str) -> Figure:
    metrics = collection.settings["metrics"]
    shape = (3.1 * len(metrics), 1.2 + 0.34 * len(rows))
    figure, axes = plt.subplots(1, len(metrics), figsize=shape, squeeze=False, sharey=True, layout="constrained")
    style_of = styles(collection)
    draw_random = np.random.default_rng(0)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for place, (entry, runs) in enumerate(rows.items()):
            style = style_of.get(entry, {"color": "0.45", "marker": "x"})
            by_training = per_image(runs, protocol, metric).dropna()
            values = by_training.mean(axis=1).to_numpy()
            if not len(values):
                continue
            axis.boxplot(
                values,
                positions=[place],
                orientation="horizontal",
                widths=0.6,
                showfliers=False,
                medianprops={"color": "black"},
            )
            jitter = place + draw_random.uniform(-0.2, 0.2, len(values))
            if len(runs) > 1:
                edge = {"edgecolors": "black", "linewidths": 0.6, "zorder": 4}
                axis.scatter(by_training.mean(), [place] * len(runs), 26, color="white", marker="D", **edge)
            size = 9 if len(values) < 200 else 3
            axis.scatter(values, jitter, size, color=style["color"], marker=style["marker"], alpha=0.6, linewidths=0.5)
        axis.set_xlabel(METRICS[metric].heading)
        axis.set_yticks(range(len(rows)), [runs[0].title for runs in rows.values()])
    axes[0][0].invert_yaxis()
    return figure


def _quality_cost(collection: Collection, merged: pd.DataFrame, trainings: dict[str, pd.DataFrame]) -> Figure:
    metrics = collection.settings["metrics"]
    shape = (3.3 * len(metrics), 3.3)
    figure, axes = plt.subplots(1, len(metrics), figsize=shape, squeeze=False, layout="constrained")
    largest = merged["peak_memory_mib"].max()
    for axis, metric in zip(axes[0], metrics, strict=True):
        defined = merged[merged[metric].notna()].sort_values("latency_ms")
        _pareto(axis, defined, metric)
        for row in defined.to_dict("records"):
            style = styles(collection)[row["entry"]]
            ends = [[row[metric] - row[f"{metric}_low"]], [row[f"{metric}_high"] - row[metric]]]
            axis.errorbar(row["latency_ms"], row[metric], ends, color=style["color"], linewidth=1, capsize=2)
            bubble = 25 + 500 * row["peak_memory_mib"] / largest
            axis.scatter(row["latency_ms"], row[metric], bubble, color=style["color"], alpha=0.35, linewidths=0)
            axis.scatter(row["latency_ms"], row[metric], 14, color=style["color"], marker=style["marker"], zorder=3)
            if (each := trainings.get(row["entry"])) is not None:
                edge = {"edgecolors": style["color"], "linewidths": 0.8, "zorder": 4}
                axis.scatter([row["latency_ms"]] * len(each), each[metric], 12, color="white", marker="D", **edge)
            text = f"{row['title']}\n{row['peak_memory_mib']:,.0f} MiB"
            place = {"xytext": (7, 7), "textcoords": "offset points"}
            axis.annotate(text, (row["latency_ms"], row[metric]), fontsize=6.5, **place)
        axis.set(xscale="log", xlabel="time per image (ms)", ylabel=METRICS[metric].heading)
        axis.margins(0.45, 0.2)
        plain_ticks(axis.xaxis)
    return figure


def _pareto(axis: Axes, rows: pd.DataFrame, metric: str) -> None:
    best = rows[rows[metric] > rows[metric].cummax().shift(fill_value=-np.inf)]
    axis.plot(best["latency_ms"], best[metric], color="0.4", linewidth=1, linestyle="--", zorder=0)
