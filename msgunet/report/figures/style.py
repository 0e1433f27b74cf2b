"""The style of each method: one colour, marker and line, the same in all figures."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import ticker
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from msgunet.report.collect import Collection

# Okabe and Ito's colours, which colour-blind people can distinguish, ordered so that neighbours also differ in
# greyscale. Markers and lines distinguish the methods without colour.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
# One more marker than colours, so that a ninth method differs from the first in every figure.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
# Heat maps get darker with larger values, in colour and in greyscale.
HEAT = "Blues"
# Pixels around the label of a tick that no other label reaches.
_GAP = 3
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its name, title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure


def styles(collection: Collection) -> dict[str, dict[str, Any]]:
    """Return colour, marker and line of every trained entry as arguments of `plot`, assigned in the suite's order."""
    trained = dict.fromkeys(run.settings.entry for run in collection.runs if run.trainable)
    return {
        entry: {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
        for entry, colour, marker, line in zip(
            trained, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), itertools.cycle(_LINES), strict=False
        )
    }


def wrapped(text: str, width: int, cut: bool = False) -> str:
    """Break a text between words, not at hyphens, into lines of at most `width` characters.

    A longer word has a longer line of its own. `cut` breaks it, for places where nothing can be wider.
    """
    return "\n".join(textwrap.wrap(text, width, break_long_words=cut, break_on_hyphens=False))


def add_legend(figure: Figure, handles: Sequence[Artist], texts: Sequence[str], place: str) -> None:
    """Add a legend outside the axes, in as many columns as fit, and make the figure higher by its height.

    Args:
        figure: the figure, with a constrained layout.
        handles: the lines or markers. They are paired with the texts by hand: of labels, a legend would leave out those
            that begin with _.
        texts: one for each handle; long ones are broken to fit into the figure's width.
        place: a location of `Figure.legend` that begins with "outside".

    """
    width, height = figure.get_size_inches()
    texts = [wrapped(text, int(17 * width) - 8, cut=True) for text in texts]
    for columns in range(len(texts), 0, -1):
        legend = figure.legend(handles, texts, loc=place, ncols=columns, fontsize=7)
        box = legend.get_window_extent(figure.canvas.get_renderer())
        if columns == 1 or box.width < figure.bbox.width:
            figure.set_figheight(height + box.height / figure.dpi)
            return
        legend.remove()


class _Powers(ticker.LogFormatter):
    """Labels such as 10⁻³ and 2×10⁻³, without mathematical markup; which ticks get one is matplotlib's choice."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        if not super().__call__(x, pos):
            return ""
        return _power(x)


def plain_powers(figure: Figure) -> None:
    """Label logarithmic axes without mathematical markup, which the figures do not read (`text.parse_math`)."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        for get, set_ in (
            (axis.get_major_formatter, axis.set_major_formatter),
            (axis.get_minor_formatter, axis.set_minor_formatter),
        ):
            if isinstance(old := get(), ticker.LogFormatterMathtext):
                set_(_Powers(labelOnlyBase=old.labelOnlyBase))


def plain_ticks(axis: Axis) -> None:
    """Put the ticks of a logarithmic axis at 1, 2 and 5 of each decade, labelled with plain numbers.

    Where these are too many, `thin_ticks` leaves some out; the locator itself would leave out all.
    """
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=100))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_locator(ticker.NullLocator())


def _plain(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e6 else _power(value)


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}×{power}"


def thin_ticks(figure: Figure) -> None:
    """Label fewer ticks of logarithmic axes where their labels would touch. The layout must have been computed."""
    renderer = figure.canvas.get_renderer()
    for axis in (axis for axes in figure.axes if axes.axison for axis in (axes.xaxis, axes.yaxis)):
        if not isinstance(axis.get_major_locator(), ticker.LogLocator):
            continue
        low, high = sorted(axis.get_view_interval())
        shown = {}
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if tick.label1.get_visible() and tick.label1.get_text() and low <= tick.get_loc() <= high:
                shown[tick.get_loc()] = tick.label1
        boxes = {value: shown[value].get_window_extent(renderer).padded(_GAP) for value in sorted(shown)}
        kept = _apart(boxes)
        if len(kept) < len(boxes):
            axis.set_major_locator(ticker.FixedLocator(kept))
            axis.set_major_formatter(ticker.FixedFormatter([shown[value].get_text() for value in kept]))
            axis.set_minor_locator(ticker.NullLocator())


def _apart(boxes: Mapping[float, Bbox]) -> list[float]:
    """Return the most values whose labels do not touch: all, 1, 2 and 5 of each decade, 1 of each, or every n-th."""
    values = list(boxes)
    rounds = [[value for value in values if f"{value:.6e}"[0] in digits] for digits in ("125", "1")]
    choices = [values, *(some for some in rounds if len(some) > 1)]
    choices += [values[::step] for step in range(2, len(values) + 1)]
    neighbours = ((some, itertools.pairwise(boxes[value] for value in some)) for some in choices)
    return next((some for some, pairs in neighbours if not any(a.overlaps(b) for a, b in pairs)), values)
