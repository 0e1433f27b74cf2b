"""Commands as other users, who can read nothing but what everybody can."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

# In a mount namespace of its own: an empty folder over one that is closed to others, with only Python in it.
_OPEN_PYTHON = (
    'mount --bind "$2" /mnt && mount -t tmpfs -o mode=755 none "$1" && mkdir -p "$2" && mount --bind /mnt "$2" '
    '&& umount /mnt && shift 2 && exec "$@"'
)


def as_user(uid: int, *command, gid: int | None = None, **options) -> subprocess.CompletedProcess:
    """Run a command as a user id without a name; `options` are those of subprocess.run, such as `umask`.

    The environment has no home unless `env` sets one.
    """
    gid = uid if gid is None else gid
    become = [*_opened(), "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "HOME": "/nonexistent", **options.pop("env", {})}
    defaults = {"capture_output": True, "text": True, "check": False, "umask": 0o022}
    return subprocess.run([*become, *map(str, command)], **{**defaults, **options}, env=environment)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a temporary folder that all users can write to; skip the test if there can be no other users.

    Pytest's own temporary folders are closed again whenever another pytest starts.
    """
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can run a command as another user, with setpriv")
    if not _environment_is_open():
        pytest.skip("other users cannot read the environment")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        yield folder


@functools.cache
def _environment_is_open() -> bool:
    check = as_user(51234, sys.executable, "-c", "import torch, msgunet", env={"PYTHONPATH": str(ROOT)})
    return check.returncode == 0


def _opened() -> list[str]:
    python = Path(sys.base_prefix).resolve()
    closed = [folder for folder in python.parents if not folder.stat().st_mode & 0o001]
    return ["unshare", "--mount", "sh", "-c", _OPEN_PYTHON, "sh", str(closed[-1]), str(python)] if closed else []
