"""Decoding in a thread, and how it ends when its request does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

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
        async with self._places:
            with PHASE_SECONDS.labels("decode").time():
                return await _run(work, *arguments)


async def _run(work: Callable[..., Result], *arguments: object) -> Result:
    cancellation = Cancellation()
    with cancellation.block():  # a task keeps the context it was made in
        running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancellation.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # heard here: nobody else asks
        raise
