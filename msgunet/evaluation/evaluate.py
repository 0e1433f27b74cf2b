"""Evaluate a generator on the test pairs: one row of metrics per image and protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from msgunet.core.attempts import attempt
from msgunet.core.files import atomic, read_settings, sha256_file, write_csv, write_json
from msgunet.core.metrics import VERSION
from msgunet.core.settings import ComputeSettings, EvaluationSettings, RunSettings
from msgunet.data.images import read, resample, save
from msgunet.data.pairs import PairDataset, normalise, pyramid, to_pixels, to_tensor
from msgunet.device.facts import facts
from msgunet.evaluation.metrics import measure
from msgunet.evaluation.trained import finished, input_scales, load_run
from msgunet.methods.generator import LoadedGenerator


def evaluate(
    run_file: Path,
    generator: Path,
    out: Path,
    settings: EvaluationSettings,
    compute: ComputeSettings,
    data: Path | None,
) -> None:
    """Evaluate a generator, and write `predictions/ID.png`, `metrics.csv` and `evaluation.json` to `out`.

    Predictions have the network's size and the targets' format; those without one or three channels are TIFF files.
    Protocol `native` computes the metrics at the network's size; `full` first resizes the output to the data set's size
    (bicubic, or nearest neighbour for labels).
    """
    run = read_settings(run_file, RunSettings)
    with attempt(out, "evaluate", run):
        model = load_run(run, run_file, generator, compute)
        folder = data or Path(run.data)
        pairs = PairDataset(folder, "test", run.size, run.kinds, run.formats, run.resampling)
        rows = []
        for index in tqdm(range(len(pairs)), desc=f"evaluate {run.entry}", unit="image", disable=None):
            rows += _evaluate_pair(run, model, pairs, index, folder, out, settings)
        write_csv(out / "metrics.csv", rows)
        done = {"settings": run.identity, "trained": finished(generator), "metrics_version": VERSION}
        done |= settings.model_dump(mode="json")
        done |= checksums(generator, folder / "manifest.csv", out / "metrics.csv")
        write_json(out / "evaluation.json", {**done, **facts(model.device, compute.threads)})


def checksums(generator: Path, manifest: Path, metrics: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that an evaluation rests on. `metrics` has those of the predictions."""
    files = {"generator": generator, "manifest": manifest, "metrics": metrics}
    return {f"{name}_sha256": sha256_file(file) for name, file in files.items()}


def _evaluate_pair(
    run: RunSettings,
    model: LoadedGenerator,
    pairs: PairDataset,
    index: int,
    folder: Path,
    out: Path,
    settings: EvaluationSettings,
) -> Iterator[dict[str, Any]]:
    """Translate one test image, save it, and yield its metrics in each protocol, with the files that they compare."""
    pair = pairs.pairs[index]
    output = translated(run, model, pairs, index)
    path = out / "predictions" / f"{pair.id}{run.target_format.suffix}"
    with atomic(path) as temporary:
        save(temporary, output)
    files = {"prediction": str(path.relative_to(out)), "target": str(folder / pair.target)}
    files["prediction_sha256"] = sha256_file(path)
    for row in metrics_of(run, pairs, index, output, settings):
        yield {**row, **files}


def translated(run: RunSettings, model: LoadedGenerator, pairs: PairDataset, index: int) -> np.ndarray:
    """Return a generator's output for a test image, as pixels (H, W, C) of the targets' format."""
    source, _ = pairs.images(index)
    sources = pyramid(normalise(to_tensor(source)[None], run.source_format.range), input_scales(model), run.source_kind)
    return to_pixels(model(sources, pairs.pairs[index].id)[0][0], run.target_format)


def metrics_of(
    run: RunSettings, pairs: PairDataset, index: int, output: np.ndarray, settings: EvaluationSettings
) -> Iterator[dict[str, Any]]:
    """Yield the metrics of an output in each protocol."""
    pair, target_format = pairs.pairs[index], run.target_format
    _, native = pairs.images(index)
    measured: dict[tuple[int, ...], dict[str, Any]] = {}
    for protocol in settings.protocols:
        target, resized = native, output
        if protocol == "full" and (pair.width, pair.height) != run.size:
            path = pairs.folder / pair.target
            target = read(path, str(path), target_format)
            resampling = Image.Resampling.NEAREST if run.target_kind == "labels" else Image.Resampling.BICUBIC
            resized = resample(output, (pair.width, pair.height), resampling)
        size = {"width": target.shape[1], "height": target.shape[0]}
        # Where the network has the data set's size, both protocols compare the same images.
        if target.shape not in measured:
            measured[target.shape] = measure(resized, target, settings.metrics, target_format.range)
        yield {"id": pair.id, "protocol": protocol, **size, **measured[target.shape]}
