"""What a pass or a step would take at the limits of a device, counted without it."""

from pathlib import Path

import pandas as pd
import torch

from msgunet.core.files import atomic
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.device.limits import Limits, foretold
from msgunet.device.meter import Meter, Operation
from msgunet.device.precision import dtype_of
from msgunet.methods.generator import prepare
from msgunet.methods.registry import build_method
from msgunet.training.memory import step_needs


def predict(settings: RunSettings, part: str, precision: str, limits: Limits, out: Path | None = None) -> pd.DataFrame:
    """Foretell the time of each operation of the engine on a device; see `foretold` for the rows.

    Args:
        settings: settings of a run.
        part: `inference`, one image, or `training`, one step of the last phase with the whole batch.
        precision: `fp32`, `tf32` or `bf16`.
        limits: of the device.
        out: CSV to write, or None.

    """
    frame = foretold(operations(settings, part, precision), precision, limits)
    if out is not None:
        with atomic(out) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    return frame


def operations(settings: RunSettings, part: str, precision: str) -> dict[tuple[str, str], Operation]:
    """Return the operations of the engine, counted on shapes: those of an image or of a training step."""
    method = build_method(settings)
    if part == "training":
        training = settings.training.model_copy(update={"precision": precision})
        phase = method.phases(training)[-1]
        return step_needs(
            method, settings.model_copy(update={"training": training}), phase, ComputeSettings()
        ).operations
    meta = torch.device("meta")
    with meta, torch.no_grad():
        network = prepare(method, method.build_generator(), meta, precision)
        scales = method.scales(method.options, settings.size)
        sources = [s.to(dtype_of(precision)) for s in blank_pyramid(scales, settings.size, channels=method.channels[0])]
        with Meter() as meter:
            network(sources)
    return meter.operations
