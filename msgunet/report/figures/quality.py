"""Quality of the methods: per image, and against their cost."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from msgunet.core.metrics import headings
from msgunet.core.provenance import device_of
from msgunet.report.collect import Collection, Run
from msgunet.report.figures.quality_cost import quality_cost
from msgunet.report.figures.style import NamedFigure, styles, wrapped
from msgunet.report.summary import per_image, status_of
from msgunet.report.tables import Tables

_SEEDS = "White diamonds: the mean of each training. "


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
            f"{_SEEDS if several else ''}{conditions}.",
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
                quality_cost(collection, merged, _of_trainings(tables, dataset, protocol)),
            )


def _of_trainings(tables: Tables, dataset: str, protocol: str) -> pd.DataFrame:
    """Return the means of each training of the methods that have several."""
    frame = tables.frames["seeds"]
    frame = frame[(frame["dataset"] == dataset) & (frame["protocol"] == protocol)]
    return frame[frame.duplicated("entry", keep=False)]


def _distributions(collection: Collection, rows: dict[str, list[Run]], protocol: str) -> Figure:
    metrics = collection.settings["metrics"]
    titles = [wrapped(runs[0].title, 32) for runs in rows.values()]
    several = any(len(runs) > 1 for runs in rows.values())
    lines = max(title.count("\n") + 1 for title in titles)
    row_height = max(0.44 if several else 0.34, 0.17 * lines)
    shape = (3.1 * len(metrics), 1.2 + row_height * len(rows))
    figure, axes = plt.subplots(1, len(metrics), figsize=shape, squeeze=False, sharey=True, layout="constrained")
    style_of = styles(collection)
    draw_random = np.random.default_rng(0)
    for axis, (metric, heading) in zip(axes[0], headings(metrics).items(), strict=True):
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
                # Below the box, where they cover nothing.
                edge = {"edgecolors": "black", "linewidths": 0.6, "zorder": 4}
                axis.scatter(by_training.mean(), [place + 0.41] * len(runs), 14, color="white", marker="D", **edge)
            size = 9 if len(values) < 200 else 3
            axis.scatter(values, jitter, size, color=style["color"], marker=style["marker"], alpha=0.6, linewidths=0.5)
        axis.set_xlabel(heading)
        axis.set_yticks(range(len(rows)), titles)
        axis.set_ylim(len(rows) - 0.45, -0.55)
    return figure
