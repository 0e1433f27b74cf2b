"""Published archives, read as if they were hostile.

Only regular files and folders with names inside the archive's own folder, and no more bytes, members or compression
than a set of images has. Everything else is refused by name; what was unpacked until then goes with its folder.
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

MAX_BYTES = 100 << 30
MAX_MEMBER = 1 << 30
MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # unpacked bytes for each packed one; images are compressed already and come to 1 or 2
_SMALL = 1 << 16  # packed bytes below which the ratio says nothing
_CHUNK = 1 << 20

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


class _Guard:
    """Checks an archive's members and counts what they unpack to."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._limit = min(MAX_BYTES, MAX_RATIO * max(_SMALL, archive.stat().st_size))
        self._names: set[PurePosixPath] = set()

    def refuse(self, why: str) -> UserError:
        return UserError(f"{self._archive}: {why}; this is not the published archive: delete it and fetch it again")

    def member(self, name: str, is_file: bool, is_folder: bool, size: int) -> None:
        """Check a member's name, kind and size."""
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
        if outside or not path.parts or "\\" in name or "\0" in name:
            raise self.refuse(f"the name {name!r} leads out of the folder")
        if not (is_file or is_folder):
            raise self.refuse(f"{name} is neither a file nor a folder")
        if is_file and path in self._names:
            raise self.refuse(f"{name} stands twice in it")
        if size > MAX_MEMBER:
            raise self.refuse(f"{name} has {size:,} bytes")
        self._names.add(path)
        if len(self._names) > MAX_MEMBERS:
            raise self.refuse(f"it has more than {MAX_MEMBERS:,} members")

    def unpacked(self, size: int) -> None:
        """Check how much the archive unpacks to so far."""
        if size > self._limit:
            raise self.refuse(f"it would unpack to more than {self._limit:,} bytes")

    def damaged(self, error: Exception) -> UserError:
        if getattr(error, "errno", None):
            return UserError(f"{self._archive}: {error}; make room or mend what is wrong there, and start again")
        return UserError(f"{self._archive}: not a whole archive ({error}); delete it and fetch it again")


class _GuardedStream:
    """The unpacked bytes of a gzip file, for tarfile, which reads some headers whole, whatever size they claim."""

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
    """A zip archive whose members have all been checked; read them with `read_member`.

    Raises:
        UserError: it is damaged, or holds anything but files and folders that stay inside.

    """
    guard, total = _Guard(path), 0
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise guard.damaged(error) from error
    try:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            # Other compressions unpack without bounds; bit 1 is encryption.
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
    """The content of a member, never more than its entry says; its checksum is right.

    Raises:
        UserError: it is not there, or damaged.

    """
    try:
        info = archive.getinfo(member)
        with archive.open(info) as file:
            data = file.read(info.file_size)
            # At the end the checksum is compared.
            if len(data) != info.file_size or file.read(1):
                raise zipfile.BadZipFile("its size is not that of its entry")
            return data
    except KeyError as error:
        raise UserError(f"{archive.filename}: there is no {member} in it; fetch the archive again") from error
    except _DAMAGED as error:
        raise UserError(f"{archive.filename}: {member} is damaged ({error}); fetch the archive again") from error


def unpack_tar(path: Path, folder: Path, wanted: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    """Unpack those members of a `.tar.gz` whose names match `wanted` into `folder`, under numbers; all are checked.

    Raises:
        UserError: it is damaged, or holds anything but files and folders that stay inside, or the disk is too small.

    """
    guard, found = _Guard(path), []
    if (free := shutil.disk_usage(folder).free) < path.stat().st_size:
        raise UserError(f"{folder}: no room to unpack {path}, {free / 1e9:.1f} GB are free")
    try:
        with gzip.open(path) as file:
            stream = _GuardedStream(file, guard)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    is_file = member.isreg() and not member.issparse()
                    guard.member(member.name, is_file, member.isdir(), member.size)
                    guard.unpacked(stream.tell() + member.size)
                    match = wanted.fullmatch(member.name)
                    if match is None or not is_file:
                        continue
                    target = folder / f"{len(found):06d}"
                    with target.open("wb") as out:
                        shutil.copyfileobj(archive.extractfile(member), out, _CHUNK)
                    found.append((match, target))
            # tarfile ends without a word at a damaged header; the rest holds gzip's checksum.
            while stream.read(_CHUNK):
                pass
    except _DAMAGED as error:
        raise guard.damaged(error) from error
    return found
