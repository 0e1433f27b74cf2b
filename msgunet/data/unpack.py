"""Reading published archives as if they were hostile.

An archive can contain only regular files and folders whose names stay inside its own folder. Its bytes, members and
compression are limited to what a set of images needs. Anything else raises an error that names it. Files unpacked
before the error are removed together with their folder.
"""

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from msgunet.core.errors import UserError
from msgunet.core.permissions import explain

MAX_BYTES = 100 << 30
MAX_MEMBER = 1 << 30
MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # unpacked bytes per packed byte; images are already compressed and reach 1 or 2
_SMALL = 1 << 16  # packed bytes below which the ratio means nothing
_CHUNK = 1 << 20

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


class _Guard:
    """Check the members of an archive and limit the size they unpack to."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._limit = min(MAX_BYTES, MAX_RATIO * max(_SMALL, archive.stat().st_size))
        self._names: set[PurePosixPath] = set()

    def refuse(self, reason: str) -> UserError:
        return UserError(f"{self._archive}: {reason}; this is not the published archive: delete it and fetch it again")

    def member(self, name: str, is_file: bool, is_folder: bool, size: int) -> None:
        """Check a member's name, kind and size."""
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
        if outside or not path.parts or "\\" in name or "\0" in name:
            raise self.refuse(f"the name {name!r} points outside the folder")
        if not (is_file or is_folder):
            raise self.refuse(f"{name} is neither a file nor a folder")
        if is_file and path in self._names:
            raise self.refuse(f"{name} occurs twice")
        if size > MAX_MEMBER:
            raise self.refuse(f"{name} has {size:,} bytes, the limit is {MAX_MEMBER:,}")
        self._names.add(path)
        if len(self._names) > MAX_MEMBERS:
            raise self.refuse(f"it has more than {MAX_MEMBERS:,} members")

    def unpacked(self, size: int) -> None:
        """Check the number of bytes unpacked so far."""
        if size > self._limit:
            raise self.refuse(f"it would unpack to more than {self._limit:,} bytes")

    def damaged(self, error: Exception) -> UserError:
        if isinstance(error, PermissionError):
            return UserError(explain(error))
        if getattr(error, "errno", None):
            return UserError(f"{self._archive}: {error}; free disk space or fix the cause, and start again")
        return UserError(f"{self._archive}: the archive is damaged ({error}); delete it and fetch it again")


class _GuardedStream:
    """The unpacked bytes of a gzip file, with limits: tarfile reads some headers at once, whatever size they claim."""

    def __init__(self, file: IO[bytes], guard: _Guard) -> None:
        self._file, self._guard = file, guard

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise self._guard.refuse(f"a header claims {size:,} bytes")
        data = self._file.read(size)
        self._guard.unpacked(self._file.tell())
        return data

    def seek(self, position: int) -> int:
        self._guard.unpacked(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive and check all its members. Read them with `read_member`.

    Raises:
        UserError: the archive is damaged, or it contains anything except files and folders that stay inside.

    """
    guard, total = _Guard(path), 0
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise guard.damaged(error) from error
    try:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            # Other compression methods unpack without a limit. The lowest flag bit means encryption.
            readable = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
            is_file = readable and kind in (0, stat.S_IFREG) and not info.is_dir()
            guard.member(info.filename, is_file, info.is_dir() and kind in (0, stat.S_IFDIR), info.file_size)
            total += info.file_size
            guard.unpacked(total)
    except UserError:
        archive.close()
        raise
    return archive


def read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """Return the content of a member, never more than the size in its entry, with its checksum verified.

    Raises:
        UserError: the member is missing or damaged.

    """
    try:
        info = archive.getinfo(member)
        with archive.open(info) as file:
            data = file.read(info.file_size)
            # zipfile verifies the checksum at the end of the member.
            if len(data) != info.file_size or file.read(1):
                raise zipfile.BadZipFile("its size differs from the size in its entry")
            return data
    except KeyError as error:
        raise UserError(f"{archive.filename}: {member} is missing from it; fetch the archive again") from error
    except _DAMAGED as error:
        raise UserError(f"{archive.filename}: {member} is damaged ({error}); fetch the archive again") from error


def unpack_tar(path: Path, folder: Path, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    """Unpack the members of a `.tar.gz` whose names match `pattern` into `folder`, as numbered files.

    All members are checked, also those that are not unpacked.

    Raises:
        UserError: the archive is damaged, it contains anything except files and folders that stay inside, or the disk
            is too small.

    """
    guard, found = _Guard(path), []
    if (free := shutil.disk_usage(folder).free) < path.stat().st_size:
        raise UserError(f"{folder}: {path} does not fit on the disk, {free / 1e9:.1f} GB are free; free disk space")
    try:
        with gzip.open(path) as file:
            stream = _GuardedStream(file, guard)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    is_file = member.isreg() and not member.issparse()
                    guard.member(member.name, is_file, member.isdir(), member.size)
                    guard.unpacked(stream.tell() + member.size)
                    match = pattern.fullmatch(member.name)
                    if match is None or not is_file:
                        continue
                    target = folder / f"{len(found):06d}"
                    with target.open("wb") as out:
                        shutil.copyfileobj(archive.extractfile(member), out, _CHUNK)
                    found.append((match, target))
            # tarfile stops silently at a damaged header. Reading the rest verifies gzip's checksum.
            while stream.read(_CHUNK):
                pass
    except _DAMAGED as error:
        raise guard.damaged(error) from error
    return found
