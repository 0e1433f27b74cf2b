"""What a suite needs and this machine lacks, said before any work."""

import shutil
from pathlib import Path

from msgunet import registry
from msgunet.errors import UserError
from msgunet.suite import Plan


def check(plan: Plan) -> None:
    """Look for the archives, GPU and disk that a suite needs.

    Raises:
        UserError: naming all that is missing, how to get it, and the suite that runs without.

    """
    missing = []
    mirror = Path(plan.suite.data.mirror)
    for data in plan.data:
        if (data.folder / "manifest.csv").is_file():
            continue
        cls = registry.datasets()[data.kind]
        missing += cls(cls.Options.model_validate(data.entry.options), data.entry.size, mirror).missing()
    missing += _gpu(plan) + _disk(plan)
    if missing:
        head = (
            f"suite '{plan.name}' cannot start, {len(missing)} thing{'s are' if len(missing) > 1 else ' is'} missing:"
        )
        tail = "'snakemake --cores all --config suite=demo' needs none of this and ends within minutes on a laptop"
        raise UserError(head, *(f"  - {problem}" for problem in missing), tail)


def _gpu(plan: Plan) -> list[str]:
    if not plan.suite.compute.gpu_required:
        return []
    import torch

    if torch.cuda.is_available():
        return []
    return ["a CUDA GPU: torch finds none; set compute.gpu_required to false to train on the CPU, which takes months"]


def _disk(plan: Plan) -> list[str]:
    free = shutil.disk_usage(".").free / 1e9
    wanted = plan.suite.compute.disk_gb
    if free >= wanted:
        return []
    return [f"disk: {wanted:.0f} GB are needed in {Path.cwd()}, {free:.0f} GB are free (compute.disk_gb)"]
