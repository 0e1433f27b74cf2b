"""Errors of the disk that may pass, above all a full one, and waiting for them to pass."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from msgunet.core.errors import UserError

Result = TypeVar("Result")

# Seconds between tries, separated by spaces. The workflow sets it, for jobs that would otherwise fail at once.
PAUSES = "MSGUNET_DISK_PAUSES"
DEFAULT_PAUSES = "10 60 300"

# Full, over quota, a read or write error, a server that is away. Others, such as a missing permission, do not pass.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


class StillFailingError(UserError):
    """The disk still failed after all pauses."""


def disk_error(error: BaseException | None) -> OSError | None:
    """Return the error of the disk that an error is or was caused by, if it may pass; otherwise None."""
    while error is not None and not isinstance(error, StillFailingError):
        if isinstance(error, OSError) and error.errno in _PASSING:
            return error
        error = error.__cause__
    return None


def describe(error: OSError) -> str:
    """Return an error of the disk as one line: the file, if it is known, what is wrong, and what to do."""
    file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    advice = "free disk space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"
    return f"{file}{error.strerror or error}; {advice}"


def pauses() -> Iterator[float]:
    """Return the seconds to wait before each further try."""
    return map(float, os.environ.get(PAUSES, DEFAULT_PAUSES).split())


def patiently(action: Callable[[], Result], waits: Iterator[float] | None = None) -> Result:
    """Call `action` and return its result. After an error of the disk, wait and call it again.

    Raises:
        StillFailingError: the disk still fails after the last of `waits` (default: `pauses()`).

    """
    for wait in pauses() if waits is None else waits:
        try:
            return action()
        except Exception as error:
            if (cause := disk_error(error)) is None:
                raise
            say(f"{describe(cause)}; trying again in {wait:g} s")
        time.sleep(wait)
    try:
        return action()
    except Exception as error:
        if (cause := disk_error(error)) is None:
            raise
        problems = error.problems if isinstance(error, UserError) else (f"{describe(cause)} and start again",)
        raise StillFailingError(*problems) from error


def say(text: str) -> None:
    """Print a line to stderr, which may itself be a file on a full disk."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def probe(path: Path) -> None:
    """Append to a file that could not be written, since some libraries hide the error of the disk.

    Raises:
        OSError: the disk's error.

    """
    with path.open("ab") as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())


class Spare:
    """Writes files of one kind that no result needs: an error of the disk is reported once, and the work goes on."""

    def __init__(self, kind: str) -> None:
        """Initialise; `kind` names the files, in the plural."""
        self._kind = kind
        self._failing = False

    def write(self, path: Path, action: Callable[[], None]) -> bool:
        """Call `action`, which writes `path`; return whether it could."""
        try:
            action()
        except OSError as error:
            if not self._failing:
                say(f"{path}: {error.strerror or error}; the training goes on without {self._kind} until this works")
            self._failing = True
            return False
        if self._failing:
            say(f"{path}: {self._kind} are written again")
        self._failing = False
        return True
