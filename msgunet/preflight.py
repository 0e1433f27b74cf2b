"""What a suite needs and this machine lacks, said before any work."""

import shutil
from pathlib import Path

from msgunet.config import MachineSettings
from msgunet.errors import UserError
from msgunet.registry import build_method
from msgunet.suite import Plan


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
    said = {}
    for run in plan.runs:
        settings = run.settings
        if settings.file is None or (settings.entry, settings.size, settings.channels) in said:
            continue
        import torch

        from msgunet.data.pairs import blank_pyramid
        from msgunet.training.memory import step_needs

        method = build_method(settings)
        width, height = settings.size
        scales = method.scales(method.options, settings.size)
        with torch.device("meta"), torch.no_grad():
            output = method.build_generator()(blank_pyramid(scales, settings.size, channels=settings.channels[0]))[0]
        wanted = (1, settings.channels[1], height, width)
        if tuple(output.shape) != wanted:
            raise UserError(f"methods.{settings.entry}: an output is {tuple(output.shape)}, the target {wanted}")
        phases = method.phases(settings.training) if method.trainable else []
        needs = [step_needs(method, settings, phase, plan.suite.compute).memory for phase in phases]
        step = f"a training step runs through, in about {max(needs) / 2**20:,.0f} MiB" if needs else "nothing to train"
        said[settings.entry, settings.size, settings.channels] = (
            f"{settings.entry} ({settings.file}) at {width}x{height}: {step}"
        )
    return list(said.values())


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
    import torch

    wanted, there = plan.suite.compute.processes, torch.cuda.device_count()
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
