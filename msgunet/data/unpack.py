"""Published archives, read as if they were hostile.

Only regular files and folders with names inside the archive's own folder, and no more bytes, members or compression
than a set of pictures has. Everything else is refused by name; what was unpacked until then goes with its folder.
"""

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from msgunet.errors import UserError

MAX_BYTES = 100 << 30
MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # unpacked bytes for each packed one; pictures are compressed already and come to 1 or 2
_SMALL = 1 << 16  # packed bytes below which the ratio says nothing

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


class _Guard:
    """Counts what an archive would unpack to, and refuses."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._limit = min(MAX_BYTES, MAX_RATIO * max(_SMALL, archive.stat().st_size))
        self._bytes, self._names = 0, set()

    def refuse(self, why: str) -> UserError:
        return UserError(f"{self._archive}: {why}; this is not the published archive: delete it and fetch it again")

    def member(self, name: str, is_file: bool, is_folder: bool) -> None:
        """Check a member's name and kind."""
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
        if outside or not path.parts or "\\" in name or "\0" in name:
            raise self.refuse(f"the name {name!r} leads out of the folder")
        if not (is_file or is_folder):
            raise self.refuse(f"{name} is neither a file nor a folder")
        if is_file and path in self._names:
            raise self.refuse(f"{name} stands twice in it")
        self._names.add(path)
        if len(self._names) > MAX_MEMBERS:
            raise self.refuse(f"it has more than {MAX_MEMBERS:,} members")

    def count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit:
            raise self.refuse(f"it would unpack to more than {self._limit:,} bytes")

    def damaged(self, error: Exception) -> UserError:
        return UserError(f"{self._archive}: not a whole archive ({error}); delete it and fetch it again")


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip archive whose members have all been checked; read them with `read_member`.

    Raises:
        UserError: it is damaged, or holds anything but files and folders that stay inside.

    """
    guard = _Guard(path)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise guard.damaged(error) from error
    try:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG) and not info.is_dir() and not info.flag_bits & 1  # 1: encrypted
            guard.member(info.filename, plain, info.is_dir() and kind in (0, stat.S_IFDIR))
            guard.count(info.file_size)
    except UserError:
        archive.close()
        raise
    return archive


def read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """The content of a member; never more than its entry says, and its checksum is right.

    Raises:
        UserError: it is not there, or damaged.

    """
    try:
        return archive.read(member)
    except KeyError as error:
        raise UserError(f"{archive.filename}: there is no {member} in it; fetch the archive again") from error
    except _DAMAGED as error:
        raise UserError(f"{archive.filename}: {member} is damaged ({error}); fetch the archive again") from error


def unpack_tar(path: Path, folder: Path, wanted: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    """Unpack the members whose names match `wanted` into `folder`, under numbers; all members are checked.

    Raises:
        UserError: it is damaged, or holds anything but files and folders that stay inside.

    """
    guard, found = _Guard(path), []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                guard.member(member.name, member.isreg() and not member.issparse(), member.isdir())
                guard.count(member.size)
                match = wanted.fullmatch(member.name)
                if match is None or not member.isreg():
                    continue
                file = folder / f"{len(found):06d}"
                with file.open("wb") as out:
                    shutil.copyfileobj(archive.extractfile(member), out, 1 << 20)
                found.append((match, file))
            # tarfile ends without a word at a damaged header; the rest holds gzip's checksum.
            while rest := archive.fileobj.read(1 << 20):
                guard.count(len(rest))
    except _DAMAGED as error:
        raise guard.damaged(error) from error
    return found
