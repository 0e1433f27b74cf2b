"""The resource requirements of a suite's jobs. Imports no torch, since the rules import it."""

import contextlib
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.metrics import METRICS, measuring_memory
from msgunet.data.base import DataSet
from msgunet.data.manifest import read_manifest
from msgunet.suite.plan import Plan
from msgunet.suite.runs import DataPlan, RunPlan

# Upper bounds over all methods at full width, from the counts of `msgunet plan` and docs/training.md: FLOP and bytes
# per pixel of a training step's images, bytes per pixel of a test image, and MB of a process and its weights.
_FLOP_A_PIXEL = 8.2e6
_TRAINING_BYTES = 9e3
_TEST_BYTES = 4e3
_PROCESS, _CUDA = 3000, 3000
# Conservative FLOP/s: fp32 on a GPU of 2017, and on each thread of a CPU (docs/training.md).
_GPU_RATE, _CPU_RATE = 4e12, 4e10
# Seconds per megapixel, in both protocols, of a metric with a network of its own on one thread of a CPU.
_NETWORK_SECONDS = 100
# Factor for custom methods, whose cost is unknown until their networks are built.
_CUSTOM = 2.5
# Training and test pairs of a data set that cannot count them before its preparation.
_UNKNOWN = (2000, 500)


@dataclass(frozen=True)
class Request:
    """The resources requested for a job: `runtime` in minutes, `mem_mb` and the number of GPUs in `gpu`."""

    runtime: int
    mem_mb: int
    gpu: int


def training(plan: Plan, run: RunPlan, attempt: int = 1) -> Request:
    """Return the requirements of a training; runtime is capped at `compute.job_hours`, then another job resumes it."""
    compute, settings = plan.suite.compute, run.settings
    count = compute.processes if run.trainable else 1
    gpu = int(compute.gpu_required and run.trainable)
    rate = count * (_GPU_RATE if gpu else _CPU_RATE * compute.threads)
    margin = 1 if settings.file is None else _CUSTOM
    flop = run.relative_duration * 1000 * pairs(plan, run)[0] * _FLOP_A_PIXEL * margin
    time_limit = settings.training.minutes if run.trainable else None
    minutes = 20 + (time_limit or flop / rate / 60)
    megabytes = _PROCESS + _CUDA * gpu + 1000 * compute.workers
    if run.trainable and not gpu:
        width, height = settings.size
        megabytes += width * height * settings.training.batch_size * _TRAINING_BYTES * margin / 1e6 / count
    # A training that ran out of memory gets more; the cap keeps repeated pre-emptions from raising it without end.
    megabytes *= min(2, 1 + (attempt - 1) / 2)
    return Request(_minutes(plan, minutes * attempt), math.ceil(count * megabytes), gpu * count)


def evaluation(plan: Plan, run: RunPlan, attempt: int = 1) -> Request:
    """Return the requirements of evaluating a run; on a CPU, VIF and the networks of metrics take most of the time."""
    compute, (width, height) = plan.suite.compute, _data(plan, run).entry.size
    metrics = plan.suite.evaluation.metrics
    megapixels = width * height / 1e6
    networks = sum(bool(METRICS[metric].weights) for metric in metrics)
    seconds = pairs(plan, run)[1] * (1 + (20 + _NETWORK_SECONDS * networks) * megapixels)
    gpu = int(compute.gpu_required and run.trainable)
    measured = measuring_memory(metrics, width, height) * (compute.threads + compute.workers)
    megabytes = _PROCESS + _CUDA * gpu + _TEST_BYTES * megapixels + measured / 1e6
    return Request(_minutes(plan, (20 + seconds / 60) * attempt), math.ceil(megabytes * attempt), gpu)


def cost(plan: Plan, attempt: int = 1) -> Request:
    """Return the requirements of the cost table: counts and timings, about a minute per network and size on a CPU."""
    # Only generators are timed. A suite of reference rows has none.
    gpu = int(plan.suite.compute.gpu_required and any(n.part == "generator" for n in plan.networks.networks))
    pixels = max((network.size[0] * network.size[1] for network in plan.networks.networks), default=0)
    megabytes = _PROCESS + _CUDA * gpu + _TEST_BYTES * pixels / 1e6
    minutes = 20 + 2 * len(plan.networks.networks)
    return Request(_minutes(plan, minutes * attempt), math.ceil(megabytes * attempt), gpu)


def pairs(plan: Plan, run: RunPlan) -> tuple[int, int]:
    """Return the training and test pairs of a run: as prepared, else as published, else a guess."""
    data = _data(plan, run)
    if not (data.folder / "manifest.csv").is_file():
        expected = _expected(plan.dataset(data)[0], data.settings)
        return expected if data.entry.pairs is None else tuple(map(min, expected, data.entry.pairs))
    return _counted(data.folder / "manifest.csv")


def _minutes(plan: Plan, minutes: float) -> int:
    return math.ceil(min(minutes, 60 * plan.suite.compute.job_hours))


def _data(plan: Plan, run: RunPlan) -> DataPlan:
    return next(data for data in plan.data if data.name == run.settings.dataset)


@functools.cache
def _counted(manifest: Path) -> tuple[int, int]:
    splits = [pair.split for pair in read_manifest(manifest)]
    return splits.count("train"), splits.count("test")


_expectations: dict[str, tuple[int, int]] = {}


def _expected(dataset: DataSet, settings: str) -> tuple[int, int]:
    if settings not in _expectations:
        # The preparation reports the problems of a data set.
        with contextlib.suppress(UserError):
            _expectations[settings] = dataset.count() or _UNKNOWN
    return _expectations.get(settings, _UNKNOWN)
