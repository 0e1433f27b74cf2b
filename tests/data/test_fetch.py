"""Downloads from servers that drop connections, send wrong data or stall."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from conftest import ROOT
from servers import CONTENT, MD5, only_the_file, serving

from msgunet.core.errors import UserError
from msgunet.core.settings import DataSettings
from msgunet.data import fetch as fetching
from msgunet.data.base import Remote
from msgunet.data.fetch import check_file, fetch
from msgunet.data.login import LoginSession
from msgunet.data.overview import published
from msgunet.methods.weights import VGG19


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(fetching, "RETRY_DELAYS", (0.0, 0.01, 0.02, 0.03))


@pytest.fixture
def server():
    with serving({"x.bin": CONTENT}) as running:
        yield running


# The range requested after a connection is cut in the middle.
HALF = f"bytes={len(CONTENT) // 2}-"


def remote(server, *how, **changes):
    values = {"size": len(CONTENT), "checksum": MD5, **changes}
    return Remote("x.bin", tuple(f"{server.url}/{h}/x.bin" for h in how), "a test", **values)


def ranges(server):
    return [headers.get("Range") for method, _, headers in server.requests if method == "GET"]


@pytest.mark.parametrize("how", ["good", "nolength", "gzip", "busy", "cut", "norange", "badrange", "away"])
def test_the_file_is_downloaded_completely(tmp_path, server, how):
    fetch(remote(server, how), tmp_path)
    only_the_file(tmp_path)


def test_a_download_resumes_after_a_cut_connection(tmp_path, server):
    fetch(remote(server, "cut"), tmp_path)
    assert ranges(server) == [None, HALF]


def test_a_server_that_ignores_the_range_starts_from_the_beginning(tmp_path, server):
    fetch(remote(server, "norange"), tmp_path)
    assert ranges(server)[1] is not None
    only_the_file(tmp_path)


def test_another_mirror_resumes_where_the_first_was_cut(tmp_path, server):
    fetch(remote(server, "cut", "good"), tmp_path)
    assert [path for _, path, _ in server.requests] == ["/cut/x.bin", "/good/x.bin"]
    assert ranges(server)[1] == HALF


def test_without_a_checksum_only_the_mark_of_the_same_server_allows_resuming(tmp_path, server):
    fetch(remote(server, "cut", checksum=None), tmp_path)
    assert server.requests[1][2]["If-Range"] == '"one"'
    (tmp_path / "x.bin").unlink()
    server.requests.clear()
    server.counts.clear()
    fetch(remote(server, "cut", "good", checksum=None), tmp_path)
    assert ranges(server) == [None, None], "another mirror can have another version"


def test_a_cut_file_of_unknown_length_resumes(tmp_path, server):
    fetch(remote(server, "shortnolength"), tmp_path)
    assert ranges(server) == [None, HALF]
    only_the_file(tmp_path)


def test_a_cut_chunked_transfer_of_a_file_with_only_a_checksum_resumes(tmp_path, server, capsys):
    fetch(remote(server, "cutchunks", size=None), tmp_path)
    assert ranges(server) == [None, HALF]
    assert "the connection was cut after 1,500,000 bytes" in capsys.readouterr().err
    only_the_file(tmp_path)


def test_a_changed_file_and_a_full_disk_never_mix_two_versions(tmp_path, server, monkeypatch):
    """The mark of the new version must not be saved with the bytes of the old version."""
    (tmp_path / ".x.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / ".x.bin.mark").write_text(f'{server.url}/good/x.bin\n"other"\n')
    with monkeypatch.context() as full:
        full.setattr(fetching.shutil, "disk_usage", lambda _: type("", (), {"free": 1000})())
        with pytest.raises(UserError, match="free disk space"):
            fetch(remote(server, "good", checksum=None), tmp_path)
    fetch(remote(server, "good", checksum=None), tmp_path)
    only_the_file(tmp_path)


def test_a_disk_that_fills_up_is_reported_and_the_part_is_kept(small_disk, server, monkeypatch):
    # Other processes can fill the disk after the check.
    monkeypatch.setattr(fetching, "_check_disk", lambda *_: None)
    with pytest.raises(UserError, match=r"\.x\.bin\.part: No space left on device; free disk space"):
        fetch(remote(server, "good"), small_disk)
    assert not (small_disk / "x.bin").exists()
    assert (small_disk / ".x.bin.part").stat().st_size > 1_000_000


def test_a_file_that_changes_on_the_server_is_downloaded_from_the_beginning(tmp_path, server):
    (tmp_path / ".x.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / ".x.bin.mark").write_text(f'{server.url}/good/x.bin\n"other"\n')
    fetch(remote(server, "good", checksum=None), tmp_path)
    assert ranges(server) == ["bytes=3000-"]
    only_the_file(tmp_path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("html", "received a web page instead of the file"),
        ("wrong", "the md5 is .*, expected"),
        ("missing", "HTTP 404"),
    ],
)
def test_wrong_content_never_gets_the_name_of_the_file(tmp_path, server, how, message):
    with pytest.raises(UserError, match=rf"x\.bin could not be downloaded[\s\S]*{message}[\s\S]*set data\.mirror"):
        fetch(remote(server, how), tmp_path)
    assert not (tmp_path / "x.bin").exists()
    assert len(server.requests) == (5 if how == "html" else 1), "a hopeless request is not repeated"


def test_after_mirrors_with_wrong_content_the_next_is_tried(tmp_path, server):
    fetch(remote(server, "missing", "html", "wrong", "good"), tmp_path)
    only_the_file(tmp_path)
    assert [path.split("/")[1] for _, path, _ in server.requests] == ["missing", "html", "wrong", "good"]


def test_a_file_of_another_size_is_refused_before_it_is_read(tmp_path, server, capsys):
    with pytest.raises(UserError, match=r"has 3,000,000 bytes, expected 5"):
        fetch(remote(server, "good", size=5), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_any_answer_of_a_server_is_a_failed_attempt_with_its_reason(tmp_path, server, capsys):
    with pytest.raises(UserError) as caught:
        fetch(remote(server, "nowhere", "digits", "escapes"), tmp_path)
    text = str(caught.value) + capsys.readouterr().err
    assert "5 attempts failed" in text
    for behaviour in ("nowhere", "digits", "escapes"):
        assert f"/{behaviour}/x.bin: " in text
    assert r"HTTP 500 \x1b[2J\x07 cleared" in text
    assert "\x1b" not in text
    assert not (tmp_path / "x.bin").exists()
    fetch(remote(server, "nowhere", "digits", "escapes", "good"), tmp_path)
    only_the_file(tmp_path)


def test_no_server_responds(tmp_path):
    with pytest.raises(UserError, match=r"5 attempts failed"):
        fetch(Remote("x.bin", ("http://127.0.0.1:9/x.bin",), "a test"), tmp_path)


def test_a_slow_mirror_is_abandoned_for_the_next(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.5)
    fetch(remote(server, "slow", "good"), tmp_path)
    only_the_file(tmp_path)
    assert "trying another mirror" in capsys.readouterr().err


def test_a_slow_server_is_kept_if_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.3)
    small = CONTENT[:9000]
    with serving({"x.bin": small}) as server:
        fetch(Remote("x.bin", (f"{server.url}/slow/x.bin",), "a test", size=9000), tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == small


def test_if_all_mirrors_are_slow_the_last_is_kept(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.3)
    with serving({"x.bin": CONTENT[:15_000]}) as one, serving({"x.bin": CONTENT[:15_000]}) as other:
        urls = tuple(f"{running.url}/slow/x.bin" for running in (one, other))
        fetch(Remote("x.bin", urls, "a test", size=15_000), tmp_path)
        assert (len(one.requests), len(other.requests)) == (1, 1)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT[:15_000]


def test_an_existing_file_is_not_requested(tmp_path, server):
    (tmp_path / "x.bin").write_bytes(b"put there by hand")
    fetch(remote(server, "good"), tmp_path)
    assert server.requests == []


def test_concurrent_fetches_download_once(tmp_path, server):
    threads = [threading.Thread(target=fetch, args=(remote(server, "good"), tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    only_the_file(tmp_path)


def test_a_full_disk_is_reported_first(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"0\.0 GB are free; free disk space"):
        fetch(remote(server, "good"), tmp_path)


def test_redirects_from_https_to_http_are_refused():
    response = requests.Response()
    response.status_code, response.url = 302, "https://example.org/x"
    response.headers["Location"] = "http://example.org/x"
    with pytest.raises(requests.RequestException, match="from https to http"):
        LoginSession().get_redirect_target(response)


def test_addresses_in_the_suite_come_first():
    settings = DataSettings(urls={"maps.tar.gz": ("https://example.org/maps.tar.gz",)})
    (maps,) = published("maps", settings)
    assert maps.urls[0] == "https://example.org/maps.tar.gz"
    assert len(maps.urls) == 3
    weights = {"vgg19": (VGG19,)}
    assert published("vgg19", settings, weights) == published("vgg19-dcbb9e9d.pth", settings, weights)
    with pytest.raises(UserError, match="did you mean 'maps'"):
        published("map", settings)


def test_the_command_resumes_after_a_kill(tmp_path, server):
    """A process is killed while a slow server sends the file. The next one resumes there."""
    code = (
        "import sys; from pathlib import Path; from msgunet.data.base import Remote; "
        "from msgunet.data.fetch import fetch; "
        f"fetch(Remote('x.bin', (sys.argv[1],), 'a test', size={len(CONTENT)}, checksum={MD5!r}), Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", code, f"{server.url}/slow/x.bin", str(tmp_path)]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    part = tmp_path / ".x.bin.part"
    while not (part.is_file() and part.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "x.bin").exists()
    have = part.stat().st_size
    fetch(remote(server, "good"), tmp_path)
    assert ranges(server)[-1] == f"bytes={have}-"
    only_the_file(tmp_path)


def test_check_file(tmp_path):
    path = Path(tmp_path / "x.bin")
    path.write_bytes(CONTENT)
    assert check_file(path, Remote("x.bin", (), "a test", checksum=MD5)) is None
    path.write_bytes(CONTENT[:-1] + b"!")
    assert "expected" in check_file(path, Remote("x.bin", (), "a test", checksum=MD5))
