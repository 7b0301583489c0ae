"""A real HTTP server that hands out media, well behaved and not, for the tests of fetching."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(4096)
PAUSE_S = 0.05


class MediaHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        route = self.path.partition("?")[0]
        if route in self.server.files:  # type: ignore[attr-defined]
            self._send(200, *self.server.files[route])  # type: ignore[attr-defined]
        elif route == "/clip.mp4":
            self._send(200, "video/mp4", MP4)
        elif route in ("/page", "/page/v1/models"):
            self._send(200, "text/html; charset=utf-8", b"<html>" + MP4)
        elif route == "/page.mp4":
            self._send(200, "video/mp4", b"#EXTM3U\nhttp://169.254.169.254/latest\n" + bytes(2048))
        elif route == "/gzip":
            self._send(200, "video/mp4", MP4, {"Content-Encoding": "gzip"})
        elif route == "/to":
            self._send(302, "text/plain", b"", {"Location": self.path.partition("?")[2]})
        elif route == "/loop":
            self._send(302, "text/plain", b"", {"Location": "/loop"})
        elif route == "/announced":
            self._send(200, "video/mp4", b"", {"Content-Length": str(1 << 40)})
        elif route in ("/endless", "/drip"):
            self._endless(
                pause_s=PAUSE_S if route == "/drip" else 0.0, block=1 if route == "/drip" else 65536
            )
        else:
            self._send(404, "text/plain", b"no such clip")

    def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _endless(self, *, pause_s: float, block: int) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self.wfile.write(MP4[:16])
            while not self.server.closing.is_set():  # type: ignore[attr-defined]
                self.wfile.write(bytes(block))
                time.sleep(pause_s)
        except OSError:
            pass  # the reader had enough, which is the point

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the test's output clean."""


class MediaHost(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__((address, 0), MediaHandler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.files: dict[str, tuple[str, bytes]] = {}  # content type and bytes by path
        self.closing = threading.Event()
        self.port = self.server_address[1]
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)


@contextmanager
def media_host(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[MediaHost]:
    """Run a media host in a thread."""
    host = MediaHost(address, tls)
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.closing.set()
        host.shutdown()
        host.server_close()
        thread.join()
