"""Run a generator over the test pairs and measure every output: one row per image and protocol."""

from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from msgunet.config import ComputeSettings, EvaluationSettings, RunSettings
from msgunet.data.base import decode
from msgunet.data.pairs import PairDataset, double, normalise, pyramid, to_image, to_tensor
from msgunet.device import pick_device
from msgunet.errors import UserError
from msgunet.evaluation.metrics import measure
from msgunet.files import atomic, read_settings, write_csv, write_json
from msgunet.inference import LoadedGenerator, load_generator
from msgunet.provenance import facts


def evaluate(
    run_file: Path,
    generator: Path,
    out: Path,
    settings: EvaluationSettings,
    compute: ComputeSettings,
    data: Path | None,
) -> None:
    """Write `predictions/ID.png` (8 bits, at the network's size), `metrics.csv` and `evaluation.json` in `out`.

    Protocol `native` measures at the network's size; `full` first brings the output to the data set's size (bicubic;
    labels by nearest neighbour).
    """
    run, model = _load(run_file, generator, pick_device(compute))
    folder = data or Path(run.data)
    pairs = PairDataset(folder, "test", run.size, (run.source_kind, run.target_kind))
    rows = []
    for index, pair in enumerate(tqdm(pairs.pairs, desc=f"evaluate {run.entry}", unit="image", disable=None)):
        source, native = pairs.images(index)
        sources = pyramid(normalise(to_tensor(source)[None]), _scales(model), run.source_kind)
        image = to_image(model(sources, pair.id)[0][0])
        path = out / "predictions" / f"{pair.id}.png"
        with atomic(path) as temporary:
            image.save(temporary, compress_level=4)
        output = decode(path, str(path))
        for protocol in settings.protocols:
            target, shown = native, output
            if protocol == "full" and (pair.width, pair.height) != run.size:
                target = decode(folder / pair.target, str(folder / pair.target))
                resample = Image.Resampling.NEAREST if run.target_kind == "labels" else Image.Resampling.BICUBIC
                shown = output.resize(target.size, resample)
            size = {"width": target.width, "height": target.height}
            rows.append({"id": pair.id, "protocol": protocol, **size, **measure(shown, target, settings.measures)})
    write_csv(out / "metrics.csv", rows)
    write_json(out / "evaluation.json", facts(model.device, compute.threads))


def ablate(run_file: Path, generator: Path, out: Path, compute: ComputeSettings, data: Path | None) -> None:
    """Input against output resolution (the paper's Tables 2 and 3): write `out`, one row per image and cell.

    The source is brought down to each input scale and from there up again to the scales above it; the SSIM of every
    output scale is taken against the target at that scale, on 8 bits.

    Raises:
        UserError: the generator has one scale only.

    """
    run, model = _load(run_file, generator, pick_device(compute))
    scales = _scales(model)
    if scales < 2:
        raise UserError(f"{run.entry}: the ablation needs a generator with several scales, this one has {scales}")
    pairs = PairDataset(data or Path(run.data), "test", run.size, (run.source_kind, run.target_kind))
    width, height = run.size
    rows = []
    for index, pair in enumerate(tqdm(pairs.pairs, desc=f"ablate {run.entry}", unit="image", disable=None)):
        source, target = (normalise(images[None]) for images in pairs[index])
        targets = pyramid(target, scales, run.target_kind)
        for input_scale in range(scales):
            outputs = model(reduced_pyramid(source, scales, input_scale, run.source_kind), pair.id)
            for output_scale, output in enumerate(outputs):
                row = measure(to_image(output[0]), to_image(targets[output_scale][0]), ("ssim",))
                sizes = {
                    "input_width": width >> input_scale,
                    "input_height": height >> input_scale,
                    "output_width": width >> output_scale,
                    "output_height": height >> output_scale,
                }
                rows.append({"id": pair.id, **sizes, **row})
    write_csv(out, rows)


def reduced_pyramid(source: torch.Tensor, scales: int, input_scale: int, kind: str) -> list[torch.Tensor]:
    """What the generator sees when the source is known at `input_scale` only: all scales, made from that one."""
    levels = pyramid(source, scales, kind)
    for scale in reversed(range(input_scale)):
        levels[scale] = double(levels[scale + 1], kind)
    return levels


def _scales(model: LoadedGenerator) -> int:
    return model.method.scales(model.method.options, model.settings.size)


def _load(run_file: Path, generator: Path, device: torch.device) -> tuple[RunSettings, LoadedGenerator]:
    """A run's settings and its generator, which must be of the same settings."""
    run = read_settings(run_file, RunSettings)
    model = load_generator(generator, device)
    if model.settings != run:
        raise UserError(f"{generator} was trained with other settings than {run_file} holds; train it again")
    return run, model
