"""An OpenAI chat-completions server for tests: real HTTP, its own process, counts, faults on demand.

Run as ``python fake_engine.py``: prints its port, ends when stdin closes. Answers are a function of the
request alone, so two runs that ask the same get the same, and a caption given to the wrong frame shows.

    POST /v1/chat/completions    the protocol
    POST /settings               how to behave (see State.reset); forgets the calls
    GET  /calls                  one record per request: {"prompt", "images", "body", "answered"}
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("http_429", "http_500", "http_503", "drop", "garbage", "truncated", "hang")
CONTENT_FAULTS = ("empty", "length")  # answers that are whole and no good
HANG_S = 3.0


class State:
    """What the server was told and what it saw."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset({})

    def reset(self, settings: dict[str, Any]) -> None:
        self.faults: dict[str, float] = settings.get("faults", {})
        self.latency_s: float = settings.get("latency_s", 0.0)
        self.jitter_s: float = settings.get("jitter_s", 0.0)
        self.answer: str | None = settings.get("answer")
        self.finish_reason: str = settings.get("finish_reason", "stop")
        self.first_status: list[int] = settings.get("first_status", [])
        self.status: int | None = settings.get("status")
        self.bad_prompt: str | None = settings.get("bad_prompt")
        self.bad_image: str | None = settings.get("bad_image")
        self.bad_status: int = settings.get("bad_status", 400)
        self.retry_after: str | None = settings.get("retry_after")
        self.tells_usage: bool = settings.get("tells_usage", True)
        self.takes: int | None = settings.get("takes")  # at a time; more are answered 429
        self.random = random.Random(settings.get("seed", 0))
        self.calls: list[dict[str, Any]] = []
        self.in_flight = self.most_in_flight = 0

    def fault(self) -> str | None:
        roll = self.random.random()
        for name, share in self.faults.items():
            if roll < share:
                return name
            roll -= share
        return None


STATE = State()


def answer_to(body: dict[str, Any]) -> str:
    """Return a caption that names what it was made from."""
    prompt, images = read_prompt(body)
    digest = hashlib.sha256(json.dumps([prompt, images, body.get("seed")]).encode()).hexdigest()
    return f"Caption {digest[:12]} of {len(images)} images."


def read_prompt(body: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the request's text, and a digest of each image."""
    texts, images = [], []
    for message in body["messages"]:
        content: Any = message["content"]
        parts: list[Any] = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                images.append(hashlib.sha256(part["image_url"]["url"].encode()).hexdigest()[:12])
    return "\n".join(texts), images


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with STATE.lock:
            seen = {"calls": STATE.calls, "most_in_flight": STATE.most_in_flight}
            payload = json.dumps(seen).encode()
        self.reply(200, payload)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/settings":
            with STATE.lock:
                STATE.reset(json.loads(data))
            self.reply(200, b"{}")
        elif self.path == "/v1/chat/completions":
            self.chat(json.loads(data))
        else:
            self.reply(404, b'{"error": {"message": "no such route"}}')

    def chat(self, body: dict[str, Any]) -> None:
        prompt, images = read_prompt(body)
        record = {"prompt": prompt, "images": images, "answered": False, "at": time.monotonic()}
        record["body"] = {key: value for key, value in body.items() if key != "messages"}
        record["roles"] = [message["role"] for message in body["messages"]]
        with STATE.lock:
            STATE.calls.append(record)
            STATE.in_flight += 1
            STATE.most_in_flight = max(STATE.most_in_flight, STATE.in_flight)
            fault, status = STATE.fault(), STATE.status
            if STATE.first_status:
                status = STATE.first_status.pop(0)
            if (STATE.bad_prompt is not None and STATE.bad_prompt in prompt) or STATE.bad_image in images:
                status = STATE.bad_status
            if STATE.takes is not None and STATE.in_flight > STATE.takes:
                status = 429
            wait_s = STATE.latency_s + STATE.random.random() * STATE.jitter_s
        try:
            time.sleep(wait_s)
            self.answer(body, record, fault, status)
        finally:
            with STATE.lock:
                STATE.in_flight = max(0, STATE.in_flight - 1)

    def answer(
        self, body: dict[str, Any], record: dict[str, Any], fault: str | None, status: int | None
    ) -> None:
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "hang":
            time.sleep(HANG_S)
            self.close_connection = True
        elif fault == "garbage":
            self.reply(200, b"<html>It works!</html>")
        elif status or (fault is not None and fault.startswith("http_")):
            code = status or int(fault.removeprefix("http_")) if fault else status
            self.reply(int(code or 500), b'{"error": {"message": "as told"}}')
        else:
            text = answer_to(body) if STATE.answer is None else STATE.answer
            text = "" if fault == "empty" else text
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": STATE.finish_reason}
            if fault == "length":
                choice["finish_reason"] = "length"
            usage = {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 0}
            reply = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            told = {"usage": usage} if STATE.tells_usage else {}
            payload = json.dumps({**reply, "choices": [choice], **told}).encode()
            if fault == "truncated":
                payload = payload[: len(payload) // 2]
            else:
                record["answered"] = True
            self.reply(200, payload)

    def reply(self, status: int, payload: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        if status in (429, 503) and STATE.retry_after is not None:
            self.send_header("retry-after", STATE.retry_after)
        self.end_headers()
        self.wfile.write(payload)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or gave up is what the tests are about, not worth a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
