"""Download published files from several mirrors, with resume.

A file gets its name only when its size and checksum are correct.
"""

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
from msgunet.core.text import printable
from msgunet.data.base import Remote
from msgunet.data.login import LoginSession

RETRY_DELAYS = (2.0, 5.0, 15.0, 45.0)  # seconds between attempts, of which there are five
STALL_SECONDS = 30.0  # limit without any byte, or below MIN_RATE if there is another mirror
MIN_RATE = 20_000  # bytes per second
_CHUNK = 1 << 18


class _AttemptError(Exception):
    """A failed attempt; `final` if another attempt at the same mirror would fail in the same way."""

    def __init__(self, text: str, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class _SlowError(_AttemptError):
    """A mirror that sends data too slowly."""


def fetch(remote: Remote, folder: Path) -> Path:
    """Download `remote` to `folder` unless it exists there. An interrupted download resumes.

    Raises:
        UserError: the disk is too small, the login is rejected, or five attempts failed (with the error of each).

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
    print(f"{path}: {path.stat().st_size:,} bytes, {_verification(remote)}", file=sys.stderr)
    return path


def _try_mirrors(remote: Remote, part: "_Part") -> None:
    urls, slow, failures = list(remote.urls), set(), []
    with LoginSession() as session:
        for attempt in range(len(RETRY_DELAYS) + 1):
            url = urls.pop(0)
            try:
                start = _transfer(session, remote, url, part, others=not slow.issuperset(urls))
                problem = check_file(part.file, remote)
                if problem is None:
                    return
                part.remove()
                # A mirror that sent the whole file in this attempt would send the same again.
                raise _AttemptError(problem, final=start == 0)
            # ValueError: a redirect to an address that is none, a length of thousands of digits.
            except (_AttemptError, requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                failures.append(printable(f"{_without_query(url)}: {error}")[:500])
                print(f"attempt {attempt + 1} of {len(RETRY_DELAYS) + 1}: {failures[-1]}", file=sys.stderr, flush=True)
                if not getattr(error, "final", False):
                    urls.append(url)
                if isinstance(error, _SlowError):
                    slow.add(url)
            if not urls or attempt == len(RETRY_DELAYS):
                break
            time.sleep(RETRY_DELAYS[attempt])
    raise UserError(
        f"{remote.name} could not be downloaded, {len(failures)} attempts failed:",
        *(f"  - {line}" for line in failures),
        f"try again later (the part already downloaded is kept), or download it by hand ({remote.about}) and set "
        "data.mirror to its folder",
    )


class _Part:
    """The downloaded part of a file, with the mark (ETag or date) by which its server identifies the file's version."""

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.mark")

    def __len__(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def mark(self, url: str) -> str | None:
        """Return the ETag or date that came from `url` with this part, or None if there is none from `url`."""
        lines = self._mark.read_text(encoding="utf-8").splitlines() if self._mark.is_file() else []
        return lines[1] if len(lines) == 2 and lines[0] == url else None

    def begin(self, url: str, response: requests.Response) -> None:
        mark = response.headers.get("ETag", "")
        # A weak ETag does not guarantee identical bytes.
        mark = mark if mark.startswith('"') else response.headers.get("Last-Modified", "")
        write_text(self._mark, f"{url}\n{mark}\n" if mark else "")

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)


def _transfer(session: LoginSession, remote: Remote, url: str, part: _Part, others: bool) -> int:
    """Make one attempt at one mirror: fetch the rest of the file, or all of it if the server cannot resume.

    Returns:
        The byte at which the attempt started.

    """
    if remote.login:
        session.log_in(url)
    have = len(part)
    headers = {"Accept-Encoding": "identity"}
    mark = part.mark(url)
    # Without a checksum, only the server can tell whether two parts belong to the same version of the file.
    if have and (remote.checksum or mark):
        headers["Range"] = f"bytes={have}-"
        if mark:
            headers["If-Range"] = mark
    with session.get(url, headers=headers, stream=True, timeout=(10, STALL_SECONDS)) as response:
        if response.status_code == 416:
            if have == remote.size or (remote.size is None and remote.checksum):
                return have  # the file is already complete; the checksum decides
            part.remove()
            raise _AttemptError("the server's file is shorter than the part already downloaded; starting again")
        if response.status_code >= 400:
            permanent = response.status_code in (401, 403, 404, 410)
            raise _AttemptError(f"HTTP {response.status_code} {response.reason}", final=permanent)
        if "html" in response.headers.get("Content-Type", ""):
            session.forget_login()
            raise _AttemptError("received a web page instead of the file")
        if response.status_code == 206 and _range_start(response) != have:
            part.remove()
            raise _AttemptError("the server did not send the requested part; starting again")
        start = have if response.status_code == 206 else 0
        whole = _whole_length(response)
        if remote.size is not None and whole is not None and whole != remote.size:
            raise _AttemptError(f"the server's file has {whole:,} bytes, expected {remote.size:,}", final=True)
        if start == 0:
            # Remove the bytes of the other version before writing the mark of the new one.
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
                raise UserError(f"{part.file}: {error.strerror or error}; free disk space and start again") from error
        expected = whole or remote.size or 0
        if cut or len(part) < expected:
            whole_text = f" of {expected:,}" if expected else ""
            raise _AttemptError(f"the connection was cut after {len(part):,}{whole_text} bytes")
    return start


def _range_start(response: requests.Response) -> int | None:
    """Return the position in the file at which the body of a partial response begins."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _whole_length(response: requests.Response) -> int | None:
    """Return the length of the whole file, or None if the server does not report it."""
    if response.status_code == 206:
        total = response.headers["Content-Range"].rpartition("/")[2]
        return None if total == "*" else int(total)
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdecimal() else None


def _chunks(response: requests.Response, others: bool) -> Iterator[bytes]:
    """Yield the body in chunks. With `others`, mirrors that are not known to be slow, abandon a slow mirror."""
    start, count = time.monotonic(), 0
    # Read bytes as they come in: do not wait for a full chunk, and do not decode a Content-Encoding, which some servers
    # set for the archive's own compression.
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        yield chunk
        count += len(chunk)
        now = time.monotonic()
        if now - start > STALL_SECONDS:
            if others and count < MIN_RATE * (now - start):
                raise _SlowError(f"only {count / (now - start) / 1000:.1f} kB/s; trying another mirror")
            start, count = now, 0


def check_file(path: Path, remote: Remote) -> str | None:
    """Return how a file differs from its published size or checksum, or None if it does not."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"the file has {size:,} bytes, expected {remote.size:,}"
    if remote.checksum is None:
        return None
    kind, digits = remote.checksum.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return None if found.startswith(digits) else f"the {kind} is {found}, expected {digits}"


def _verification(remote: Remote) -> str:
    if remote.checksum:
        return f"{remote.checksum.split(':')[0]} as published"
    return "size as published" if remote.size else "unchecked: neither its size nor a checksum is published"


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the download needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; free disk "
            "space"
        )


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
