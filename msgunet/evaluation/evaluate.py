"""Evaluate a generator on the test pairs: one row of metrics per image and protocol."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from msgunet.core.attempts import attempt
from msgunet.core.files import atomic, read_settings, sha256_file, write_csv, write_json
from msgunet.core.metrics import VERSION, measuring_memory
from msgunet.core.pipeline import in_order, usable_cores
from msgunet.core.settings import ComputeSettings, DataSettings, EvaluationSettings, RunSettings
from msgunet.data.images import read, resample, save
from msgunet.data.pairs import PairDataset
from msgunet.device.facts import facts
from msgunet.evaluation.metrics import CPU, measure
from msgunet.evaluation.metrics.networks import load_networks
from msgunet.evaluation.trained import finished, load_run
from msgunet.training.memory import free_memory

# Of the free memory, for the images that are measured beside the one in the network.
_SHARE = 1 / 4


def evaluate(
    run_file: Path,
    generator: Path,
    out: Path,
    settings: EvaluationSettings,
    compute: ComputeSettings,
    data: Path | None,
    jobs: int | None = None,
    files: DataSettings | None = None,
) -> None:
    """Evaluate a generator, and write `predictions/ID.png`, `metrics.csv` and `evaluation.json` to `out`.

    Predictions have the network's size and the targets' format; those without one or three channels are TIFF files.
    Protocol `native` computes the metrics at the network's size; `full` first resizes the output to the data set's size
    (bicubic, or nearest neighbour for labels).

    Args:
        run_file: settings of the run.
        generator: its generator.
        out: the folder to write to.
        settings: what is evaluated.
        compute: settings of this machine.
        data: folder of the prepared data set; by default the run's.
        jobs: CPU threads that read, measure and write images; by default one for each core that this process may use.
        files: where the published weights are that some metrics need; by default where they are downloaded.

    Raises:
        UserError: weights are missing or not the published ones, or the generator has other settings.

    """
    run = read_settings(run_file, RunSettings)
    with attempt(out, "evaluate", run):
        model = load_run(run, run_file, generator, compute, settings.precision)
        networks = load_networks(settings.metrics, files or DataSettings(), model.device)
        folder = data or Path(run.data)
        pairs = PairDataset(folder, "test", run.size, run.kinds, run.formats, run.resampling)
        rows = []

        def output_of(index: int, images: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            return model.translated(images[0], pairs.pairs[index].id), images[1]

        def measured(index: int, images: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
            return [*_measured(run, pairs, index, *images, out, settings, model.device, networks)]

        at_once = images_at_once(model.device, compute.threads, jobs)
        bar = tqdm(total=len(pairs), desc=f"evaluate {run.entry}", unit="image", disable=None)
        memory = memory_of(pairs, settings.metrics)
        results = in_order(range(len(pairs)), pairs.images, output_of, measured, at_once, *memory)
        with bar, closing(results):
            for _, result in results:
                rows += result.result()
                bar.update()
        write_csv(out / "metrics.csv", rows)
        done = {"settings": run.identity, "trained": finished(generator), "metrics_version": VERSION}
        done |= settings.model_dump(mode="json") | {"network_precision": model.precision}
        done |= checksums(generator, folder / "manifest.csv", out / "metrics.csv")
        write_json(out / "evaluation.json", {**done, **facts(model.device, compute.threads)})


def images_at_once(device: torch.device, threads: int, jobs: int | None = None) -> int:
    """Return how many images to read, measure and write at the same time with `jobs` CPU threads (default: all cores).

    On a CPU the metrics of each image are computed there by `threads` threads, whose number decides the last bits.
    """
    return max(1, (jobs or usable_cores()) // (threads if device.type == "cpu" else 1))


def memory_of(pairs: PairDataset, metrics: Sequence[str]) -> tuple[Callable[[int], float], float]:
    """Return the bytes that an image takes while it is measured, by its index, and those for all images together."""

    def weight(index: int) -> float:
        pair = pairs.pairs[index]
        return max(measuring_memory(metrics, *size) for size in ((pair.width, pair.height), pairs.size))

    free = free_memory(CPU)
    return weight, math.inf if free is None else _SHARE * free


def checksums(generator: Path, manifest: Path, metrics: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that an evaluation rests on. `metrics` has those of the predictions."""
    files = {"generator": generator, "manifest": manifest, "metrics": metrics}
    return {f"{name}_sha256": sha256_file(file) for name, file in files.items()}


def _measured(
    run: RunSettings,
    pairs: PairDataset,
    index: int,
    output: np.ndarray,
    target: np.ndarray,
    out: Path,
    settings: EvaluationSettings,
    device: torch.device,
    networks: Mapping[str, nn.Module],
) -> Iterator[dict[str, Any]]:
    """Save the output for a test image, and yield its metrics in each protocol, with the files that they compare."""
    pair = pairs.pairs[index]
    path = out / "predictions" / f"{pair.id}{run.target_format.suffix}"
    with atomic(path) as temporary:
        save(temporary, output)
    files = {"prediction": str(path.relative_to(out)), "target": str(pairs.folder / pair.target)}
    files["prediction_sha256"] = sha256_file(path)
    for row in metrics_of(run, pairs, index, output, settings, target, device, networks):
        yield {**row, **files}


def metrics_of(
    run: RunSettings,
    pairs: PairDataset,
    index: int,
    output: np.ndarray,
    settings: EvaluationSettings,
    native: np.ndarray | None = None,
    device: torch.device = CPU,
    networks: Mapping[str, nn.Module] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the metrics of an output in each protocol.

    `native` is the target at the network's size, if it has been read already; `networks` are those of `load_networks`.
    """
    pair, target_format = pairs.pairs[index], run.target_format
    if native is None:
        native = pairs.target(index)
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
            measured[target.shape] = measure(resized, target, settings.metrics, target_format.range, device, networks)
        yield {"id": pair.id, "protocol": protocol, **size, **measured[target.shape]}
