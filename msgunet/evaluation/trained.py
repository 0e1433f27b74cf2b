"""The trained generator of a run, loaded for the evaluation and the ablation."""

import json
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.device.pick import pick_device, require_gpu
from msgunet.methods.generator import LoadedGenerator, load_generator
from msgunet.methods.registry import method_of


def input_scales(model: LoadedGenerator) -> int:
    """Return the number of scales of the source that a generator accepts."""
    return model.method.scales(model.method.options, model.settings.size)


def finished(generator: Path) -> str | None:
    """Return when the training of a generator ended, which identifies the training behind a result, or None."""
    path = generator.parent / "training.json"
    return json.loads(path.read_text(encoding="utf-8"))["finished"] if path.is_file() else None


def load_run(run: RunSettings, run_file: Path, generator: Path, compute: ComputeSettings) -> LoadedGenerator:
    """Load a run's generator, which must have the run's settings, on the device that its method needs."""
    device = pick_device(compute)
    if method_of(run).trainable:
        require_gpu(compute, device)
    model = load_generator(generator, device, cuda_graphs=compute.cuda_graphs)
    if model.settings != run:
        raise UserError(
            f"{generator} was trained with other settings than those in {run_file}; give the run.json that it was "
            "trained with, or 'msgunet train' it with this one"
        )
    return model
