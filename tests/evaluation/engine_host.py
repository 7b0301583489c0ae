"""A real HTTP server that speaks the engine's protocol and answers as the test tells it.

It also stands in for the model server a run shares: it says it is healthy and loads whatever it is asked to.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from share4video.config import EngineSpec

Body = dict[str, Any]


class EngineHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EngineHost

    def do_GET(self) -> None:
        self._reply(200, b"{}", "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/load_model":
            self._reply(200, b'data: {"status": "ready"}\n\n', "text/event-stream")
            return
        with self.server.lock:
            self.server.seen.append(body)
            self.server.running += 1
            self.server.peak = max(self.server.peak, self.server.running)
        try:
            answer = self.server.answer(body)
        finally:
            with self.server.lock:
                self.server.running -= 1
        if isinstance(answer, int):
            self._reply(answer, b'{"error": {"message": "as the test wants it"}}', "application/json")
            return
        message = {"role": "assistant", "content": answer}
        completion = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
        self._reply(200, json.dumps(completion).encode(), "application/json")

    def _reply(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class EngineHost(ThreadingHTTPServer):
    """``answer`` gets a request's body and returns the reply's text, or a status to fail with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EngineHandler)
        self.lock = threading.Lock()
        self.seen: list[Body] = []
        self.running = self.peak = 0
        self.answer: Callable[[Body], str | int] = lambda _: "A)"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spec(self, **changes: Any) -> EngineSpec:
        fields = {
            "url": f"{self.root}/v1",
            "model": "tiny",
            "revision": "r1",
            "retries": 0,
            "max_in_flight": 2,
        }
        return EngineSpec.model_validate({**fields, **changes})

    def share_as_model_server(self, folder: Path) -> str:
        """Write what makes ``SHARE4VIDEO_MODEL_SERVER`` lead here, and return that variable's value."""
        (folder / "models").mkdir(parents=True)
        address = {"base_url": f"{self.root}/v1", "log": str(folder / "log")}
        (folder / "server.json").write_text(json.dumps(address))
        return str(folder)


@contextmanager
def engine_host() -> Iterator[EngineHost]:
    """Run the server for the time of the block."""
    server = EngineHost()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def text_of(body: Body) -> str:
    """Return the text of a request's user turn."""
    content = body["messages"][1]["content"]
    return str(next(part["text"] for part in content if part["type"] == "text"))


def image_of(body: Body) -> Image.Image | None:
    """Return the picture of a request's user turn, if it has one."""
    for part in body["messages"][1]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            return Image.open(io.BytesIO(data)).convert("RGB")
    return None
