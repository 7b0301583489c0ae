"""A real HTTP server that hands out what a gateway must refuse, and counts what was taken of it.

It speaks enough of S3's protocol (``GET /bucket/key``) to be one that misbehaves.
"""

from __future__ import annotations

import gzip
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "127.0.0.9"  # a loopback address that a gateway can be allowed without 127.0.0.1
BUCKET = "clips"
HUGE_BYTES = 3 << 30
MP4_START = b"\x00\x00\x00\x18ftypisom" + bytes(4096)
_BLOCK = bytes(1 << 16)
_PAUSE_S = 0.05


def _bomb() -> bytes:
    """Return 64 KiB that gunzip to a thousand times as much."""
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1, mtime=0) as packed:
        packed.write(MP4_START)
        for _ in range(1024):
            packed.write(_BLOCK)
    return sink.getvalue()


class AttackHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AttackHost

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.close_connection = True
        with self.server.at_work(), suppress(OSError):  # the reader had enough, which is the point
            if path == "/to":
                self._answer(302, "text/plain", b"", {"Location": query})
            elif path in self.server.files:
                self._answer(200, *self.server.files[path])
            else:
                self._misbehave(path.removeprefix(f"/{BUCKET}/allowed").removeprefix("/"))

    def _misbehave(self, how: str) -> None:
        if how == "gzip":
            self._answer(200, "video/mp4", self.server.bomb, {"Content-Encoding": "gzip"})
        elif how == "declared":
            self._begin({"Content-Length": str(HUGE_BYTES)})
            self._pour(_BLOCK)
        elif how == "lying":  # announces little and sends much
            self._begin({"Content-Length": "4096"})
            self._pour(_BLOCK)
        elif how == "chunked":
            self._begin({"Transfer-Encoding": "chunked"})
            self._pour(b"10000\r\n" + _BLOCK + b"\r\n")
        elif how == "endless":
            self._begin({})
            self._pour(_BLOCK)
        elif how == "drip":
            self._begin({})
            self._pour(b"\0", pause_s=_PAUSE_S)
        elif how == "silent":
            self._wait_until_left()
        elif how == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self._pour(b"x", pause_s=_PAUSE_S)
        elif how == "many-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self._pour(b"X-More: " + b"x" * 1000 + b"\r\n")
        elif how == "loop":
            self._answer(302, "text/plain", b"", {"Location": "/loop"})
        else:
            self._answer(404, "text/plain", b"nothing here")

    def _answer(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
        for name, value in (fields | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in ({"Content-Type": "video/mp4", "Connection": "close"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if "Transfer-Encoding" not in headers:
            self.wfile.write(MP4_START)

    def _pour(self, block: bytes, *, pause_s: float = 0.0) -> None:
        while self.server.sent[self.path] < HUGE_BYTES and not self.server.closing.is_set():
            self.wfile.write(block)
            self.server.sent[self.path] += len(block)
            time.sleep(pause_s)

    def _wait_until_left(self) -> None:
        self.connection.settimeout(_PAUSE_S)
        while not self.server.closing.is_set():
            with suppress(TimeoutError):
                if self.connection.recv(1) == b"":
                    return

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the output clean."""


class AttackHost(ThreadingHTTPServer):
    """The server.

    Attributes:
        files: content type and bytes by path.
        sent: bytes poured out so far, by path.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__((ADDRESS, 0), AttackHandler)
        self.port: int = self.server_address[1]
        self.url = f"http://{ADDRESS}:{self.port}"
        self.files: dict[str, tuple[str, bytes]] = {}
        self.sent: Counter[str] = Counter()
        self.bomb = _bomb()
        self.closing = threading.Event()
        self._lock, self._open = threading.Lock(), 0

    @property
    def open_answers(self) -> int:
        """How many answers are still being given."""
        return self._open

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._lock:
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that hangs up is no error here."""


@contextmanager
def attack_host() -> Iterator[AttackHost]:
    """Run the host in a thread."""
    host = AttackHost()
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.closing.set()
        host.shutdown()
        host.server_close()
        thread.join()
