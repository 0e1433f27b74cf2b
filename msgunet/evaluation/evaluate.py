"""Evaluate a generator on the test pairs: one row of metrics per image and protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from msgunet.core.attempts import attempt
from msgunet.core.files import atomic, read_settings, write_csv, write_json
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
        write_json(out / "evaluation.json", {**done, **facts(model.device, compute.threads)})


def _evaluate_pair(
    run: RunSettings,
    model: LoadedGenerator,
    pairs: PairDataset,
    index: int,
    folder: Path,
    out: Path,
    settings: EvaluationSettings,
) -> Iterator[dict[str, Any]]:
    """Translate one test image, and yield its metrics in each protocol."""
    pair, target_format = pairs.pairs[index], run.target_format
    source, native = pairs.images(index)
    sources = pyramid(normalise(to_tensor(source)[None], run.source_format.range), input_scales(model), run.source_kind)
    output = to_pixels(model(sources, pair.id)[0][0], target_format)
    with atomic(out / "predictions" / f"{pair.id}{target_format.suffix}") as temporary:
        save(temporary, output)
    for protocol in settings.protocols:
        target, resized = native, output
        if protocol == "full" and (pair.width, pair.height) != run.size:
            target = read(folder / pair.target, str(folder / pair.target), target_format)
            resampling = Image.Resampling.NEAREST if run.target_kind == "labels" else Image.Resampling.BICUBIC
            resized = resample(output, (pair.width, pair.height), resampling)
        size = {"width": target.shape[1], "height": target.shape[0]}
        metrics = measure(resized, target, settings.metrics, target_format.range)
        yield {"id": pair.id, "protocol": protocol, **size, **metrics}
