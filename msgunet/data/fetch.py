"""Fetching published files: mirrors in turn, resume, and a file gets its name only when size and checksum are right."""

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from msgunet.core.errors import UserError
from msgunet.core.files import KernelLock, sync_folder, write_text
from msgunet.data.base import Remote
from msgunet.data.login import LoginSession

WAITS = (2.0, 5.0, 15.0, 45.0)  # seconds between two tries: five in all
PATIENCE = 30.0  # seconds without a byte, or below MIN_RATE where there is another mirror
MIN_RATE = 20_000  # bytes per second
_CHUNK = 1 << 18


class _TryError(Exception):
    """A try that failed; `final` where the same mirror would only say the same again."""

    def __init__(self, text: str, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class _SlowError(_TryError):
    """A mirror that sends, but hardly anything."""


def fetch(remote: Remote, folder: Path) -> Path:
    """Download `remote` into `folder`, unless it is there; what an interrupted download left is gone on with.

    Raises:
        UserError: the disk is too small, the login is refused, or five tries failed (with what each mirror said).

    """
    path = folder / remote.name
    folder.mkdir(parents=True, exist_ok=True)
    with KernelLock(folder / f".{remote.name}.lock"):
        if path.is_file():
            return path
        part = _Part(path)
        _try_mirrors(remote, part)
        with part.file.open("rb") as file:
            os.fsync(file.fileno())
        part.file.replace(path)
        part.remove()
        sync_folder(folder)
    print(f"{path}: {path.stat().st_size:,} bytes, {_checked(remote)}", file=sys.stderr)
    return path


def _try_mirrors(remote: Remote, part: "_Part") -> None:
    urls, slow, said = list(remote.urls), set(), []
    with LoginSession() as session:
        for attempt in range(len(WAITS) + 1):
            url = urls.pop(0)
            try:
                start = _transfer(session, remote, url, part, others=not slow.issuperset(urls))
                problem = check_file(part.file, remote)
                if problem is None:
                    return
                part.remove()
                # What came from one mirror in one go would come again.
                raise _TryError(problem, final=start == 0)
            except (_TryError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                said.append(f"{_short(url)}: {error}")
                print(f"try {attempt + 1} of {len(WAITS) + 1}: {said[-1]}", file=sys.stderr, flush=True)
                if not getattr(error, "final", False):
                    urls.append(url)
                if isinstance(error, _SlowError):
                    slow.add(url)
            if not urls or attempt == len(WAITS):
                break
            time.sleep(WAITS[attempt])
    raise UserError(
        f"{remote.name} could not be downloaded, {len(said)} tries failed:",
        *(f"  - {line}" for line in said),
        f"try again later (what has arrived is kept), or download it by hand ({remote.about}) and set data.mirror to "
        "its folder",
    )


class _Part:
    """What has arrived of a file, and by which mark its server knows the version that it is of."""

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.mark")

    def __len__(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def mark(self, url: str) -> str | None:
        """The ETag or date under which `url` sent it."""
        lines = self._mark.read_text(encoding="utf-8").splitlines() if self._mark.is_file() else []
        return lines[1] if len(lines) == 2 and lines[0] == url else None

    def begin(self, url: str, response: requests.Response) -> None:
        mark = response.headers.get("ETag", "")
        # A weak ETag does not promise the same bytes.
        mark = mark if mark.startswith('"') else response.headers.get("Last-Modified", "")
        write_text(self._mark, f"{url}\n{mark}\n" if mark else "")

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)


def _transfer(session: LoginSession, remote: Remote, url: str, part: _Part, others: bool) -> int:
    """One try from one mirror: the rest of the file, or all of it where the server cannot go on; returns from where."""
    if remote.login:
        session.log_in(url)
    have = len(part)
    headers = {"Accept-Encoding": "identity"}
    mark = part.mark(url)
    # Without a checksum nothing would tell that two halves are of different files, unless the server does.
    if have and (remote.checksum or mark):
        headers["Range"] = f"bytes={have}-"
        if mark:
            headers["If-Range"] = mark
    with session.get(url, headers=headers, stream=True, timeout=(10, PATIENCE)) as response:
        if response.status_code == 416:
            if have == remote.size or (remote.size is None and remote.checksum):
                return have  # all of it is there already; the checksum decides
            part.remove()
            raise _TryError("the server has less than what has arrived; starting again")
        if response.status_code >= 400:
            gone = response.status_code in (401, 403, 404, 410)
            raise _TryError(f"HTTP {response.status_code} {response.reason}", final=gone)
        if "html" in response.headers.get("Content-Type", ""):
            session.forget_login()
            raise _TryError("a web page came instead of the file")
        if response.status_code == 206 and _range_start(response) != have:
            part.remove()
            raise _TryError("the server sent another part than it was asked for; starting again")
        start = have if response.status_code == 206 else 0
        whole = _whole_length(response)
        if remote.size is not None and whole is not None and whole != remote.size:
            raise _TryError(f"the server's file has {whole:,} bytes, {remote.size:,} were expected", final=True)
        if start == 0:
            # First away with what belongs to another version, then the mark of the new one.
            part.remove()
        _check_disk(part.file.parent, (whole or remote.size or 0) - start)
        if start == 0:
            part.begin(url, response)
        progress = tqdm(
            total=whole or remote.size,
            initial=start,
            desc=remote.name,
            unit="B",
            unit_scale=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        with part.file.open("ab" if start else "wb") as file, progress:
            cut = False
            try:
                for chunk in _chunks(response, others):
                    file.write(chunk)
                    progress.update(len(chunk))
            except urllib3.exceptions.ProtocolError:
                cut = True
            except OSError as error:
                raise UserError(f"{part.file}: {error.strerror or error}; make room and start again") from error
        expected = whole or remote.size or 0
        if cut or len(part) < expected:
            whole_text = f" of {expected:,}" if expected else ""
            raise _TryError(f"the connection was cut after {len(part):,}{whole_text} bytes")
    return start


def _range_start(response: requests.Response) -> int | None:
    """Where in the file the body of a partial answer begins."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _whole_length(response: requests.Response) -> int | None:
    """How long the whole file is, if the server says."""
    if response.status_code == 206:
        total = response.headers["Content-Range"].rpartition("/")[2]
        return None if total == "*" else int(total)
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdecimal() else None


def _chunks(response: requests.Response, others: bool) -> Iterator[bytes]:
    """The body, piece by piece; where there are other mirrors, a slow one is left."""
    start, count = time.monotonic(), 0
    # As it comes: neither waiting for a whole chunk nor undoing a Content-Encoding, which for some servers is the
    # archive's own compression.
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        yield chunk
        count += len(chunk)
        now = time.monotonic()
        if now - start > PATIENCE:
            if others and count < MIN_RATE * (now - start):
                raise _SlowError(f"only {count / (now - start) / 1000:.1f} kB/s; trying another mirror")
            start, count = now, 0


def check_file(path: Path, remote: Remote) -> str | None:
    """What is wrong with a file, by its published size and checksum; None where nothing is."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"{size:,} bytes, {remote.size:,} were expected"
    if remote.checksum is None:
        return None
    kind, digits = remote.checksum.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return None if found.startswith(digits) else f"the {kind} is {found}, expected {digits}"


def _checked(remote: Remote) -> str:
    if remote.checksum:
        return f"{remote.checksum.split(':')[0]} as published"
    return "size as published" if remote.size else "unchecked: neither size nor checksum are published"


def _check_disk(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise UserError(f"{folder}: {wanted / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free; make room")


def _short(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
