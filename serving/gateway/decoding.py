"""Decoding in a thread, and how it ends when its request does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from serving.gateway.metrics import PHASE_SECONDS
from share4video.media.guard import Cancellation

Result = TypeVar("Result")


class Decoders:
    """A bounded number of threads that decode.

    A request that ends early (its client left) takes its decoder's process along: its place is free once its
    thread has ended, which is soon, and not before.
    """

    def __init__(self, count: int) -> None:
        self._places = asyncio.Semaphore(count)

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Return what ``work`` returns, in a place of its own. Raises what it raises."""
        await self._places.acquire()
        cancellation = Cancellation()
        with cancellation.block():  # a task keeps the context it was made in
            running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        running.add_done_callback(self._ended)
        try:
            with PHASE_SECONDS.labels("decode").time():
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    def _ended(self, running: asyncio.Future[Any]) -> None:
        self._places.release()
        if not running.cancelled():
            running.exception()  # heard: nobody else asks where the request has ended
