"""The calls to one engine: a bounded number in flight, and whose fault it is when they fail.

A failed call says little: the clip may be to blame, or the engine may be gone. What is published for a clip
must not depend on the second, so failures count against clips only where the engine has shown itself well
afterwards: by another answer, or, where nothing else is left to ask, by one to a request it has answered
before or, for want of such, to a plain one.
"""

from __future__ import annotations

import asyncio
import heapq
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from itertools import count

from PIL import Image

from share4video.captioning.client import (
    CallError,
    ChatClient,
    ChatRequest,
    Outcome,
    has_image,
    image_part,
    text_part,
)
from share4video.captioning.engine import engine_refuses, engine_silent

SILENT_CALLS = 5  # calls on end that failed after all their retries: the engine may be gone, not unlucky
_PLAIN_SIDE = 224  # pixels; some models refuse much smaller pictures


class EngineLine:
    """The calls to one engine; those that wait for a slot are served in order of what hangs on them.

    Attributes:
        answered_before: whether an earlier run had answers from it, which are in the journal.
    """

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.answered_before = False
        self._slots = _PrioritySlots(client.spec.max_in_flight)
        self._proving = asyncio.Lock()
        self._answered: dict[bool, ChatRequest] = {}  # the last request with pictures, and that without
        self._failed_on_end = 0
        self._failed: tuple[ChatRequest, CallError] | None = None  # the last since an answer; a plain request
        self._refusals = 0
        self._refused: tuple[ChatRequest, CallError] | None = None  # the first; a plain request
        self._lost: list[CallError] = []

    async def ask(self, build: Callable[[], ChatRequest], weight: int) -> Outcome:
        """Make a call when its turn has come, that of the greatest weight first.

        Raises:
            UserError: the engine refuses the key, knows no such model, does not answer, or refuses all it is
                asked.
        """
        async with self._slots.take(-weight):
            request = await asyncio.to_thread(build)
            try:
                answer = await self.client.ask(request)
            except CallError as error:
                failure = error.bare()
            else:
                self._answered[has_image(request)] = request
                self._failed, self._failed_on_end = None, 0
                return answer
        if failure.may_pass:
            self._failed_on_end += 1
            self._failed = (_plain(request), failure)
            if self._failed_on_end >= SILENT_CALLS:
                await self.prove_alive()
        else:
            self._refusals += 1
            self._refused = self._refused or (_plain(request), failure)
            if self._refusals == SILENT_CALLS:  # known early, before every clip of many was decoded for it
                await self._prove_willing()
        return failure

    async def prove_alive(self) -> None:
        """Make sure that the engine is well where no call was answered after the last one that failed.

        Raises:
            UserError: it is not.
        """
        async with self._proving:
            if self._failed is None:
                return
            plain, failure = self._failed
            if self._failed_on_end >= SILENT_CALLS and not (self._answered or self.answered_before):
                raise engine_silent(self.client.endpoint, failure)
            try:
                await self.client.ask(self._answered.get(has_image(plain), plain))
            except CallError as error:
                if error.may_pass:  # a refusal is a sign of life
                    raise engine_silent(self.client.endpoint, failure) from error
            self._failed, self._failed_on_end = None, 0

    def give_up(self, failure: CallError) -> None:
        """Note that a call is not made again: what it was for goes without."""
        self._lost.append(failure)

    async def prove_useful(self) -> None:
        """At the end, make sure that refusals and failures are not all there is to get from the engine.

        A single call may have been its clip's fault: then it is enough that a plain request is answered.

        Raises:
            UserError: they are.
        """
        if len(self._lost) > 1 and not (self._answered or self.answered_before):
            first = self._lost[0]
            raise (engine_silent if first.may_pass else engine_refuses)(self.client.endpoint, first)
        await self._prove_willing()

    async def _prove_willing(self) -> None:
        if self._refused is None or self._answered:
            return
        plain, refusal = self._refused
        try:
            await self.client.ask(plain)
        except CallError as error:
            raise engine_refuses(self.client.endpoint, refusal) from error


def _plain(request: ChatRequest) -> ChatRequest:
    """Return a request of the same form and length that every engine of the kind can answer."""
    content = [text_part("Describe this picture." if has_image(request) else "Say something.")]
    if has_image(request):
        content.insert(0, image_part(_plain_picture()))
    return replace(request, messages=[{"role": "user", "content": content}])


@cache
def _plain_picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (_PLAIN_SIDE, _PLAIN_SIDE), "grey").save(sink, "JPEG")
    return sink.getvalue()


class _PrioritySlots:
    """A semaphore whose waiters are served in order of priority, the lowest number first."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    @asynccontextmanager
    async def take(self, priority: int) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiters, (priority, next(self._order), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiters:
            _, _, turn = heapq.heappop(self._waiters)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
