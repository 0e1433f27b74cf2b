"""Writing files so that a name never stands for half a file, and canonical JSON."""

import contextlib
import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from msgunet.core.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class KernelLock(FileLock):
    """A lock that the kernel lets go of when its holder ends, however that is.

    Where the file system has none, `acquire` raises a UserError: a file that stands for a lock would outlive a kill.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, fallback_to_soft=False)

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().acquire(*arguments, **options)
        except Timeout:
            raise
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"{self.lock_file} cannot be locked ({error}), so that two processes could write beside it; work on a "
                "file system with locks (NFS 4, Lustre mounted with 'flock', a local disk)"
            ) from error


# Asking for the mask changes it for a moment, which threads must not see: once, here.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced to disk and renamed, on failure removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as Pillow and matplotlib choose their format by it.
    handle, name = tempfile.mkstemp(prefix=f".tmp-{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def canonical_json(value: Any) -> str:
    """The one text for `value`: sorted keys, two spaces, one newline; refuses NaN and infinity with ValueError."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, canonical_json(value))


def write_csv(path: Path | str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, atomically; the columns are all keys, in the order in which they first appear."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read and validate a settings file, or raise a UserError that names it and what is wrong."""
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; 'snakemake -n --config suite=NAME' writes the settings") from error
    except ValidationError as error:
        problems = (f"{path}: {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(*problems) from error


def write_if_changed(path: Path, text: str) -> None:
    """Write atomically, but leave a file that already holds `text` and its time alone."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(text: str) -> str:
    """The first eight hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
