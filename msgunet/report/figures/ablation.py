"""The ablation as heat maps, ours next to the paper's."""

from collections.abc import Iterator

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from msgunet.report.collect import Collection
from msgunet.report.figures.style import HEAT, NamedFigure
from msgunet.report.tables import Tables


def draw(collection: Collection, tables: Tables) -> Iterator[NamedFigure]:
    """Yield one figure per ablation that has results."""
    frame = tables.frames["ablation"]
    for dataset, entry in collection.ablated():
        cells = frame[(frame["dataset"] == dataset) & (frame["entry"] == entry)]
        if cells["ssim"].isna().all():
            continue
        runs = collection.runs_of(dataset)[entry]
        caption = (
            "Mean SSIM over test images and seeds of the output at each scale, for a source known only at the input "
            f"resolution. Each panel has its own colour scale. {collection.data_conditions(dataset)}. "
            f"{collection.run_conditions(runs)}; {collection.environment()}."
        )
        title = f"Input versus output resolution, {runs[0].title} on {dataset}"
        yield NamedFigure(f"ablation_{dataset}_{entry}", title, caption, _heat(cells))


def _heat(cells: pd.DataFrame) -> Figure:
    sides = {"ssim": "ours", "paper_ssim": "the paper's"}
    sides = {side: title for side, title in sides.items() if cells[side].notna().any()}
    cells = cells.sort_values(["input_width", "output_width"])
    for side in ("input", "output"):
        sizes = zip(cells[f"{side}_width"], cells[f"{side}_height"], strict=True)
        cells = cells.assign(**{side: [f"{w}×{h}" for w, h in sizes]})
    count = cells["output"].nunique()
    shape = ((1.3 + 0.62 * count) * max(1, len(sides)), 1.1 + 0.42 * cells["input"].nunique())
    figure, axes = plt.subplots(1, max(1, len(sides)), figsize=shape, squeeze=False, layout="constrained")
    for axis, (side, title) in zip(axes[0], sides.items(), strict=False):
        order = {name: list(dict.fromkeys(cells.sort_values(f"{name}_width")[name])) for name in ("input", "output")}
        grid = cells.pivot(index="input", columns="output", values=side).loc[order["input"], order["output"]]
        form = ".3f" if side == "ssim" else ".2f"
        sns.heatmap(grid, annot=True, fmt=form, cmap=HEAT, cbar=False, ax=axis, annot_kws={"size": 7}, linewidths=0.5)
        axis.set(title=title, xlabel="output", ylabel="input")
        axis.tick_params(labelsize=7, rotation=0)
        axis.tick_params("x", rotation=30)
    return figure
