"""What a suite's jobs ask a machine or cluster for. Free of torch: rules read it."""

import contextlib
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.data.base import DataSet
from msgunet.data.manifest import read_manifest
from msgunet.suite.plan import DataPlan, Plan, RunPlan

# Upper bounds over all methods at full width, by `msgunet plan`'s counts and docs/training.md: for each pixel of a
# training step's images FLOP and bytes, for each of a test image bytes; and MB of a process and its weights.
_FLOP_A_PIXEL = 8.2e6
_TRAINING_BYTES = 9e3
_TEST_BYTES = 4e3
_PROCESS, _CUDA = 3000, 3000
# FLOP a second, on the safe side: fp32 on a GPU of 2017, and on a CPU with each thread (docs/training.md).
_GPU_RATE, _CPU_RATE = 4e12, 4e10
# So much more for methods in files of a user's own, of which nothing is known without building their networks.
_OWN = 2.5
# Where a data set cannot say it.
_UNKNOWN = (2000, 500)


@dataclass(frozen=True)
class Request:
    """What a job asks for: `runtime` in minutes, `mem_mb`, and `gpu`."""

    runtime: int
    mem_mb: int
    gpu: int


def training(plan: Plan, run: RunPlan, attempt: int = 1) -> Request:
    """One training; its runtime is cut at `compute.job_hours`, after which it goes on in another job."""
    compute, settings = plan.suite.compute, run.settings
    count = compute.processes if run.trainable else 1
    gpu = int(compute.gpu_required and run.trainable)
    rate = count * (_GPU_RATE if gpu else _CPU_RATE * compute.threads)
    more = 1 if settings.file is None else _OWN
    flop = run.work * 1000 * pairs(plan, run)[0] * _FLOP_A_PIXEL * more
    by_the_clock = settings.training.minutes if run.trainable else None
    minutes = 20 + (by_the_clock or flop / rate / 60)
    megabytes = _PROCESS + _CUDA * gpu + 1000 * compute.workers
    if run.trainable and not gpu:
        width, height = settings.size
        megabytes += width * height * settings.training.batch_size * _TRAINING_BYTES * more / 1e6 / count
    # More for one that ran out of it, but no end of it for one that is pre-empted again and again.
    megabytes *= min(2, 1 + (attempt - 1) / 2)
    return Request(_minutes(plan, minutes * attempt), math.ceil(count * megabytes), gpu * count)


def evaluation(plan: Plan, run: RunPlan, attempt: int = 1) -> Request:
    """Translating and measuring the test images of a run; VIF of full-size images on a CPU takes most of it."""
    width, height = _data(plan, run).entry.size
    seconds = pairs(plan, run)[1] * (1 + 20 * width * height / 1e6)
    gpu = int(plan.suite.compute.gpu_required and run.trainable)
    megabytes = _PROCESS + _CUDA * gpu + _TEST_BYTES * width * height / 1e6
    return Request(_minutes(plan, (20 + seconds / 60) * attempt), math.ceil(megabytes * attempt), gpu)


def cost(plan: Plan, attempt: int = 1) -> Request:
    """Counting and timing all networks at all sizes; about a minute for each on a CPU."""
    gpu = int(plan.suite.compute.gpu_required)
    pixels = max((network.size[0] * network.size[1] for network in plan.networks.networks), default=0)
    megabytes = _PROCESS + _CUDA * gpu + _TEST_BYTES * pixels / 1e6
    minutes = 20 + 2 * len(plan.networks.networks)
    return Request(_minutes(plan, minutes * attempt), math.ceil(megabytes * attempt), gpu)


def pairs(plan: Plan, run: RunPlan) -> tuple[int, int]:
    """Training and test pairs of a run: as prepared, or as published, or a guess."""
    data = _data(plan, run)
    if not (data.folder / "manifest.csv").is_file():
        found = _expected(plan.dataset(data)[0], data.settings)
        return found if data.entry.pairs is None else tuple(map(min, found, data.entry.pairs))
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
        # What is wrong with a data set is said by its preparation.
        with contextlib.suppress(UserError):
            _expectations[settings] = dataset.count() or _UNKNOWN
    return _expectations.get(settings, _UNKNOWN)
