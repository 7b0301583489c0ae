"""A real OpenAI-compatible HTTP server that records what it is asked and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "upstream/model@main"
MODEL_NAME = "video-chat"  # what the gateway in front calls it
WORDS = ("a ", "red ", "circle ", "moves")


class UpstreamHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: UpstreamHost

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            if self.server.models is None:
                self._json(500, {"error": "no cache to list"})
                return
            self._json(200, {"object": "list", "data": [{"id": name} for name in self.server.models]})
            return
        self._json(200 if self.server.healthy else 503, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        if self.server.hang:
            if self.connection.recv(1) == b"":  # waits until the gateway hangs up
                self.server.dropped.set()
            self.close_connection = True
        elif self.server.hang_up:
            self.close_connection = True
        elif self.server.refuse_with is not None:
            self._json(*self.server.refuse_with)
        elif body.get("stream"):
            self._stream()
        else:
            text = self.server.answer(body)
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
            self._json(200, _completion("chat.completion", choice) | {"usage": usage})

    def _stream(self) -> None:
        """Send one word at a time; between words, wait until the test has seen the one before."""
        self.close_connection = True
        step = self.server.step
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for word in WORDS:
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                chunk = json.dumps(_completion("chat.completion.chunk", choice))
                self.server.sent.append(word)  # before it can be received
                self.wfile.write(f"data: {chunk}\n\n".encode())
                if step is not None and not step.acquire(timeout=60):
                    self.server.stalled = True
            if not self.server.break_stream:
                self.wfile.write(b"data: [DONE]\n\n")
            else:
                self.connection.shutdown(2)
        except OSError:
            self.server.dropped.set()

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) + (100 if self.server.cut_short else 0)))
        self.end_headers()
        self.wfile.write(data)
        if self.server.cut_short:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the test's output clean."""


class UpstreamHost(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), UpstreamHandler)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.reset()

    def reset(self) -> None:
        """Forget what was asked and answer well again."""
        self.seen: list[dict[str, Any]] = []
        self.sent: list[str] = []
        self.models: list[str] | None = [MODEL]
        self.healthy, self.stalled, self.break_stream = True, False, False
        self.hang, self.hang_up, self.cut_short = False, False, False
        self.refuse_with: tuple[int, Any] | None = None
        self.step: threading.Semaphore | None = None
        self.dropped = threading.Event()
        self.answer = lambda body: "".join(WORDS)


def _completion(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c1", "object": kind, "created": 1, "model": MODEL, "choices": [choice]}


@contextmanager
def upstream_host() -> Iterator[UpstreamHost]:
    """Run an upstream in a thread."""
    host = UpstreamHost()
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
        thread.join()
