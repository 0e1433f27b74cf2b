"""All figures of a suite, as PDF and PNG."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt

from msgunet.core.files import atomic, write_json
from msgunet.report.collect import Collection
from msgunet.report.figures import ablation, cost, design, gradients, grid, images, quality, training
from msgunet.report.figures.speed import speed_figure
from msgunet.report.figures.style import NamedFigure, plain_powers, thin_ticks
from msgunet.report.tables import Tables, build_tables, remove_stale

_DRAWERS: dict[str, Callable[[Collection, Tables], Iterator[NamedFigure]]] = {
    "design": design.draw,
    "results": quality.draw,
    "grids": grid.draw,
    "images": images.draw,
    "ablation": ablation.draw,
    "gradients": gradients.draw,
    "training": training.draw,
    "cost": cost.draw,
}


def write_figures(settings_file: Path, results: Path) -> list[dict[str, str]]:
    """Write all available figures as PDF and PNG to `results/figures`, and their captions to `figures.json`."""
    collection = Collection(settings_file, results)
    tables = build_tables(collection)
    _set_look()
    folder = results / "figures"
    made = []
    for section, draw in _DRAWERS.items():
        for drawn in draw(collection, tables):
            _save(drawn, folder)
            entry = {"name": drawn.name, "title": drawn.title, "caption": drawn.caption, "section": section}
            made.append({**entry, "command": collection.command("figures/figures.json")})
    write_json(folder / "figures.json", made)
    remove_stale(folder, {"figures", *(figure["name"] for figure in made)})
    return made


def write_speed_figure(frame: pd.DataFrame, titles: Mapping[str, str], folder: Path) -> None:
    """Write only the speed figure, from the rows of `msgunet bench`, as PDF and PNG."""
    _set_look()
    _save(speed_figure(frame, titles), folder)


def _set_look() -> None:
    sns.set_theme("paper", "whitegrid")
    # Font type 42 keeps text as text in the PDF. The size of texts depends on the resolution: places are computed for
    # the one that is saved.
    mpl.rcParams.update({"pdf.fonttype": 42, "figure.dpi": 150, "font.size": 9, "axes.titlesize": 9})
    # A title with dollar signs is not mathematics.
    mpl.rcParams["text.parse_math"] = False


def _save(drawn: NamedFigure, folder: Path) -> None:
    figure = drawn.figure
    plain_powers(figure)
    lines = textwrap.wrap(drawn.caption, int(21 * figure.get_figwidth()))
    figure.text(0.01, -0.01, "\n".join(lines), va="top", fontsize=6, color="0.3")
    # Compute the layout once, not for each format.
    figure.draw_without_rendering()
    thin_ticks(figure)
    figure.set_layout_engine("none")
    for legend in figure.legends:
        # By default a legend moves to the edge of what is saved, here that of the caption.
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    # Compute the bounding box once, too: savefig's own "tight" draws the figure again for each format.
    box = figure.get_tightbbox().padded(0.1)
    # Without dates and versions, the files are the same bytes in every run.
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        with atomic(folder / f"{drawn.name}.{suffix}") as temporary:
            figure.savefig(temporary, bbox_inches=box, metadata=metadata)
    plt.close(figure)
