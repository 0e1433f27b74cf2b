"""`msgunet plan`: forecast the jobs, steps, operations and hours of a suite before it runs."""

import heapq
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msgunet.core.checkout import repository_file
from msgunet.core.errors import UserError
from msgunet.core.files import canonical_json
from msgunet.core.frames import read_frame
from msgunet.core.permissions import explain
from msgunet.core.provenance import cpu_name, device_of
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.core.table import Cell, Table, number
from msgunet.data.manifest import steps_per_epoch
from msgunet.device.limits import Limits, foretold
from msgunet.methods.generator import retraining_note
from msgunet.methods.registry import build_method
from msgunet.suite import jobs
from msgunet.suite.plan import Plan
from msgunet.training.memory import StepNeeds, step_needs

# The speeds in a suite's results: those of `msgunet bench`, and those of the steps that `msgunet new-suite` timed.
STEPS_FILE = "new_suite_speed.csv"
_OWN = ("speed.csv", STEPS_FILE)
# Without those: this project's measurements, made with `msgunet bench` on two CPUs. The first one that fits is used.
_MEASURED = ("results/measured/cpu_speed.csv", "results/measured/cpu_bf16_speed.csv")
# In place of a precision that was not measured, the first of these that was. None is slower than fp32 on a device that
# computes it natively.
_PRECISIONS = ("fp32", "tf32", "bf16")
# Numbers of trainings in parallel, for the totals.
_CONCURRENT = (1, 4, 16)


def plan_table(plan: Plan, speed: Path | None, rate: float | None, limits: Limits | None, command: str) -> Table:
    """Return the forecast of a suite, one row for each training.

    Args:
        plan: plan of the suite.
        speed: table written by `msgunet bench`; None: the measurements in the suite's results, else the project's own.
        rate: assumed TFLOP/s of all trainings, instead of measured speeds.
        limits: of a device, for which the speeds are foretold instead.
        command: command that makes the table.

    Raises:
        UserError: `speed` is not a table of `msgunet bench`, or it has no training step.

    """
    measured = None if rate or limits else _measured(plan, speed)
    columns = ["Training", "Data set", "Size", "Pairs", "Epochs", "Steps", "TFLOP a step", "TFLOP/s", "Time", "Jobs"]
    rows, hours, timed = [], [], False
    used: list[_Speed] = []
    counted: dict[str, list[StepNeeds]] = {}
    for run in (*plan.runs, *plan.gradients):
        if not run.trainable:
            continue
        settings = run.settings
        count, _ = jobs.pairs(plan, run)
        steps_of = _counted(settings, counted)
        if rate:
            speed_of = _Speed(rate)
        elif limits:
            speed_of = _foretold(settings, steps_of[-1], limits)
        else:
            speed_of = _reached(measured, settings)
        used.append(speed_of)
        total_speed = 1e12 * speed_of.rate * plan.suite.compute.processes
        steps, flop = _work(settings, count, [needs.flop for needs in steps_of], total_speed)
        timed |= settings.training.minutes is not None
        hours.append((settings.training.minutes or flop / total_speed / 60) / 60)
        rows.append(
            [
                plan.label(run),
                settings.dataset,
                "×".join(map(str, settings.size)),
                number(count, ","),
                number(steps / steps_per_epoch(count, settings.training.batch_size), ",.0f"),
                number(steps, ",.0f"),
                number(flop / steps / 1e12, ".3g"),
                Cell(f"{speed_of.rate:.3g}{speed_of.mark}", speed_of.rate),
                Cell(_time(hours[-1]), hours[-1]),
                number(math.ceil(hours[-1] / plan.suite.compute.job_hours), ","),
            ]
        )
    gpu = measured is not None and measured["device_type"].iloc[0] == "cuda"
    notes = _totals(plan, hours, "device" if measured is None else "GPU" if gpu else "CPU")
    if rate:
        notes.append(f"time: at {rate:g} TFLOP/s (--rate) for every network")
    elif limits:
        notes.append(
            f"time: foretold, not measured: each operation of a step at the limits of {limits.origin}; real trainings "
            "take longer"
        )
    elif used:
        origins = " and ".join(dict.fromkeys(speed_of.origin for speed_of in used))
        notes.append(
            f"time: from the speed of training steps measured on {origins}; for another device: msgunet bench, then "
            "--speed; or --rate TFLOP/s"
        )
        notes += _elsewhere(plan, used)
    if any(speed_of.other_network for speed_of in used):
        notes.append("* not measured for this network at this size: the speed of the closest measurement")
    notes += dict.fromkeys(speed_of.substitution for speed_of in used if speed_of.substitution)
    for run in plan.runs:
        if run.trainable and (note := retraining_note(run.folder / "generator.safetensors", run.settings)):
            notes.append(f"{plan.label(run)} on {run.settings.dataset}, seed {run.settings.seed}: {note}")
    if timed:
        notes.append("time-limited trainings (training.minutes): epochs and steps are estimates")
    notes.append(
        "operations: counted for one step of each phase, 1 MAC = 2 FLOP; evaluations (minutes each) are not included"
    )
    return Table("plan", f"Forecast of the suite '{plan.name}'", columns, rows, notes, command)


