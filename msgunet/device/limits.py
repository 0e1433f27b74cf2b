"""The limits of a device that were measured earlier, and the time that operations take at them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msgunet.core.checkout import ROOT
from msgunet.core.errors import UserError
from msgunet.core.frames import read_frame
from msgunet.core.provenance import device_of
from msgunet.core.registry import suggest
from msgunet.device.meter import Operation

_RESULTS = Path("results") / "gpu"
_COLUMNS = ["precision", "limit_tflop_per_s", "bandwidth_gb_per_s", "device", "commit"]


@dataclass(frozen=True)
class Limits:
    """The best rates of a device.

    Attributes:
        rates: TFLOP/s of a large matrix product or convolution by precision (`fp32`, `tf32`, `bf16`).
        bandwidth: GB/s of a large copy.
        origin: device, commit and file of the measurement.

    """

    rates: dict[str, float]
    bandwidth: float
    origin: str


def read_limits(name: str) -> Limits:
    """Read limits from the results of `msgunet bench`.

    Args:
        name: a device in `results/gpu`, such as `h100`, or the path of a CSV file.

    Raises:
        UserError: there is no such device or file, or the file has no limits.

    """
    path = Path(name)
    if path.suffix != ".csv":
        known = {file.parts[-3]: file for file in sorted(ROOT.joinpath(_RESULTS).glob("*/speed/speed.csv"))}
        if name not in known:
            raise UserError(
                f"there are no measured limits of '{name}'; {suggest(name, known)}; otherwise give a CSV file that "
                "'msgunet bench' wrote"
            )
        path = known[name]
    try:
        frame = read_frame(path)
        rows = frame[_COLUMNS].groupby("precision")
        rates = rows["limit_tflop_per_s"].max().to_dict()
        bandwidth = float(frame["bandwidth_gb_per_s"].max())
        device = device_of(frame)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not a table of 'msgunet bench' with the limits of a device ({error})") from error
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return Limits(rates, bandwidth, f"{device} at commit {frame['commit'].iloc[0]} ({shown})")


def foretold(operations: Mapping[tuple[str, str], Operation], precision: str, limits: Limits) -> pd.DataFrame:
    """Return what each operation takes at the limits of a device, longest first.

    A call takes its FLOP divided by the rate or its bytes divided by the bandwidth, whichever is longer. No two calls
    overlap, and none keeps anything in a cache for the next.

    Args:
        operations: by name and precision of the result (`Meter.operations`).
        precision: that of the network; `tf32` computes fp32 convolutions and products in TF32.
        limits: of the device.

    Returns:
        One row for each operation: `operation`, `precision`, `calls`, `flop`, `bytes` and `ms`.

    Raises:
        UserError: a rate that is needed was not measured.

    """
    rows = []
    for (name, dtype), operation in operations.items():
        used = "tf32" if operation.flop and dtype == "fp32" and precision == "tf32" else dtype
        if operation.flop and used not in limits.rates:
            raise UserError(f"the rate in {used} is not among the limits of {limits.origin}: {', '.join(limits.rates)}")
        rate = limits.rates.get(used, math.inf)
        ms = sum(max(flop / rate / 1e9, moved / limits.bandwidth / 1e6) for flop, moved in operation.each)
        row = {"operation": name, "precision": used, "calls": len(operation.each), "flop": operation.flop}
        rows.append({**row, "bytes": operation.bytes, "ms": ms})
    frame = pd.DataFrame(rows, columns=["operation", "precision", "calls", "flop", "bytes", "ms"])
    return frame.sort_values("ms", ascending=False, ignore_index=True)
