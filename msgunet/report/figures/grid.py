"""The metrics over the values of a grid, as heat maps."""

from collections.abc import Iterator

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from msgunet.core.metrics import METRICS, headings
from msgunet.report.collect import Collection
from msgunet.report.figures.style import HEAT, NamedFigure
from msgunet.report.grids import grid_cells, grid_conditions, grid_title, shade_range
from msgunet.report.tables import Tables


def draw(collection: Collection, tables: Tables) -> Iterator[NamedFigure]:
    """Yield one figure for each data set and grid that has results, with a heat map for each metric."""
    for dataset, name in collection.gridded():
        cells = grid_cells(collection, tables.frames["table1"], dataset, name)
        numbers = {metric: frame for metric, (frame, _) in cells.items() if frame.notna().any(axis=None)}
        if not numbers:
            continue
        title = grid_title(collection, dataset, name)
        caption = (
            f"{title}. {' '.join(grid_conditions(collection, dataset, name))} Each panel has its own colour scale; "
            f"darker is better. {collection.data_conditions(dataset)}; {collection.environment()}."
        )
        yield NamedFigure(f"grid_{dataset}_{name}", title, caption, _heat(numbers))


def _heat(numbers: dict[str, pd.DataFrame]) -> Figure:
    names = headings(list(numbers))
    rows, columns = next(iter(numbers.values())).shape
    shape = ((1.1 + 0.75 * columns) * len(numbers) + 0.6, 0.9 + 0.42 * rows)
    figure, axes = plt.subplots(1, len(numbers), figsize=shape, squeeze=False, layout="constrained", sharey=True)
    for axis, (metric, frame) in zip(axes[0], numbers.items(), strict=True):
        digits = METRICS[metric].digits
        look = {"cbar": False, "annot_kws": {"size": 7}, "linewidths": 0.5}
        worst, best = shade_range(frame, metric)
        # Dark is good in every panel.
        look["cmap"], (low, high) = (HEAT, (worst, best)) if worst < best else (f"{HEAT}_r", (best, worst))
        sns.heatmap(frame, annot=True, fmt=f".{digits}f", vmin=low, vmax=high, ax=axis, **look)
        axis.set(title=names[metric])
        # No lines where a result is missing.
        axis.grid(visible=False)
        axis.tick_params(labelsize=7, rotation=0)
        axis.tick_params("x", rotation=30 if columns > 2 else 0)
    return figure
