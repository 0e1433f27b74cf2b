"""The origin of a result: commit, versions, processor."""

import functools
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from msgunet.core.checkout import ROOT
from msgunet.core.version import __version__

if TYPE_CHECKING:
    import pandas as pd

_PACKAGES = ("torch", "torchvision", "piq", "fvcore", "numpy", "pillow", "pandas", "snakemake")


@functools.cache
def commit() -> str:
    """Return the checked-out commit, with `+changes` if tracked files differ from it.

    Outside a checkout, such as in a copy of its files, it is the environment variable `MSGUNET_COMMIT`, or `unknown`.
    """
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return os.environ.get("MSGUNET_COMMIT", "unknown")

    def git(*arguments: str) -> str:
        # Git refuses another user's checkout, whose settings could have programs started. Here its code is running.
        command = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments)
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if head and changed else head or "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python, this project and the packages that results depend on."""
    found = {"python": platform.python_version(), "msgunet": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Return the processor's name, as far as the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_of(frame: "pd.DataFrame") -> str:
    """Return the device of a table's rows; for a CPU, with the number of threads."""
    row = frame.iloc[0]
    if row["device_type"] == "cuda":
        return row["device"]
    threads = int(row["threads"])
    return f"{row['device']}, {threads} CPU thread{'s' * (threads > 1)}"
