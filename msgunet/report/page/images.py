"""The test images of the page and their metrics."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from PIL import Image

from msgunet.core.files import atomic
from msgunet.core.metrics import METRICS, headings
from msgunet.core.pipeline import usable_cores
from msgunet.core.settings import RGB, ImageFormat
from msgunet.data.decode import open_image
from msgunet.data.images import read, resample, save, to_display
from msgunet.data.manifest import Pair, read_manifest
from msgunet.report.collect import Collection, Run

_THUMBNAIL = (160, 160)


def write_images(collection: Collection, folder: Path) -> list[dict[str, Any]]:
    """Write all test images below `folder`, and return a list of them with their metrics for each data set.

    8-bit RGB images of the data set's size are hard links to the files of the results, or copies where the file system
    has no links. Others are resized to it as in the full protocol, so that images can be compared pixel by pixel. All
    are displayed as 8-bit RGB.
    """
    return [entry for dataset in collection.datasets if (entry := _dataset(collection, dataset, folder))]


def _dataset(collection: Collection, dataset: str, folder: Path) -> dict[str, Any] | None:
    runs = collection.example_runs(dataset)
    manifest = collection.prepared(dataset) / "manifest.csv"
    # Users can delete the prepared images once everything is evaluated.
    if not runs or not manifest.is_file():
        return None
    pairs = read_manifest(manifest, "test")
    size = tuple(collection.datasets[dataset]["size"])
    place = folder / dataset
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(lambda pair: _write(pair, runs, manifest.parent, place, size), pairs))
    values = {run.settings.entry: _by_image(run) for run in runs}
    return {
        "name": dataset,
        "metrics": [
            {"name": m, "heading": heading, "digits": METRICS[m].digits, "higher": METRICS[m].higher_is_better}
            for m, heading in headings(collection.settings["metrics"]).items()
        ],
        "protocols": collection.settings["protocols"],
        "methods": [
            {"entry": run.settings.entry, "role": _role(run), "title": collection.label(run), "size": run.size}
            for run in runs
        ],
        "folder": quote(f"{folder.name}/{dataset}"),
        "images": [
            {"id": pair.id, "file": quote(pair.id), "values": {entry: of[pair.id] for entry, of in values.items()}}
            for pair in pairs
            if all(pair.id in of for of in values.values())
        ],
    }


def _role(run: Run) -> str:
    """Return a method's folder, whose name cannot collide with that of source, target or thumbnails."""
    return f"methods/{run.settings.entry}"


def _by_image(run: Run) -> dict[str, dict[str, dict[str, float | None]]]:
    """Map image, protocol and metric to the value; None where it is undefined."""
    values: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in run.measured().to_dict("records"):
        metrics = {m: None if pd.isna(row[m]) else float(f"{row[m]:.6g}") for m in run.evaluation.metrics}
        values.setdefault(row["id"], {})[row["protocol"]] = metrics
    return values


def _write(pair: Pair, runs: list[Run], data: Path, place: Path, size: tuple[int, int]) -> None:
    name, settings = f"{pair.id}.png", runs[0].settings
    target = place / "target" / name
    format_and_kind = settings.target_format, settings.target_kind
    _at_size(data / pair.source, place / "source" / name, size, settings.source_format, settings.source_kind)
    _at_size(data / pair.target, target, size, *format_and_kind)
    for run in runs:
        _at_size(run.prediction(pair.id), place / _role(run) / name, size, *format_and_kind)
    with open_image(target, str(target)) as image, atomic(place / "thumbnails" / f"{pair.id}.jpg") as path:
        small = image.convert("RGB")
        small.thumbnail(_THUMBNAIL)
        small.save(path, quality=80)


def _size(path: Path) -> tuple[int, int]:
    with open_image(path, str(path)) as image:
        return image.size


def _at_size(source: Path, path: Path, size: tuple[int, int], image_format: ImageFormat, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image_format == RGB and _size(source) == size:
        try:
            path.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, path)
        return
    resampling = Image.Resampling.NEAREST if kind == "labels" else Image.Resampling.BICUBIC
    pixels = resample(read(source, str(source), image_format), size, resampling)
    with atomic(path) as temporary:
        save(temporary, to_display(pixels, image_format))
