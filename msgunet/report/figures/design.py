"""Differences of all trained entries from the suite's reference entry, as a forest plot."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msgunet.core.metrics import METRICS
from msgunet.core.table import number
from msgunet.report.collect import Collection
from msgunet.report.design import direction_note, reason_for_none, seeds_note
from msgunet.report.figures.style import NamedFigure, styles, wrapped
from msgunet.report.files import compared
from msgunet.report.tables import Tables

# Panels next to each other: more would be too narrow on a page.
_PER_LINE = 4
_PANEL, _TITLES = 1.75, 2.0  # widths in inches
_LINE, _AROUND = 0.12, 0.2  # height of a line of a title, and around a title
_SMALL = 7
# Yellow is seen on white only with an outline.
_OUTLINE = "0.35"
# These markers have little space inside, where white must be told from colour.
_AREAS = {"*": 75, "P": 45, "X": 45}


def draw(collection: Collection, tables: Tables) -> Iterator[NamedFigure]:
    """Yield one figure for each data set on which the reference entry and another one are finished."""
    for dataset in compared(collection.settings):
        protocol, frame = collection.protocols(dataset)[0], tables.frames["design"]
        rows = frame[(frame["dataset"] == dataset) & (frame["protocol"] == protocol)].to_dict("records")
        if rows[0]["status"] != "done" or all(row["status"] != "done" for row in rows[1:]):
            continue
        title, several = collection.titles[collection.reference], collection.several_seeds()
        dots = "Dots: the differences of each pair of one training of both. " if several else ""
        lower = "".join(f"{note} " for note in direction_note(collection.settings["metrics"]))
        yield NamedFigure(
            f"design_{dataset}",
            f"Comparison with {title}, {dataset}",
            f"Mean difference, entry − {title}, on the same test images, with its 95 % interval; {protocol} protocol. "
            f"First row: the means of {title}. Filled: significant after Holm's correction over the comparisons with "
            f"{title} (p below 0.05, zero outside the interval, all trainings agree on the sign); white: not. {dots}"
            f"{lower}{seeds_note(collection)} {collection.data_conditions(dataset)}; {collection.environment()}.",
            _forest(collection, rows, protocol, tables.frames["seeds"]),
        )


def _forest(collection: Collection, rows: list[dict[str, Any]], protocol: str, trainings: pd.DataFrame) -> Figure:
    metrics = collection.settings["metrics"]
    titles = [wrapped(row["title"], 34) for row in rows]
    titles[0] = wrapped(f"{rows[0]['title']} (reference)", 34)
    heights = np.array([_AROUND + _LINE * (title.count("\n") + 1) for title in titles])
    places = heights.cumsum() - heights / 2
    columns = min(len(metrics), _PER_LINE)
    lines = -(-len(metrics) // columns)
    shape = (_TITLES + _PANEL * columns, (heights.sum() + 0.75) * lines)
    figure, axes = plt.subplots(lines, columns, figsize=shape, squeeze=False, sharey=True, layout="constrained")
    for axis in axes.flat[len(metrics) :]:
        axis.remove()
    style_of = styles(collection)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        # Bands, so that the eye finds a title's row in the last panel.
        for place, height in list(zip(places, heights, strict=True))[::2]:
            axis.axhspan(place - height / 2, place + height / 2, color="0.95", linewidth=0, zorder=0)
        axis.axvline(0, color="0.3", linewidth=0.8, zorder=1)
        own = number(rows[0][metric], f".{METRICS[metric].digits}f", "undefined").text
        _word(axis, places[0], own)
        for place, row in zip(places[1:], rows[1:], strict=True):
            if reason := reason_for_none(row, metric, rows[0], protocol):
                _word(axis, place, reason)
            else:
                pairs = _pairs(trainings, row, rows[0], metric)
                _row(axis, place, row, metric, pairs, style_of[row["entry"]])
        axis.margins(x=0.08)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(_label(metric), fontsize=_SMALL + 1)
        axis.locator_params("x", nbins=5)
        axis.set_yticks(places, titles)
        axis.tick_params("both", labelsize=_SMALL, length=0)
        axis.set_ylim(heights.sum(), 0)
    return figure


def _label(metric: str) -> str:
    sides = "← worse    better →" if METRICS[metric].higher_is_better else "← better    worse →"
    return f"{METRICS[metric].heading}, difference\n{sides}"


def _word(axis: Axes, place: float, text: str) -> None:
    box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "linewidth": 0}
    axis.text(0, place, text, ha="center", va="center", fontsize=_SMALL, color="0.2", bbox=box)


def _row(
    axis: Axes, place: float, row: Mapping[str, Any], metric: str, pairs: np.ndarray, style: Mapping[str, Any]
) -> None:
    """Draw an entry: its difference with the interval, and below it the pairs of one training of both."""
    colour, filled = style["color"], row[f"{metric}_significant"]
    value, low, high = (row[f"{metric}_difference{end}"] for end in ("", "_low", "_high"))
    if pd.notna(low):
        axis.plot([low, high], [place, place], color=_OUTLINE, linewidth=2.4, zorder=2)
        axis.plot([low, high], [place, place], color=colour, linewidth=1.4, zorder=3)
    for width, edge in ((2, _OUTLINE), (1, colour)):
        look = {"marker": style["marker"], "edgecolors": edge, "linewidths": width, "zorder": 4}
        axis.scatter(value, place, _AREAS.get(style["marker"], 28), color=colour if filled else "white", **look)
    axis.scatter(pairs, np.full(len(pairs), place + 0.6 * _AROUND), 5, color="0.25", alpha=0.7, linewidths=0)


def _pairs(trainings: pd.DataFrame, row: Mapping[str, Any], reference: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return the differences of each pair of one training of the entry and of the reference; none of a single pair."""
    here = trainings[(trainings["dataset"] == row["dataset"]) & (trainings["protocol"] == row["protocol"])]
    means = [here.loc[here["entry"] == one["entry"], metric].to_numpy(float) for one in (row, reference)]
    pairs = np.subtract.outer(*means).ravel()
    return pairs if len(pairs) > 1 else pairs[:0]
