"""ASGI middleware: no request body larger than the bound is ever held in memory."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.refusal import Refusal


class BodyLimit:
    """Answers 413 before reading a body that announces too much, and while reading one that lied.

    Routes raise on the second kind: the exception passes through the route to the handler of ``Refusal``.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sentence = f"the request is larger than {self.max_bytes} bytes"
        refusal = Refusal(413, "body_too_big", sentence, hang_up=True)
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self.max_bytes:
            await refusal.response()(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise refusal
            return message

        await self.app(scope, bounded, send)
