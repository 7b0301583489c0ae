"""The HTTP server: one model, one question at a time, a few that wait.

GET  /health                 200 once the model is loaded, 503 before and when the GPU has failed
GET  /v1/models              its name
POST /v1/chat/completions    the OpenAI protocol, see `protocol`
"""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving.legacy_captioner.protocol import (
    MAX_BODY_BYTES,
    Budgets,
    Captioner,
    Refused,
    completion,
    question,
)

MAX_WAITING = 8  # requests that are read or answered at a time; more are told to come again
RETRY_AFTER_S = 2
_BLOCK_BYTES = 1 << 20
_LENGTH_DIGITS = 12  # of a number of bytes; Python reads no number of thousands
_STALLED_S = 60.0  # a connection that sends nothing for so long is closed

# After one of these every call of the process fails; want of memory ("CUDA out of memory") passes.
_BROKEN = ("CUDA error", "cuDNN error")

logger = logging.getLogger(__name__)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _STALLED_S
    server: CaptionServer

    def do_GET(self) -> None:
        if self.path == "/health":
            status = "broken" if self.server.broken.is_set() else "ok"
            status = "loading" if self.server.captioner is None else status
            self._reply(200 if status == "ok" else 503, {"status": status})
        elif self.path == "/v1/models":
            listed = {"id": self.server.model, "object": "model", "created": 0, "owned_by": "share4video"}
            self._reply(200, {"object": "list", "data": [listed]})
        else:
            self._refuse(Refused(404, "no such route"))

    def do_POST(self) -> None:
        place = self.server.places.acquire(blocking=False)
        try:
            body = self._body(keep=place)
            if self.path != "/v1/chat/completions":
                raise Refused(404, "no such route")
            if not place:
                raise Refused(429, "too many requests wait")
            self._reply(200, self.server.answer(body))
        except Refused as refusal:
            self._refuse(refusal)
        except Exception as error:
            logger.exception("the model failed")
            self._refuse(Refused(500, "the model failed; the server's log says why"))
            if any(sign in str(error) for sign in _BROKEN):
                self.server.broken.set()
        finally:
            if place:
                self.server.places.release()

    def _body(self, *, keep: bool) -> bytes:
        """Read the body to its end, or no more of it than a body may have; without ``keep`` it is dropped.

        Who sends one does not read an answer before it is sent.
        """
        told = self.headers.get("Content-Length", "")
        if not told.isascii() or not told.isdigit():
            self.close_connection = True  # where the next request begins is not known
            raise Refused(411, "a body needs its length")
        if len(told) > _LENGTH_DIGITS or int(told) > MAX_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        blocks, left = [], int(told)
        while left:
            try:
                block = self.rfile.read(min(left, _BLOCK_BYTES))
            except OSError:  # it stalls or is gone; nothing more can be read of it
                self.close_connection = True
                raise Refused(408, "the body stopped coming") from None
            if not block:
                self.close_connection = True
                raise Refused(400, "the body ends too early")
            left -= len(block)
            if keep:
                blocks.append(block)
        return b"".join(blocks)

    def _refuse(self, refusal: Refused) -> None:
        kind = "invalid_request_error" if refusal.status < 500 else "server_error"
        self._reply(refusal.status, {"error": {"message": str(refusal), "type": kind}})

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status in (429, 503):
                self.send_header("Retry-After", str(RETRY_AFTER_S))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        logger.info(format, *args)


class CaptionServer(ThreadingHTTPServer):
    """Serves a model under a name; ``captioner`` is set once it is loaded.

    Attributes:
        broken: set once the GPU can do nothing more for this process, which is to be started anew.
    """

    daemon_threads = True

    def __init__(
        self, host: str, port: int, model: str, budgets: Budgets, captioner: Captioner | None = None
    ) -> None:
        super().__init__((host, port), _Handler)
        self.model, self.budgets, self.captioner = model, budgets, captioner
        self.places = threading.BoundedSemaphore(MAX_WAITING)
        self.broken = threading.Event()
        self._asking = threading.Lock()

    def answer(self, body: bytes) -> dict[str, Any]:
        """Answer one request. Raises Refused where it is not answered."""
        if self.captioner is None:
            raise Refused(503, "the model is being loaded")
        asked = question(body, self.model, self.budgets)
        with self._asking:
            written = self.captioner.write(asked)
        return completion(written, asked, self.model)
