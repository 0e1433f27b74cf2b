"""What a pass or a step would take at the limits of a device, counted without it."""

from pathlib import Path

import pandas as pd
import torch

from msgunet.core.files import atomic
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.device.limits import Limits, foretold
from msgunet.device.meter import Meter
from msgunet.device.precision import dtype_of
from msgunet.methods.inference import prepare
from msgunet.methods.registry import build_method
from msgunet.training.memory import StepNeeds, step_needs


def predict(settings: RunSettings, part: str, precision: str, limits: Limits, out: Path | None = None) -> pd.DataFrame:
    """Foretell the time of each operation of the engine on a device; see `foretold` for the rows.

    Args:
        settings: settings of a run.
        part: `inference`, one image, or `training`, one step of the last phase with the whole batch.
        precision: `fp32`, `tf32` or `bf16`.
        limits: of the device.
        out: CSV to write, or None.

    """
    frame = foretold(needs(settings, part, precision).operations, precision, limits)
    if out is not None:
        with atomic(out) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    return frame


def needs(settings: RunSettings, part: str, precision: str, kind: str = "cuda") -> StepNeeds:
    """Return what the engine requires for an image or a training step, counted on shapes.

    Args:
        settings: settings of a run.
        part: `inference`, one image, or `training`, one step of the last phase with the whole batch.
        precision: `fp32`, `tf32` or `bf16`.
        kind: type of the device: `cuda` or `cpu`.

    """
    method = build_method(settings)
    if part == "training":
        training = settings.training.model_copy(update={"precision": precision})
        phase = method.phases(training)[-1]
        return step_needs(method, settings.model_copy(update={"training": training}), phase, ComputeSettings())
    meta = torch.device("meta")
    with meta, torch.no_grad():
        network = prepare(method, method.build_generator(), meta, precision, kind)
        scales = method.scales(method.options, settings.size)
        sources = [s.to(dtype_of(precision)) for s in blank_pyramid(scales, settings.size, channels=method.channels[0])]
        with Meter() as meter:
            network(sources)
    return StepNeeds(meter.peak, meter.flop, meter.moved, meter.operations)
