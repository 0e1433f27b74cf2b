"""A real, small disk that tests fill and free."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A real, small file system at `folder`, which can be filled to the last byte and freed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filling = folder / "filling"

    def fill(self) -> None:
        with self._filling.open("ab") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(1 << 12))
        assert shutil.disk_usage(self.folder).free == 0

    def free(self) -> None:
        self._filling.unlink()

    def free_in(self, seconds: float) -> threading.Timer:
        """Free the disk after some seconds; the timer has been started."""
        timer = threading.Timer(seconds, self.free)
        timer.start()
        return timer


@contextlib.contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a file system of this size; skip the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk requires root")
    try:
        yield Disk(folder)
    finally:
        # Lazily, since the traceback of a failed test may hold a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