@dataclass(frozen=True)
class _Speed:
    """The speed of a training's steps.

    Attributes:
        rate: TFLOP/s.
        origin: the device and commit of the measurement.
        cpu: the name of the processor, if it was one.
        other_network: it was measured for another network or size.
        substitution: the note on a precision that was not measured; empty if it was.

    """

    rate: float
    origin: str = ""
    cpu: str = ""
    other_network: bool = False
    substitution: str = ""

    @property
    def mark(self) -> str:
        return "*" * self.other_network + "†" * bool(self.substitution)


def _measured(plan: Plan, speed: Path | None) -> pd.DataFrame:
    own = [path for name in _OWN if (path := plan.results / name).is_file()]
    # 'msgunet bench' can have timed inference alone.
    found = [] if speed else [steps for path in own if len(steps := _engine_steps(path))]
    found = found or [_training_steps(path) for path in ([speed] if speed else map(repository_file, _MEASURED))]
    return pd.concat(found, ignore_index=True)


def _elsewhere(plan: Plan, used: Sequence[_Speed]) -> list[str]:
    """Return a note if speeds are those of another processor than this machine's."""
    here = cpu_name()
    others = sorted({speed_of.cpu for speed_of in used} - {"", here})
    suite = plan.report["command"].partition("suite=")[2]
    return others and [
        f"this machine is not {' or '.join(others)} but {here}; to time its steps: msgunet bench {suite} --part "
        "training, then plan again"
    ]


def _training_steps(path: Path) -> pd.DataFrame:
    frame = _engine_steps(path)
    if frame.empty:
        raise UserError(f"{path} has no training step; measure it: msgunet bench --part training --out {path}")
    return frame


def _engine_steps(path: Path) -> pd.DataFrame:
    try:
        frame = read_frame(path)
        return frame[(frame["part"] == "training") & (frame["way"] == "engine")]
    except PermissionError as error:
        raise UserError(explain(error, path)) from error
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a table written by 'msgunet bench' ({error})") from error


def _reached(measured: pd.DataFrame, settings: RunSettings) -> _Speed:
    """Return the speed of this training's steps, or of the closest measurement."""
    width, height = settings.size
    wanted = settings.training.precision
    precision = next(p for p in (wanted, *_PRECISIONS) if (measured["precision"] == p).any())
    available = measured[measured["precision"] == precision]
    same_entry = available["entry"] == settings.entry
    exact = same_entry & (available["width"] == width) & (available["height"] == height)
    candidates = available[exact] if exact.any() else available[same_entry] if same_entry.any() else available
    distance = (candidates["width"] * candidates["height"] / (width * height)).map(lambda ratio: abs(math.log(ratio)))
    closest = candidates.loc[[distance.idxmin()]]
    return _Speed(
        closest["tflop_per_s"].iloc[0],
        f"{device_of(closest)} at commit {closest['commit'].iloc[0]} ({precision})",
        "" if closest["device_type"].iloc[0] == "cuda" else closest["device"].iloc[0],
        not exact.any(),
        "" if precision == wanted else _substitution(wanted, precision),
    )


