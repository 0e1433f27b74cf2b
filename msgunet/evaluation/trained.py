"""The trained generator of a run, loaded for the evaluation and the ablation."""

import json
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import unsupported
from msgunet.methods.generator import LoadedGenerator, load_generator
from msgunet.methods.registry import method_of


def finished(generator: Path) -> str | None:
    """Return when the training of a generator ended, which identifies the training behind a result, or None."""
    path = generator.parent / "training.json"
    return json.loads(path.read_text(encoding="utf-8"))["finished"] if path.is_file() else None


def load_run(
    run: RunSettings, run_file: Path, generator: Path, compute: ComputeSettings, precision: str = "fp32"
) -> LoadedGenerator:
    """Load a run's generator, which must have the run's settings, on the device that its method needs.

    Args:
        run: settings of the run.
        run_file: the file that they are from.
        generator: the file of the generator.
        compute: settings of this machine.
        precision: of `EvaluationSettings`.

    Raises:
        UserError: the generator has other settings, or the device does not support the precision.

    """
    device = pick_device(compute)
    trainable = method_of(run).trainable
    if trainable:
        require_gpu(compute, device)
    if precision == "training":
        precision = run.training.precision
    if not trainable:
        # A reference row passes on pixels, which are exact in fp32 only.
        precision = "fp32"
    elif problem := unsupported(precision, device):
        raise UserError(f"evaluation.precision: {problem}")
    model = load_generator(generator, device, precision, cuda_graphs=compute.cuda_graphs)
    if model.settings != run:
        raise UserError(
            f"{generator} was trained with other settings than those in {run_file}; give the run.json that it was "
            "trained with, or 'msgunet train' it with this one"
        )
    return model
