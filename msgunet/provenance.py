"""What is written beside every result: software, commit, device, time."""

import datetime
import functools
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgunet

_PACKAGES = ("torch", "torchvision", "piq", "fvcore", "numpy", "pillow", "pandas", "snakemake")


@functools.cache
def commit() -> str:
    """The commit that the code is at, with `+changes` where files differ from it; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if shutil.which("git") is None or not (root / ".git").exists():
        return "unknown"

    def git(*arguments: str) -> str:
        run = subprocess.run(("git", "-C", str(root), *arguments), capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if head and changed else head or "unknown"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "msgunet": msgunet.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_name(device: Any) -> str:
    """The name of a torch device, as tables give it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name()


def facts(device: Any, threads: int) -> dict[str, Any]:
    """Versions, commit, time, and the torch device with the number of CPU threads."""
    return {
        "commit": commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "device": device_name(device),
        "device_type": device.type,
        "threads": threads,
    }


def flat_facts(device: Any, threads: int) -> dict[str, Any]:
    """`facts` for the columns of a table, the versions in one text."""
    found = facts(device, threads)
    return {**found, "versions": " ".join(f"{name}={text}" for name, text in found["versions"].items())}
