"""What a suite needs and this machine lacks, said before any work."""

import shutil
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.settings import MachineSettings
from msgunet.suite.plan import Plan


def check(plan: Plan, elsewhere: bool = False) -> None:
    """Look for the archives, GPU and disk that a suite needs.

    `elsewhere`: trainings run on other machines, such as a cluster's, and this one needs no GPU.

    Raises:
        UserError: naming all that is missing, how to get it, and the suite that runs without.

    """
    missing = []
    unprepared = [data for data in plan.data if not (data.folder / "manifest.csv").is_file()]
    for data in unprepared:
        dataset, downloads = plan.dataset(data)
        missing += dataset.missing(downloads)
    # What is done already needs neither GPU nor disk: tables can be made again anywhere.
    if not elsewhere and any(not (run.folder / "metrics.csv").is_file() for run in plan.runs):
        missing += _gpu(plan)
    if unprepared:
        missing += _disk(plan)
    missing += _weights(plan)
    if missing:
        head = (
            f"suite '{plan.name}' cannot start, {len(missing)} thing{'s are' if len(missing) > 1 else ' is'} missing:"
        )
        tail = "'snakemake --cores all --config suite=demo' needs none of this and ends within minutes on a laptop"
        raise UserError(head, *(f"  - {problem}" for problem in missing), tail)


def rehearse(plan: Plan) -> list[str]:
    """Take a training step of a suite's own methods, in each phase, on shapes alone; a line about each.

    What their code raises is not caught: its traceback leads to the line.

    Raises:
        UserError: a generator's output is not as large as the target.

    """
    own = {}
    for run in plan.runs:
        settings = run.settings
        if settings.file is not None:
            own.setdefault((settings.entry, settings.size, settings.channels), settings)
    if not own:
        return []
    from msgunet.training.rehearsal import rehearse

    return [rehearse(settings, plan.suite.compute) for settings in own.values()]


def _weights(plan: Plan) -> list[str]:
    """The default file is downloaded by a rule; one that the suite names must be there."""
    used = any(run.settings.perceptual and run.settings.perceptual.weights == "imagenet" for run in plan.runs)
    path = Path(plan.machine.vgg19)
    if not used or path.is_file() or plan.machine.vgg19 == MachineSettings().vgg19:
        return []
    return [f"VGG-19's weights: data.vgg19 names {path}, which is not there; leave it out to download them (548 MB)"]


def _gpu(plan: Plan) -> list[str]:
    if not plan.suite.compute.gpu_required:
        return []
    from msgunet.device.pick import gpu_count

    wanted, there = plan.suite.compute.processes, gpu_count()
    if there >= wanted:
        return []
    if there:
        return [f"CUDA GPUs: compute.processes asks for {wanted}, torch finds {there}"]
    return [
        "a CUDA GPU: torch finds none; with compute.gpu_required false the CPU trains ('msgunet plan' says how long)"
    ]


def _disk(plan: Plan) -> list[str]:
    free = shutil.disk_usage(".").free / 1e9
    wanted = plan.suite.compute.disk_gb
    if free >= wanted:
        return []
    return [f"disk: {wanted:.0f} GB are needed in {Path.cwd()}, {free:.0f} GB are free (compute.disk_gb)"]
