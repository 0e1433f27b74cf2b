"""Atomic writing of files, file locks and canonical JSON."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from msgunet.core.disk import probe
from msgunet.core.errors import UserError
from msgunet.core.permissions import explain

Model = TypeVar("Model", bound=BaseModel)


class KernelLock(FileLock):
    """A file lock that the kernel releases when its holder ends, however it ends.

    On a file system without locks, and for another user's file that is closed, `acquire` raises a UserError. A plain
    lock file is no substitute: it would outlive a killed process.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, fallback_to_soft=False)

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().acquire(*arguments, **options)
        except Timeout:
            raise
        except PermissionError as error:
            raise UserError(explain(error, self.lock_file)) from error
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"{self.lock_file} cannot be locked ({error}), so two processes could write to the same folder; use "
                "a file system with locks (NFS 4, Lustre mounted with 'flock', a local disk)"
            ) from error


def is_locked(path: Path) -> bool:
    """Return whether a process, of whichever user, holds the lock of a file; a file that cannot be read counts as free.

    This takes the lock for a moment; a process that wants it just then must wait or try again.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, since the file may be another user's and not open to writing.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


# The mask can only be read by changing it, which other threads must not see: read it once, on import.
_UMASK = os.umask(0o077)
os.umask(_UMASK)

_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`.

    On success the file is synced to disk and renamed to `path`; on failure it is removed.

    Raises:
        OSError: it could not be written; the error names `path`, also where a library hides the error of the disk.

    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, temporary = _locked_temporary(path)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        hidden = _hidden_error(error, temporary)
        temporary.unlink(missing_ok=True)
        if hidden is None:
            raise
        raise OSError(hidden.errno, hidden.strerror, str(path)) from error
    finally:
        os.close(handle)


def _hidden_error(error: BaseException, temporary: Path) -> OSError | None:
    """Return the error of the disk if `error` does not say which file could not be written, or why."""
    if isinstance(error, OSError) and error.errno is not None:
        return error if error.filename in (None, str(temporary)) else None
    # torch and safetensors raise errors of their own when the disk is full.
    if isinstance(error, Exception) and not isinstance(error, UserError):
        try:
            probe(temporary)
        except OSError as of_disk:
            return of_disk
    return None


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Create a temporary file next to `path`. Until its handle is closed, a lock shows that it is in use."""
    while True:
        # Keep the suffix: Pillow and matplotlib choose the file format by it.
        prefix = f"{_TEMPORARY}{path.stem}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        # So that whoever may write here can also remove it as a leftover.
        os.fchmod(handle, 0o666 & ~_UMASK)
        # Without locks, `remove_leftovers` removes nothing.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if Path(name).exists():
            return handle, Path(name)
        # Another process took the file for a leftover before it was locked.
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `atomic` that killed processes left in or below a folder, on whichever host."""
    for path in folder.rglob(f"{_TEMPORARY}*"):
        # An OSError: the file is in use, already gone or another user's, or there are no locks.
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def work_folder(folder: Path, lock: Path) -> Iterator[Path]:
    """Yield an empty `folder`, which is removed afterwards, also after a kill: by the next process that needs it.

    Other processes with the same `lock` wait.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with KernelLock(lock):
        _remove(folder)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a folder, if it exists.

    Raises:
        UserError: another user's process left it, and this user cannot remove it.

    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except PermissionError as error:
        raise UserError(explain(error, folder)) from error


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that a rename in it survives a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def canonical_json(value: Any) -> str:
    """Return `value` as JSON in a unique form: sorted keys, indented by two spaces, with a newline at the end.

    Raises:
        ValueError: `value` contains NaN or infinity.

    """
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def differences(old: Any, new: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """Return the places where two JSON values differ, such as `training.epochs`, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{place}.{k}".strip("."))]
    return [] if old == new else [(place, old, new)]


def json_hash(value: Any) -> str:
    """Return the SHA-256 of a value as canonical JSON, in hexadecimal. Names of files in it need not be UTF-8."""
    return hashlib.sha256(canonical_json(value).encode(errors="surrogateescape")).hexdigest()


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, canonical_json(value))


def write_csv(path: Path | str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, atomically. The columns are the keys of all rows, in order of first appearance."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read and validate a settings file.

    Raises:
        UserError: the file cannot be read or is not valid; the message names the file and every problem.

    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; if it belongs to a suite, 'snakemake -n --config suite=NAME' writes it"
        ) from error
    except OSError as error:
        raise UserError(explain(error, path)) from error
    except ValidationError as error:
        problems = (f"{path}: {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(*problems) from error


def write_if_changed(path: Path, text: str) -> None:
    """Write `text` atomically, unless the file already holds it; then its modification time stays too."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(text: str) -> str:
    """Return the first eight hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