def _foretold(settings: RunSettings, needs: StepNeeds, limits: Limits) -> _Speed:
    """Return the speed of such steps of this training at the limits of a device."""
    milliseconds = foretold(needs.operations, settings.training.precision, limits)["ms"].sum()
    return _Speed(needs.flop / 1e9 / milliseconds)


def _substitution(wanted: str, precision: str) -> str:
    better = _PRECISIONS.index(precision) < _PRECISIONS.index(wanted)
    return f"† not measured in {wanted}: the speed in {precision}, " + (
        f"which is a lower estimate if the device computes {wanted} natively; without, {wanted} can be far slower"
        if better
        else f"which {wanted} hardly reaches"
    )


def _counted(settings: RunSettings, counted: dict[str, list[StepNeeds]]) -> list[StepNeeds]:
    """Return the requirements of one step in each phase of a training. `counted` caches them."""
    # These settings do not change a step.
    relevant = settings.model_dump(mode="json", exclude={"dataset", "data", "entry", "seed", "gradient_records"})
    key = canonical_json(relevant)
    if key not in counted:
        print(f"counting {settings.entry} at {settings.size[0]}x{settings.size[1]}", file=sys.stderr, flush=True)
        method = build_method(settings)
        phases = method.phases(settings.training)
        counted[key] = [step_needs(method, settings, phase, ComputeSettings()) for phase in phases]
    return counted[key]


def _work(settings: RunSettings, count: int, flop_of: list[int], speed: float) -> tuple[float, float]:
    """Return the number of steps of a training and their total FLOP.

    `flop_of` are the FLOP of one step in each phase. `speed` in FLOP/s determines the steps of a time-limited training.
    """
    phases = build_method(settings).phases(settings.training)
    per_epoch = steps_per_epoch(count, settings.training.batch_size)
    steps = [float(phase.length * per_epoch) for phase in phases]
    if settings.training.minutes is not None:
        flop_per_length = 60 * settings.training.minutes * speed / sum(phase.length for phase in phases)
        steps = [phase.length * flop_per_length / flop for phase, flop in zip(phases, flop_of, strict=True)]
    return sum(steps), sum(n * flop for n, flop in zip(steps, flop_of, strict=True))


def _totals(plan: Plan, hours: Sequence[float], device: str) -> list[str]:
    processes = plan.suite.compute.processes
    ends = ", ".join(f"{_time(_parallel_hours(hours, count))} with {count}" for count in _CONCURRENT)
    return [
        f"jobs: {_jobs(plan)}; a training longer than compute.job_hours ({plan.suite.compute.job_hours:g}) needs "
        "several",
        f"all trainings: {_time(processes * sum(hours))} of {device} time; longest first, they finish after {ends} "
        "in parallel",
        f"critical path: data, the longest training ({_time(max(hours, default=0))}), its evaluation, tables, page",
    ]


def _jobs(plan: Plan) -> str:
    ablations = sum(run.settings.entry in plan.suite.ablation.methods for run in plan.runs)
    counts = {
        "preparations": len({data.folder for data in (*plan.data, *plan.larger)}),
        "trainings": len(plan.runs),
        "evaluations": len(plan.runs),
        "ablations": ablations,
        "gradient trainings": len(plan.gradients),
        "cost": 1,
    }
    listed = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return f"{sum(counts.values())} ({listed}); downloads, tables, figures and page run on Snakemake's own machine"


def _parallel_hours(hours: Sequence[float], count: int) -> float:
    """Return when the last training ends if `count` run in parallel, the longest remaining one first."""
    ends = [0.0] * count
    for one in sorted(hours, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 6 else f"{math.ceil(3600 * hours)} s"
