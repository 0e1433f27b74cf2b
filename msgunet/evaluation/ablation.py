"""The ablation of input versus output resolution (the paper's Tables 2 and 3): one row per image and cell."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from msgunet.core.attempts import attempt
from msgunet.core.errors import UserError
from msgunet.core.files import read_settings, write_csv, write_json
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import PairDataset, double, normalise, pyramid, to_pixels
from msgunet.device.facts import facts
from msgunet.evaluation.metrics import measure
from msgunet.evaluation.trained import finished, load_run
from msgunet.methods.generator import LoadedGenerator


def ablate(run_file: Path, generator: Path, out: Path, compute: ComputeSettings, data: Path | None) -> None:
    """Run the ablation and write `out`, with one row per image and cell, and a JSON file with its conditions.

    The source is downscaled to each input scale and then upscaled again to the finer scales. The SSIM of every output
    scale is computed against the target at that scale, on 8 bits (or 16 bits for 16-bit targets).

    Raises:
        UserError: the generator has only one scale.

    """
    run = read_settings(run_file, RunSettings)
    with attempt(out.parent, "ablate", run):
        model = load_run(run, run_file, generator, compute)
        if model.source_scales < 2:
            raise UserError(f"{run.entry}: the ablation needs a generator with several scales; this one has only one")
        pairs = PairDataset(data or Path(run.data), "test", run.size, run.kinds, run.formats, run.resampling)
        rows = []
        for index in tqdm(range(len(pairs)), desc=f"ablate {run.entry}", unit="image", disable=None):
            rows += _ablate_pair(run, model, pairs, index)
        write_csv(out, rows)
        done = {"settings": run.identity, "trained": finished(generator)}
        write_json(out.with_suffix(".json"), {**done, **facts(model.device, compute.threads)})


def _ablate_pair(run: RunSettings, model: LoadedGenerator, pairs: PairDataset, index: int) -> Iterator[dict[str, Any]]:
    """Yield one row for each input scale and output scale, for one test image."""
    width, height = run.size
    scales, name = model.source_scales, pairs.pairs[index].id
    source, target = (
        normalise(image[None], image_format.range)
        for image, image_format in zip(pairs[index], run.formats, strict=True)
    )
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
            images = output, targets[output_scale]
            output_pixels, target_pixels = (to_pixels(image[0], run.target_format) for image in images)
            metrics = measure(output_pixels, target_pixels, ("ssim",), run.target_format.range)
            yield {"id": name, **sizes, **metrics}


def reduced_pyramid(source: torch.Tensor, scales: int, input_scale: int, kind: str) -> list[torch.Tensor]:
    """Return the generator's input when the source is known only at `input_scale`: all scales come from that one."""
    levels = pyramid(source, scales, kind)
    for scale in reversed(range(input_scale)):
        levels[scale] = double(levels[scale + 1], kind)
    return levels
