"""Learning curves."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from msgunet.report.collect import Collection, Run
from msgunet.report.conditions import shared_conditions
from msgunet.report.figures.style import NamedFigure, add_legend, plain_ticks, styles
from msgunet.report.tables import Tables

_FIXED = {"step", "epoch", "learning_rate", "seconds"}
_TITLES = {
    "gan": "adversarial, generator",
    "l1": "L1",
    "features": "feature matching",
    "perceptual": "perceptual",
    "d_real": "discriminator, real pairs",
    "d_fake": "discriminator, generated pairs",
    "d_margin": "discriminator, margin",
}
_SEVERAL = "Each training has its own line; durations are those of a method's first training. "


def draw(collection: Collection, _: Tables) -> Iterator[NamedFigure]:
    """Yield, for each data set, every term of the losses over the training."""
    for dataset in collection.datasets:
        rows = collection.runs_of(dataset).values()
        rows = [trained for runs in rows if (trained := [run for run in runs if run.trainable and run.facts()])]
        if not rows:
            continue
        several = any(len(runs) > 1 for runs in rows)
        caption = (
            "Loss terms, averaged between two rows of history.csv and multiplied by their weights in the total loss. "
            "Levels of two methods are not comparable where their weights differ. "
            f"{_SEVERAL if several else ''}"
            f"{collection.data_conditions(dataset)}. {shared_conditions(rows)}; {collection.environment()}."
        )
        runs = [run for runs in rows for run in runs]
        terms, zero = _terms([run.table("history.csv") for run in runs])
        if not terms:
            continue
        names = ", ".join(_TITLES.get(term, term) for term in zero)
        caption += f" Zero throughout and left out: {names}." if zero else ""
        yield NamedFigure(
            f"learning_{dataset}", f"Learning curves, {dataset}", caption, _curves(collection, runs, terms)
        )


def _terms(tables: Sequence[pd.DataFrame]) -> tuple[list[str], list[str]]:
    """Return the terms of the losses in the order of their panels, and those that are always zero."""
    names = {c for table in tables for c in table if c not in _FIXED and not c.startswith("gradient_")}
    ordered = [term for term in _TITLES if term in names] + sorted(names - _TITLES.keys())
    zero = [term for term in ordered if all((table[term] == 0).all() for table in tables if term in table)]
    return [term for term in ordered if term not in zero], zero


def _curves(collection: Collection, runs: list[Run], terms: Sequence[str]) -> Figure:
    tables = [(run, run.table("history.csv")) for run in runs]
    columns = min(4, len(terms))
    rows = math.ceil(len(terms) / columns)
    shape = (2.5 * columns, 1.9 * rows + 0.1)
    figure, axes = plt.subplots(rows, columns, figsize=shape, squeeze=False, layout="constrained", sharex=True)
    style_of = styles(collection)
    shown = {}
    for axis, term in zip(axes.flat, terms, strict=False):
        for run, table in tables:
            if term in table:
                style = {**style_of[run.settings.entry], "markersize": 3, "linewidth": 1}
                percent = 100 * table["step"] / table["step"].max()
                (line,) = axis.plot(percent, table[term], markevery=max(1, len(table) // 6), **style)
                shown.setdefault(run.settings.entry, (line, run.title))
        axis.set(title=_TITLES.get(term, term))
        if _spans_decades(axis):
            axis.set_yscale("log")
            plain_ticks(axis.yaxis)
    for axis in axes.flat[len(terms) :]:
        axis.axis("off")
    # The lowest panel of each column.
    for axis in axes.flat[max(0, len(terms) - columns) : len(terms)]:
        axis.set_xlabel("training (%)")
        axis.tick_params(labelbottom=True)
    add_legend(figure, *zip(*shown.values(), strict=True), "outside upper center")
    return figure


def _spans_decades(axis: plt.Axes) -> bool:
    values = [value for line in axis.get_lines() for value in line.get_ydata()]
    return min(values) > 0 and max(values) > 20 * min(values)
