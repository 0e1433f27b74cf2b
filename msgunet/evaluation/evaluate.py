"""Run a generator over the test pairs and measure every output: one row per image and protocol."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from msgunet.attempts import attempt
from msgunet.config import ComputeSettings, EvaluationSettings, RunSettings
from msgunet.data.pairs import PairDataset, double, normalise, pyramid, to_pixels, to_tensor
from msgunet.data.pictures import read, resample, save
from msgunet.device import pick_device, require_gpu
from msgunet.errors import UserError
from msgunet.evaluation.metrics import measure
from msgunet.files import atomic, read_settings, write_csv, write_json
from msgunet.inference import LoadedGenerator, load_generator
from msgunet.provenance import facts
from msgunet.registry import method_of


def evaluate(
    run_file: Path,
    generator: Path,
    out: Path,
    settings: EvaluationSettings,
    compute: ComputeSettings,
    data: Path | None,
) -> None:
    """Write `predictions/ID.png`, `metrics.csv` and `evaluation.json` in `out`.

    Predictions have the network's size and the targets' format; those with other than one or three channels are TIFF.
    Protocol `native` measures at the network's size; `full` first brings the output to the data set's size (bicubic;
    labels by nearest neighbour).
    """
    run = read_settings(run_file, RunSettings)
    with attempt(out, "evaluate", run):
        model = _load(run, run_file, generator, compute)
        folder = data or Path(run.data)
        pairs = PairDataset(folder, "test", run.size, run.kinds, run.formats)
        rows = []
        for index in tqdm(range(len(pairs)), desc=f"evaluate {run.entry}", unit="image", disable=None):
            rows += _evaluate_pair(run, model, pairs, index, folder, out, settings)
        write_csv(out / "metrics.csv", rows)
        done = {"settings": run.identity, "trained": _finished(generator), **settings.model_dump(mode="json")}
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
    """Translate one test picture; its measures in each protocol."""
    pair, given = pairs.pairs[index], run.target_format
    source, native = pairs.images(index)
    sources = pyramid(normalise(to_tensor(source)[None], run.source_format.range), _scales(model), run.source_kind)
    output = to_pixels(model(sources, pair.id)[0][0], given)
    with atomic(out / "predictions" / f"{pair.id}{given.suffix}") as temporary:
        save(temporary, output)
    for protocol in settings.protocols:
        target, shown = native, output
        if protocol == "full" and (pair.width, pair.height) != run.size:
            target = read(folder / pair.target, str(folder / pair.target), given)
            how = Image.Resampling.NEAREST if run.target_kind == "labels" else Image.Resampling.BICUBIC
            shown = resample(output, (pair.width, pair.height), how)
        size = {"width": target.shape[1], "height": target.shape[0]}
        yield {"id": pair.id, "protocol": protocol, **size, **measure(shown, target, settings.measures, given.range)}


def ablate(run_file: Path, generator: Path, out: Path, compute: ComputeSettings, data: Path | None) -> None:
    """Input against output resolution (the paper's Tables 2 and 3): write `out`, one row per image and cell, and facts.

    The source is brought down to each input scale and from there up again to the scales above it; the SSIM of every
    output scale is taken against the target at that scale, on 8 bits (or 16, as the targets have).

    Raises:
        UserError: the generator has one scale only.

    """
    run = read_settings(run_file, RunSettings)
    with attempt(out.parent, "ablate", run):
        model = _load(run, run_file, generator, compute)
        if _scales(model) < 2:
            raise UserError(f"{run.entry}: the ablation needs a generator with several scales, this one has one")
        pairs = PairDataset(data or Path(run.data), "test", run.size, run.kinds, run.formats)
        rows = []
        for index in tqdm(range(len(pairs)), desc=f"ablate {run.entry}", unit="image", disable=None):
            rows += _ablate_pair(run, model, pairs, index)
        write_csv(out, rows)
        done = {"settings": run.identity, "trained": _finished(generator)}
        write_json(out.with_suffix(".json"), {**done, **facts(model.device, compute.threads)})


def _ablate_pair(run: RunSettings, model: LoadedGenerator, pairs: PairDataset, index: int) -> Iterator[dict[str, Any]]:
    """Every input scale against every output scale, for one test picture."""
    width, height = run.size
    scales, name = _scales(model), pairs.pairs[index].id
    source, target = (normalise(i[None], given.range) for i, given in zip(pairs[index], run.formats, strict=True))
    targets = pyramid(target, scales, run.target_kind)
    for input_scale in range(scales):
        outputs = model(reduced_pyramid(source, scales, input_scale, run.source_kind), name)
        for output_scale, output in enumerate(outputs):
            sizes = {
                "input_width": width >> input_scale,
                "input_height": height >> input_scale,
                "output_width": width >> output_scale,
                "output_height": height >> output_scale,
            }
            found, wanted = (to_pixels(i[0], run.target_format) for i in (output, targets[output_scale]))
            measures = measure(found, wanted, ("ssim",), run.target_format.range)
            yield {"id": name, **sizes, **measures}


def reduced_pyramid(source: torch.Tensor, scales: int, input_scale: int, kind: str) -> list[torch.Tensor]:
    """What the generator sees when the source is known at `input_scale` only: all scales, made from that one."""
    levels = pyramid(source, scales, kind)
    for scale in reversed(range(input_scale)):
        levels[scale] = double(levels[scale + 1], kind)
    return levels


def _scales(model: LoadedGenerator) -> int:
    return model.method.scales(model.method.options, model.settings.size)


def _finished(generator: Path) -> str | None:
    """When the training of a generator ended: what is measured is of that training."""
    path = generator.parent / "training.json"
    return json.loads(path.read_text(encoding="utf-8"))["finished"] if path.is_file() else None


def _load(run: RunSettings, run_file: Path, generator: Path, compute: ComputeSettings) -> LoadedGenerator:
    """A run's generator, which must be of the same settings, on the device that its method needs."""
    device = pick_device(compute)
    if method_of(run).trainable:
        require_gpu(compute, device)
    model = load_generator(generator, device)
    if model.settings != run:
        raise UserError(f"{generator} was trained with other settings than {run_file} holds; train it again")
    return model
