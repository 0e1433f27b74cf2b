"""Test images of all methods side by side, with the same crop of each (the paper's Figs. 4 to 6)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from msgunet.core.settings import ImageFormat
from msgunet.data.images import read, resize, to_display
from msgunet.data.manifest import read_manifest
from msgunet.report.collect import Collection
from msgunet.report.conditions import shared_conditions
from msgunet.report.figures.style import NamedFigure, wrapped
from msgunet.report.tables import Tables

# Width and height of the crop, as a share of the image's.
_CROP = 0.25


def draw(collection: Collection, _: Tables) -> Iterator[NamedFigure]:
    """Yield one figure per data set with predictions."""
    for dataset, entry in collection.datasets.items():
        runs = collection.example_runs(dataset)
        data = collection.prepared(dataset)
        if not runs or not (data / "manifest.csv").is_file():
            continue
        pairs = read_manifest(data / "manifest.csv", "test")
        count = min(collection.settings["examples"], len(pairs))
        pairs = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]
        source_format, target_format = runs[0].settings.formats
        files = [("target", [data / p.target for p in pairs])]
        files += [(f"{collection.label(run)}\n{run.size}", [run.prediction(p.id) for p in pairs]) for run in runs]
        size = tuple(entry["size"])
        columns = [("source", [_open(data / p.source, size, source_format) for p in pairs])]
        columns += [(name, [_open(path, size, target_format) for path in paths]) for name, paths in files]
        caption = (
            "Test images at even spacing, not hand-picked. Below each image is the framed crop, taken where the target "
            "has most detail, at the same place for every method. Outputs of other sizes are resized to the data set's "
            f"size. {collection.data_conditions(dataset)}. {shared_conditions([[run] for run in runs])}; "
            f"{collection.environment()}."
        )
        title = f"Figs. 4 to 6: test images of {dataset}"
        yield NamedFigure(f"images_{dataset}", title, caption, _grid(columns, size))


def _grid(columns: list[tuple[str, list[np.ndarray]]], size: tuple[int, int]) -> Figure:
    """Draw columns with a heading, source and target first, as in `draw`.

    All images are in one pair of axes, in units of an image's width: many axes are slow.
    """
    # More columns are narrower, so that the figure is still legible on a page.
    inches, gap = min(1.9, max(1.2, 12 / len(columns))), 0.03
    ratio = size[1] / size[0]
    (_, targets) = columns[1]
    rows = 2 * len(targets)
    width, height = len(columns) * (1 + gap), rows * (ratio + gap)
    figure = plt.figure(figsize=(inches * width, inches * height))
    axis = figure.add_axes((0, 0, 1, 1))
    crops = [most_detail(pixels) for pixels in targets]
    for j, (name, column) in enumerate(columns):
        left = j * (1 + gap)
        heading = "\n".join(wrapped(line, int(14 * inches), cut=True) for line in name.splitlines())
        axis.text(left + 0.5, -gap, heading, ha="center", va="bottom", fontsize=8)
        for i, (pixels, (x, y, w, h)) in enumerate(zip(column, crops, strict=True)):
            top, below = 2 * i * (ratio + gap), (2 * i + 1) * (ratio + gap)
            axis.imshow(_fit(pixels, inches), extent=(left, left + 1, top + ratio, top))
            crop = pixels[y : y + h, x : x + w]
            axis.imshow(crop, interpolation="nearest", extent=(left, left + 1, below + ratio, below))
            # White on black is visible on every image.
            for line, colour in ((2.0, "black"), (0.9, "white")):
                place = (left + x / size[0], top + y / size[0])
                frame = {"fill": False, "linewidth": line, "edgecolor": colour}
                axis.add_patch(Rectangle(place, w / size[0], h / size[0], **frame))
    axis.set(xlim=(0, width - gap), ylim=(height - gap, 0), aspect="auto")
    axis.axis("off")
    return figure


def _fit(pixels: np.ndarray, inches: float) -> np.ndarray:
    """Resample an image to 300 pixels per inch once: matplotlib would do it again for every drawing."""
    width = round(300 * inches)
    shape = (width, max(1, round(width * pixels.shape[0] / pixels.shape[1])))
    return np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.LANCZOS))


def _open(path: Path, size: tuple[int, int], image_format: ImageFormat) -> np.ndarray:
    return to_display(resize(read(path, str(path), image_format), size, "photo"), image_format)


def most_detail(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the crop of an image (H, W, 3) in which neighbouring pixels differ most."""
    grey = pixels.astype(float).mean(2)
    detail = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    sums = np.pad(detail, ((2, 0), (2, 0))).cumsum(0).cumsum(1)
    h, w = (max(1, round(_CROP * side)) for side in grey.shape)
    windows = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    top, left = np.unravel_index(windows.argmax(), windows.shape)
    return int(left), int(top), w, h
