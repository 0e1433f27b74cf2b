"""Local test servers: one that fails in every way that downloads must survive, and one with the Cityscapes login."""

import contextlib
import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
USER, PASSWORD = "test_user", "canary-7f3a9c-password"


class Server(ThreadingHTTPServer):
    """Serves `files` by name; the folder in the URL selects the behaviour: `/good/x`, `/cut/x`, `/html/x` and so on."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.posted: list[dict[str, list[str]]] = []
        self.counts: Counter[str] = Counter()
        self.tag = '"one"'

    def handle_error(self, *_: object) -> None:
        """Ignore errors: tests disconnect clients in the middle of a transfer on purpose."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    """Run a server in a thread until the block ends."""
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.requests.append(("GET", self.path, dict(self.headers)))
        self.server.counts[parts.path] += 1
        first = self.server.counts[parts.path] == 1
        if parts.path == "/file-handling/":
            return self._package(parse_qs(parts.query))
        behaviour, name = parts.path.strip("/").split("/")
        data = self.server.files[name]
        match behaviour:
            case "nowhere":
                return self._send(302, b"", {"Location": "http://[not an address/"})
            case "digits":
                return self._send(200, data[:10], {"Content-Length": "9" * 5000})
            case "escapes":
                self.send_response(500, "\x1b[2J\x07 cleared")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            case "missing":
                return self._send(404, b"not here")
            case "busy" if first:
                return self._send(503, b"later")
            case "html":
                return self._send(200, b"<html>maintenance</html>", {"Content-Type": "text/html; charset=utf-8"})
            case "wrong":
                return self._send(200, bytes(len(data)))
            case "nolength":
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = True
                return None
            case "gzip":
                return self._send(200, data, {"Content-Encoding": "x-gzip"})
            case "shortnolength" if first:
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            case "cutchunks" if first:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%s" % (len(data), data[: len(data) // 2]))
                self.wfile.flush()
                self.close_connection = True
                return None
            case "slow":
                return self._slowly(data)
            case "away":
                return self._send(302, b"", {"Location": f"http://localhost:{self.server.server_port}/good/{name}"})
            case "cut" | "norange" | "badrange" if first:
                return self._cut(data)
            case "norange":
                return self._send(200, data)
            case "badrange" if "Range" in self.headers:
                return self._send(206, data[:10], {"Content-Range": f"bytes 0-9/{len(data)}"})
        return self._ranged(data)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.requests.append(("POST", self.path, dict(self.headers)))
        self.server.posted.append(form)
        self.server.counts["POST"] += 1
        if self.path != "/login":
            return self._send(404, b"")
        if self.server.tag == "redirects the form":
            return self._send(307, b"", {"Location": f"http://localhost:{self.server.server_port}/elsewhere"})
        if (form.get("username"), form.get("password"), form.get("submit")) != ([USER], [PASSWORD], ["Login"]):
            return self._send(200, b"<html>wrong</html>", {"Content-Type": "text/html"})
        return self._send(302, b"", {"Location": "/downloads/", "Set-Cookie": "PHPSESSID=secret-cookie; path=/"})

    def _package(self, query: dict[str, list[str]]) -> None:
        ended = self.server.tag == "the session has ended" and self.server.counts["/file-handling/"] == 1
        if ended or "PHPSESSID=secret-cookie" not in self.headers.get("Cookie", ""):
            return self._send(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        names = {"1": "gtFine_trainvaltest.zip", "3": "leftImg8bit_trainvaltest.zip"}
        return self._ranged(self.server.files[names[query["packageID"][0]]])

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "ETag": self.server.tag, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _ranged(self, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or self.headers.get("If-Range", self.server.tag) != self.server.tag:
            return self._send(200, data)
        start = int(match[1])
        if start >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return self._send(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

    def _cut(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True

    def _slowly(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            for start in range(0, len(data), 1000):
                self.wfile.write(data[start : start + 1000])
                self.wfile.flush()
                time.sleep(0.1)


def only_the_file(folder):
    """Assert that a folder holds the complete file, and nothing else but locks."""
    assert [p.name for p in folder.iterdir() if not p.name.endswith(".lock")] == ["x.bin"]
    assert (folder / "x.bin").read_bytes() == CONTENT
