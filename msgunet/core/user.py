"""The user that a process runs as. Containers often run as a user id without a name, or without a home."""

import contextlib
import getpass
import os
import stat
import tempfile
from pathlib import Path


def ensure_user() -> None:
    """Set what libraries ask for and the user lacks: a name, a home, folders for caches that can be written.

    Torch and Snakemake fail without a name, Triton without a home that can be written; matplotlib and fontconfig warn.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        # What Docker sets for such a user.
        home = Path("/")
        os.environ["HOME"] = str(home)
    config = os.environ.get("XDG_CONFIG_HOME", home / ".config")
    caches = {"XDG_CACHE_HOME": home / ".cache", "MPLCONFIGDIR": Path(config, "matplotlib"), "TRITON_HOME": home}
    missing = [name for name, folder in caches.items() if name not in os.environ and not _writable(folder)]
    if missing and (folder := _own_temporary_folder()):
        os.environ.update(dict.fromkeys(missing, folder))


def _writable(folder: Path) -> bool:
    """Return whether this user can create files in a folder, which need not exist yet."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError:
        return False
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _own_temporary_folder() -> str | None:
    """Return a folder that only this user can write; None if there is none. All processes of the user share it."""
    try:
        folder = Path(tempfile.gettempdir(), f"msgunet-{os.getuid()}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        # Anybody can create this name first.
        own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
        return str(folder) if own else tempfile.mkdtemp(prefix="msgunet-")
    except OSError:
        return None
