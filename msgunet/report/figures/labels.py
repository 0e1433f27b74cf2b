"""Labels next to points, each where it overlaps no other."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

# Not above or below, where the interval is.
_SIDES = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0))
_DISTANCES = (5, 12, 19, 26, 34, 44, 56)  # points
_RADIUS = 3.5  # of a marker, in points
_ALIGNED = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}
_FRAME = {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.7, "linewidth": 0}
_LINE = {"linewidth": 0.6, "color": "0.3", "zorder": 6}


def place_labels(axis: Axes, points: np.ndarray, texts: Sequence[str], others: np.ndarray) -> list[Artist] | None:
    """Write a text next to each point, within the axes, where it overlaps no point and no other text.

    The layout of the figure must be final. A text that is not beside its point, or that could belong to another one, is
    connected to its own by a line.

    Args:
        axis: the axes.
        points: (N, 2), in data coordinates.
        texts: one for each point.
        others: (M, 2), further markers that no text may cover.

    Returns:
        The texts and lines, or None if a text found no place; then none is drawn.

    """
    renderer = axis.figure.canvas.get_renderer()
    radius = _RADIUS * axis.figure.dpi / 72
    window = axis.get_window_extent(renderer)
    places = axis.transData.transform(np.concatenate([points, others.reshape(-1, 2)]))
    taken = [Bbox([place - radius, place + radius]) for place in places]
    labels: list[Artist] = []
    for index, (point, text) in enumerate(zip(points, texts, strict=True)):
        label = axis.annotate(text, point, (0, 0), textcoords="offset points", fontsize=6.5, zorder=7, bbox=_FRAME)
        # The layout must not depend on labels, which are placed in the finished one.
        label.set_in_layout(False)
        labels.append(label)
        for distance, (x, y) in itertools.product(_DISTANCES, _SIDES):
            label.xyann = distance * x, distance * y
            label.set(ha=_ALIGNED[x][0], va=_ALIGNED[y][1])
            box = label.get_window_extent(renderer)
            inside = window.x0 <= box.x0 and box.x1 <= window.x1 and window.y0 <= box.y0 and box.y1 <= window.y1
            if inside and not box.count_overlaps(taken):
                break
        else:
            for drawn in labels:
                drawn.remove()
            return None
        taken.append(box)
        centre = (box.min + box.max) / 2
        distances = np.hypot(*(places[: len(points)] - centre).T)
        # A point at nearly the same place could be meant as well.
        if distance > _DISTANCES[0] or np.sum(distances < distances[index] + radius) > 1:
            labels.append(_line(axis, places[index], np.clip(places[index], box.min, box.max)))
    return labels


def _line(axis: Axes, start: np.ndarray, end: np.ndarray) -> Artist:
    """Draw a line between two places in pixels, in data coordinates, since a PDF has other pixels."""
    line = Line2D(*axis.transData.inverted().transform([start, end]).T, **_LINE)
    line.set_in_layout(False)
    # Unlike `add_line`, this leaves the limits of the axes alone.
    return axis.add_artist(line)
