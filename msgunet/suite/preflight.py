"""The preflight check: find what this machine lacks for a suite, before any work starts."""

import os
import shutil
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from msgunet.core.bugs import MethodBug, bugs_named
from msgunet.core.errors import UserError
from msgunet.core.metrics import METRICS, enumerated, weights_of
from msgunet.core.permissions import may_write, refused
from msgunet.core.settings import MachineSettings
from msgunet.methods.weights import WEIGHTS
from msgunet.methods.weights import missing as missing_weights
from msgunet.suite.plan import Plan
from msgunet.suite.runs import DataPlan


def check(plan: Plan, remote: bool = False) -> None:
    """Check for the archives, weights, GPUs, disk space and write permissions that a suite needs.

    `remote`: trainings run on other machines, such as a cluster's nodes, so that this one needs no GPU.

    Raises:
        UserError: requirements are not met; lists each with its remedy, and names a suite that needs none of them.

    """
    missing = []
    unprepared = [data for data in plan.data if not (data.folder / "manifest.csv").is_file()]
    for data in unprepared:
        dataset, downloads = plan.dataset(data)
        missing += dataset.missing(downloads)
    # Finished runs need neither GPU nor disk: tables can be made again on any machine.
    if not remote and any(not (run.folder / "metrics.csv").is_file() for run in plan.runs):
        missing += _gpu(plan)
        missing += _precision(plan)
    if unprepared:
        missing += _disk(plan)
    missing += _weights(plan)
    if any(not (run.folder / "metrics.csv").is_file() for run in plan.runs):
        missing += _weights_of_metrics(plan)
    missing += _closed(plan, unprepared)
    if missing:
        count = f"{len(missing)} requirement{'s are' if len(missing) > 1 else ' is'}"
        head = f"suite '{plan.name}' cannot start: {count} not met:"
        tail = "'snakemake --cores all --config suite=demo' needs none of these and finishes within minutes on a laptop"
        raise UserError(head, *(f"  - {problem}" for problem in missing), tail)


def rehearse(plan: Plan) -> list[str]:
    """Run a training step of each custom method in each phase, on shapes alone; return one line per method.

    Raises:
        UserError: errors in the code of methods, each once; the traceback points to the faulty line.

    """
    custom = {}
    for run in plan.runs:
        settings = run.settings
        if settings.file is not None:
            custom.setdefault((settings.entry, settings.size, settings.channels), settings)
    if not custom:
        return []
    from msgunet.training.rehearsal import rehearse

    lines: list[str] = []
    # Entries of the same method have the same errors, with other numbers.
    bugs: dict[tuple[str, str], MethodBug] = {}
    for settings in custom.values():
        try:
            with bugs_named():
                lines.append(rehearse(settings, plan.suite.compute))
        except MethodBug as bug:
            bugs.setdefault((bug.method, bug.place), bug)
    if bugs:
        raise UserError(*map(str, bugs.values()), trace="\n".join(bug.trace for bug in bugs.values() if bug.trace))
    return lines


def _weights(plan: Plan) -> list[str]:
    """Check for VGG-19 weights that the suite names; a rule downloads the default file."""
    used = any(run.settings.perceptual and run.settings.perceptual.weights == "imagenet" for run in plan.runs)
    path = Path(plan.machine.vgg19)
    if not used or path.is_file() or plan.machine.vgg19 == MachineSettings().vgg19:
        return []
    return [f"VGG-19 weights: data.vgg19 is {path}, which does not exist; leave it out to download them (548 MB)"]


def _weights_of_metrics(plan: Plan) -> list[str]:
    """Check for the weights of metrics that the suite names; a rule downloads those at their default places."""
    metrics = [metric for metric in plan.suite.evaluation.metrics if METRICS[metric].weights]
    named = {key: Path(path) for key, path in _by_place(plan, default=False).items()}
    return missing_weights(named, enumerated([METRICS[metric].name for metric in metrics]))


def downloads(plan: Plan) -> list[str]:
    """Return a line for each file of weights that a rule downloads because the suite's metrics need it."""
    return [
        f"{path} will be downloaded: {WEIGHTS[key].about}; or beforehand: msgunet fetch {key}"
        for key, path in _by_place(plan, default=True).items()
        if not Path(path).is_file()
    ]


def _by_place(plan: Plan, default: bool) -> dict[str, str]:
    """Return by key the paths of the weights that the suite's metrics need: the default ones, or those it names."""
    paths = {key: getattr(plan.machine, key) for key in weights_of(plan.suite.evaluation.metrics)}
    return {key: path for key, path in paths.items() if (path == getattr(MachineSettings(), key)) is default}


def _closed(plan: Plan, unprepared: Sequence[DataPlan]) -> list[str]:
    """Check that the remaining jobs can write to the folders that exist; another user may have made them."""
    snakemake = Path(".snakemake")
    places = [snakemake, *(path for path in snakemake.glob("*") if path.is_dir() or path.suffix == ".lock")]
    finished = {run.folder for run in plan.runs if (run.folder / "metrics.csv").is_file()}
    for folder in (plan.results, *(data.folder for data in unprepared), *([Path("logs")] if unprepared else [])):
        places += _inside(folder, finished)
    closed = [place for place in places if place.exists() and not may_write(place)]
    if not closed:
        return []
    count = "one of the folders and files" if len(closed) == 1 else f"{len(closed)} of the folders and files"
    return [f"write access to {count} in {Path.cwd()}: {refused(closed[0])}"]


def _inside(folder: Path, without: Container[Path]) -> Iterator[Path]:
    """Yield the folders from `folder` on, and the files in them that are written in place: the others are replaced."""
    for name, folders, files in os.walk(folder):
        place = Path(name)
        yield place
        yield from (place / file for file in files if file.startswith(".lock") or file.endswith(".log"))
        folders[:] = [inner for inner in folders if place / inner not in without]


def _gpu(plan: Plan) -> list[str]:
    if not plan.suite.compute.gpu_required:
        return []
    from msgunet.device.pick import gpu_count

    required, available = plan.suite.compute.processes, gpu_count()
    if available >= required:
        return []
    if available:
        return [f"CUDA GPUs: compute.processes needs {required}, torch finds {available}"]
    return [
        "a CUDA GPU: torch finds none; to train on the CPU, set compute.gpu_required to false ('msgunet plan' "
        "forecasts the time)"
    ]


def _precision(plan: Plan) -> list[str]:
    """Check that the evaluations' precision is one of this machine's device."""
    if (wanted := plan.suite.evaluation.precision) == "fp32":
        return []
    from msgunet.device.pick import requested_device
    from msgunet.device.precision import unsupported

    device = requested_device(plan.suite.compute)
    used = {run.settings.training.precision if wanted == "training" else wanted for run in plan.runs if run.trainable}
    problems = [problem for precision in sorted(used) if (problem := unsupported(precision, device))]
    return [f"evaluation.precision '{wanted}': {problem}" for problem in problems]


def _disk(plan: Plan) -> list[str]:
    free = shutil.disk_usage(".").free / 1e9
    required = plan.suite.compute.disk_gb
    if free >= required:
        return []
    return [f"disk: {required:.0f} GB are needed in {Path.cwd()} (compute.disk_gb), {free:.0f} GB are free"]
