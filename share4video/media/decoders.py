"""Decoding in a thread, and how it ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from share4video.media.guard import Cancellation

__all__ = ["Decoders"]

Result = TypeVar("Result")


class Decoders:
    """A bounded number of threads that decode.

    Who stops waiting (a client that left, a visitor who closed the page) takes the decoder's process along;
    its place is free once its thread has ended, which is soon, and not before.

    Args:
        timed: makes what is open while something is decoded, in its place.
    """

    def __init__(
        self, count: int, *, timed: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._places = asyncio.Semaphore(count)
        self._timed = timed

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Return what ``work`` returns, in a place of its own. Raises what it raises."""
        await self._places.acquire()
        cancellation = Cancellation()
        with cancellation.block():  # a task keeps the context it was made in
            running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        running.add_done_callback(self._ended)
        try:
            with self._timed():
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    def _ended(self, running: asyncio.Future[Any]) -> None:
        self._places.release()
        if not running.cancelled():
            running.exception()  # heard: nobody else asks where the call has ended
