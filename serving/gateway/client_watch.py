"""ASGI middleware: the work for a request ends when its client leaves."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ClientWatch:
    """Cancels a request whose client has hung up, on whatever route.

    Without it an answer that nobody waits for keeps its place here, and the model busy, to its last token.
    Stands behind `Uploads`, so that what it reads ahead of the route is in memory already.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        answered = False

        async def listen() -> None:
            message: Message = {}
            while message.get("type") != "http.disconnect":
                message = await receive()
                await arrived.put(message)

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = answered or (
                message["type"] == "http.response.body" and not message.get("more_body", False)
            )
            await send(message)

        work = asyncio.ensure_future(self.app(scope, arrived.get, watched))
        listener = asyncio.create_task(listen())
        try:
            await asyncio.wait({work, listener}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not answered:  # after an answer, too, the server says that the client left
                work.cancel()
            await asyncio.wait({work})
            if not work.cancelled():
                work.result()
        finally:
            listener.cancel()
            work.cancel()
            await asyncio.gather(work, listener, return_exceptions=True)
