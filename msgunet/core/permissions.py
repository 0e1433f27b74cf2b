"""Explains a refused permission: whose file it is, and what the owner can do about it."""

import getpass
import os
import pwd
import stat
from pathlib import Path


def explain(error: OSError, path: Path | str | None = None) -> str:
    """Return a sentence on an error; where a permission was refused, it says whose file that is.

    `path` is the file or folder in question; by default the error's own.
    """
    if isinstance(error, PermissionError):
        for file in filter(None, (path, error.filename)):
            if culprit := _culprit(Path(os.fsdecode(file))):
                return f"{path or file}: {refused(culprit)}"
    return f"{path or error.filename or 'a file'}: {error.strerror or error}"


def refused(culprit: Path) -> str:
    """Return a sentence on a file or folder that this user cannot write, and its remedy."""
    status = culprit.stat()
    mode, owner = stat.filemode(status.st_mode), _name(status.st_uid)
    kind = "folder" if culprit.is_dir() else "file"
    if status.st_uid == os.getuid():
        return f"permission denied: your {kind} {culprit} is closed even to you ({mode}); chmod -R u+rwX {culprit}"
    return (
        f"permission denied: the {kind} {culprit} belongs to {owner} ({mode}), and you are {_me()}; to share a folder "
        f"in a group, all its users set 'umask 002', and {owner} opens what is there: chmod -R g+rwX {_root(culprit)} "
        "(docs/cluster.md, Share a folder in a group)"
    )


def may_write(path: Path) -> bool:
    """Return whether this user can read and write an existing file, or an existing folder."""
    return os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0))


def _culprit(path: Path) -> Path | None:
    """Return the file or folder that refuses `path`: itself, or the folder that holds it; None if neither does."""
    for place in (path, *path.absolute().parents):
        try:
            if not place.exists():
                continue
        except PermissionError:
            continue
        candidates = [place, place.absolute().parent] if place is path else [place]
        return next((candidate for candidate in candidates if not may_write(candidate)), None)
    return None


def _root(culprit: Path) -> Path:
    """Return the working folder if `culprit` is in it, else the folder of `culprit`."""
    here = Path.cwd()
    if culprit.absolute().is_relative_to(here):
        return here
    return culprit if culprit.is_dir() else culprit.parent


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"user id {os.getuid()}"
