"""`msgunet plan`: what a suite will take, before anyone spends it: jobs, steps, operations, hours."""

import heapq
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from msgunet.core.checkout import shipped
from msgunet.core.errors import UserError
from msgunet.core.files import canonical_json
from msgunet.core.provenance import device_of
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.core.table import Cell, Table, number
from msgunet.data.manifest import steps_per_epoch
from msgunet.methods.registry import build_method
from msgunet.suite import jobs
from msgunet.suite.plan import Plan
from msgunet.training.memory import step_needs

# What `msgunet bench` wrote for this project.
_MEASURED = "results/measured/cpu_speed.csv"
_AT_ONCE = (1, 4, 16)


def plan_table(plan: Plan, speed: Path | None, rate: float | None, command: str) -> Table:
    """One row for each training.

    Args:
        plan: of the suite.
        speed: what `msgunet bench` has written; None: the project's own measurements.
        rate: TFLOP/s that trainings reach, instead of measured ones.
        command: that makes the table.

    Raises:
        UserError: `speed` has no row of a training step in the suite's precision.

    """
    measured = None if rate else _measured(speed)
    columns = ["Training", "Data set", "Size", "Pairs", "Epochs", "Steps", "TFLOP a step", "TFLOP/s", "Time", "Jobs"]
    rows, hours, assumed, timed = [], [], False, False
    counted: dict[str, list[int]] = {}
    for run in (*plan.runs, *plan.gradients):
        if not run.trainable:
            continue
        settings = run.settings
        count, _ = jobs.pairs(plan, run)
        reached, same = (rate, True) if rate else _reached(measured, settings)
        assumed |= not same
        speed_of_all = 1e12 * reached * plan.suite.compute.processes
        steps, flop = _work(settings, count, counted, speed_of_all)
        timed |= settings.training.minutes is not None
        hours.append((settings.training.minutes or flop / speed_of_all / 60) / 60)
        rows.append(
            [
                plan.label(run),
                settings.dataset,
                "×".join(map(str, settings.size)),
                number(count, ","),
                number(steps / steps_per_epoch(count, settings.training.batch_size), ",.0f"),
                number(steps, ",.0f"),
                number(flop / steps / 1e12, ".3g"),
                Cell(f"{reached:.3g}" + ("" if same else "*"), reached),
                Cell(_time(hours[-1]), hours[-1]),
                number(math.ceil(hours[-1] / plan.suite.compute.job_hours), ","),
            ]
        )
    if rate:
        notes = _totals(plan, hours, "a device")
        notes.append(f"time: at {rate:g} TFLOP/s, as --rate says, whatever the network")
    else:
        notes = _totals(plan, hours, "a GPU" if measured["device_type"].iloc[0] == "cuda" else "a CPU")
        notes.append(
            f"time: at the speed of training steps measured on {device_of(measured)} at commit "
            f"{measured['commit'].iloc[0]}; for another device: msgunet bench, then --speed, or --rate TFLOP/s"
        )
    if assumed:
        notes.append("* not measured for this network at this size: the rate of the nearest that was")
    if timed:
        notes.append("trainings for a number of minutes: the epochs and steps that these are enough for")
    notes.append(
        "operations: counted for one step of each phase, 1 MAC = 2 FLOP; evaluations are minutes each, not in it"
    )
    return Table("plan", f"What the suite '{plan.name}' will take", columns, rows, notes, command)


def _measured(speed: Path | None) -> pd.DataFrame:
    path = speed or shipped(_MEASURED)
    try:
        frame = pd.read_csv(path)
        frame = frame[(frame["part"] == "training") & (frame["way"] == "engine")]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a table of 'msgunet bench' ({error})") from error
    if frame.empty:
        raise UserError(f"{path} has no training step; measure it: msgunet bench --part training --out {path}")
    return frame


def _reached(measured: pd.DataFrame, settings: RunSettings) -> tuple[float, bool]:
    """TFLOP/s of this training's steps, and whether just these were measured."""
    width, height = settings.size
    precision = settings.training.precision
    there = measured[measured["precision"] == precision]
    if there.empty:
        raise UserError(f"the measured speeds have no training step in {precision}; measure it: msgunet bench")
    same = (there["entry"] == settings.entry) & (there["width"] == width) & (there["height"] == height)
    if same.any():
        return there.loc[same, "tflop_per_s"].iloc[0], True
    found = there[there["entry"] == settings.entry] if (there["entry"] == settings.entry).any() else there
    distance = (found["width"] * found["height"] / (width * height)).map(lambda ratio: abs(math.log(ratio)))
    return found.loc[distance.idxmin(), "tflop_per_s"], False


def _work(settings: RunSettings, count: int, counted: dict[str, list[int]], speed: float) -> tuple[float, float]:
    """Steps of a training, and FLOP of all of them.

    counted: FLOP of a step of each phase, of networks before. speed: FLOP/s, which say what a training by the clock
    comes to.
    """
    method = build_method(settings)
    phases = method.phases(settings.training)
    # The same network on another data set takes the same steps.
    same = settings.model_dump(mode="json", exclude={"dataset", "data", "entry", "seed", "gradient_records"})
    key = canonical_json(same)
    if key not in counted:
        print(f"counting {settings.entry} at {settings.size[0]}x{settings.size[1]}", file=sys.stderr, flush=True)
        counted[key] = [step_needs(method, settings, phase, ComputeSettings()).flop for phase in phases]
    per_epoch = steps_per_epoch(count, settings.training.batch_size)
    steps = [float(phase.length * per_epoch) for phase in phases]
    if settings.training.minutes is not None:
        second = 60 * settings.training.minutes * speed / sum(phase.length for phase in phases)
        steps = [phase.length * second / one for phase, one in zip(phases, counted[key], strict=True)]
    return sum(steps), sum(number * one for number, one in zip(steps, counted[key], strict=True))


def _totals(plan: Plan, hours: Sequence[float], device: str) -> list[str]:
    team = plan.suite.compute.processes
    side_by_side = ", ".join(f"{_time(_side_by_side(hours, count))} with {count}" for count in _AT_ONCE)
    return [
        f"jobs: {_jobs(plan)}; a training that takes longer than compute.job_hours ({plan.suite.compute.job_hours:g}) "
        "takes several",
        f"all trainings: {_time(team * sum(hours))} of {device}; longest first they end after {side_by_side} at once",
        f"critical path: data, the longest training ({_time(max(hours, default=0))}), its evaluation, tables, page",
    ]


def _jobs(plan: Plan) -> str:
    ablations = sum(run.settings.entry in plan.suite.ablation.methods for run in plan.runs)
    counts = {
        "preparations": len({data.folder for data in plan.data}),
        "trainings": len(plan.runs),
        "evaluations": len(plan.runs),
        "ablations": ablations,
        "gradient trainings": len(plan.gradients),
        "cost": 1,
    }
    said = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return f"{sum(counts.values())} ({said}); fetching, tables, figures and page are done where Snakemake runs"


def _side_by_side(hours: Sequence[float], count: int) -> float:
    """When the last training ends if so many run at once, each taking the longest that is left."""
    ends = [0.0] * count
    for one in sorted(hours, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 6 else f"{math.ceil(3600 * hours)} s"
