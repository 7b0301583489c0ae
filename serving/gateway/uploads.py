"""ASGI middleware: bodies are read whole before anything else happens, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.refusal import Refusal
from serving.gateway.settings import GatewaySettings

MAX_VALUES = 1 << 18  # of a body's JSON; an empty list takes 3 bytes there and 64 in memory


class _ClientGone(Exception):
    """The client hung up while it was sending."""


class Uploads:
    """Reads every request's body and hands it on; no body takes a request's place before it is whole.

    Answers 413 to a body that announces too much or sends it, or that lists so many values that they would
    take a multiple of its size in memory; 429 while the bodies of all requests together
    hold as much as they may, and 408 to a client that stops sending or takes too long. A body counts until
    its request is answered: until then it is in memory.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self.app, self.settings = app, settings
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body()
        try:
            try:
                await self._read(scope, receive, body)
            except _ClientGone:
                return
            except Refusal as refusal:
                await refusal.response()(scope, receive, send)
                return
            await self.app(scope, _replayed(body.messages, receive), send)
        finally:
            self._buffered -= body.size

    async def _read(self, scope: Scope, receive: Receive, body: _Body) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"")
        expected = int(announced) if announced.isdigit() else 0
        self._check_size(expected)
        stall_s, whole_s = self.settings.upload_stall_s, self.settings.upload_timeout_s
        full = self._is_full(expected)
        try:
            async with asyncio.timeout(whole_s):
                while body.more:
                    async with asyncio.timeout(stall_s):
                        message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGone
                    self._buffered += body.take(message)
                    self._check_size(body.received)
                    if body.values > MAX_VALUES:
                        sentence = f"the request holds more than {MAX_VALUES} values"
                        raise Refusal(413, "body_too_big", sentence, hang_up=True)
                    if full := full or self._is_full(0):
                        self._buffered -= body.drop()
        except TimeoutError:
            sentence = f"the body stopped coming for {stall_s:g} seconds, or took more than {whole_s:g}"
            raise Refusal(408, "body_too_slow", sentence, hang_up=True) from None
        if full:  # said at the end only: a client that is still sending would not hear it
            raise Refusal(429, "busy", "the gateway holds all the bodies it may; try again")

    def _check_size(self, size: int) -> None:
        if size > (bound := self.settings.max_body_bytes):
            raise Refusal(413, "body_too_big", f"the request is larger than {bound} bytes", hang_up=True)

    def _is_full(self, more: int) -> bool:
        return self._buffered + more > self.settings.max_buffered_bytes


class _Body:
    """What came of one body.

    Attributes:
        size: of what is held.
        received: size of all that came, dropped or not.
        values: how many JSON values came at most; what stands in texts is counted with them.
    """

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.size, self.received, self.values, self.more = 0, 0, 0, True

    def take(self, message: Message) -> int:
        """Hold ``message``; return its size."""
        self.messages.append(message)
        self.more = message.get("more_body", False)
        block = message.get("body", b"")
        size = len(block)
        self.values += sum(block.count(mark) for mark in (b",", b"[", b"{"))
        self.size += size
        self.received += size
        return size

    def drop(self) -> int:
        """Let go of all that is held; return its size."""
        self.messages.clear()
        dropped, self.size = self.size, 0
        return dropped


def _replayed(messages: deque[Message], receive: Receive) -> Receive:
    async def replay() -> Message:
        return messages.popleft() if messages else await receive()

    return replay
