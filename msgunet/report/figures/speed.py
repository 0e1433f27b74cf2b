"""The speed of the engine, from the rows of `msgunet bench`."""

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from msgunet.core.provenance import device_of
from msgunet.report.figures.style import NamedFigure, plain_ticks, wrapped

_PRECISIONS = {"fp32": "#0072B2", "tf32": "#E69F00", "bf16": "#009E73"}
_WAYS = {"plain": "o", "engine": "s", "compiled": "^"}
_PARTS = {"inference": "inference, one image", "training": "training step", "translate": "from file to file, one image"}


def speed_figure(frame: pd.DataFrame, titles: Mapping[str, str]) -> NamedFigure:
    """Draw the time of every network and size in each implementation and precision, with the device limit."""
    parts = [part for part in _PARTS if (frame["part"] == part).any()]
    names = frame["entry"].map(lambda entry: wrapped(titles.get(entry, entry), 32))
    frame = frame.assign(row=names + "\n" + frame["width"].astype(str) + "×" + frame["height"].astype(str))
    rows = list(dict.fromkeys(frame["row"]))
    lines = max(row.count("\n") + 1 for row in rows)
    shape = (1.5 + 3.2 * len(parts), 1.3 + max(0.55, 0.15 * lines) * len(rows))
    figure, axes = plt.subplots(1, len(parts), figsize=shape, squeeze=False, sharey=True, layout="constrained")
    for axis, part in zip(axes[0], parts, strict=True):
        _times(axis, frame[frame["part"] == part], rows)
        axis.set(title=_PARTS[part], xscale="log", xlabel="time (ms)")
        plain_ticks(axis.xaxis)
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
    axes[0][0].invert_yaxis()
    _legend(figure, frame)
    caption = (
        "Median time of passes or steps taken in turns; bars span the quartiles. Black: device limit, the least time "
        "that the device's measured rate of operations and copy bandwidth allow in that precision. Plain: "
        "straightforward PyTorch; engine: this project's optimised path; compiled: the engine under torch.compile. "
        f"{device_of(frame)}, commit {frame['commit'].iloc[0]}."
    )
    return NamedFigure("speed", "Speed of training steps and inference", caption, figure)


def _times(axis: Axes, frame: pd.DataFrame, rows: list[str]) -> None:
    precisions = [precision for precision in _PRECISIONS if (frame["precision"] == precision).any()]
    for row in frame.to_dict("records"):
        place = rows.index(row["row"]) + 0.22 * (precisions.index(row["precision"]) - (len(precisions) - 1) / 2)
        colour, empty = _PRECISIONS[row["precision"]], row["way"] == "plain"
        axis.plot([row["q25_ms"], row["q75_ms"]], [place, place], color=colour, linewidth=1.2)
        axis.plot(row["median_ms"], place, _WAYS[row["way"]], color=colour, markersize=5, mfc="w" if empty else colour)
        axis.plot(row["limit_ms"], place, "|", color="black", markersize=7)


def _legend(figure: Figure, frame: pd.DataFrame) -> None:
    used = {key: set(frame[key]) for key in ("precision", "way")}
    colours = [
        Line2D([], [], color=colour, linewidth=3, label=precision)
        for precision, colour in _PRECISIONS.items()
        if precision in used["precision"]
    ]
    markers = [
        Line2D([], [], color="0.3", marker=marker, linestyle="", mfc="w" if way == "plain" else "0.3", label=way)
        for way, marker in _WAYS.items()
        if way in used["way"]
    ]
    limit = Line2D([], [], color="black", marker="|", linestyle="", label="limit")
    figure.legend(handles=[*colours, *markers, limit], loc="outside right center", fontsize=7)
