"""The calls to one engine: as many in flight as it takes, and whose fault it is when they fail.

A failed call says little: the clip may be to blame, or the engine may be gone. What is published for a clip
must not depend on the second, so failures count against clips only where the engine has shown itself well
afterwards: by another answer, or, where nothing else is left to ask, by one to a request it has answered
before or, for want of such, to a plain one.
"""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

from share4video.captioning.client import (
    CallError,
    ChatClient,
    ChatRequest,
    Completion,
    Outcome,
    has_image,
    image_part,
    may_pass,
    text_part,
)
from share4video.captioning.engine import engine_refuses, engine_silent
from share4video.captioning.limiter import AdaptiveLimit, PrioritySlots

if TYPE_CHECKING:
    from tenacity import RetryCallState

SILENT_CALLS = 5  # calls on end that failed after all their retries: the engine may be gone, not unlucky
PUSHED_BACK_CALLS = 20  # attempts at one call that were pushed back while others were answered
_PLAIN_SIDE = 224  # pixels; some models refuse much smaller pictures


@dataclass(frozen=True)
class Attempt:
    """A request that was sent, what came of it, and how long that took."""

    request: ChatRequest
    outcome: Outcome
    seconds: float


class EngineLine:
    """The calls to one engine; those that wait for a slot are served in order of what hangs on them.

    Attributes:
        answered_before: whether an earlier run had answers from it, which are in the journal.
        answers: how many it gave.
    """

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.answered_before = False
        self.answers = 0
        self._limit = AdaptiveLimit(client.spec.max_in_flight)
        self._slots = PrioritySlots(self._limit)
        self._proving = asyncio.Lock()
        self._answered: dict[bool, ChatRequest] = {}  # the last request with pictures, and that without
        self._failed_on_end = 0
        self._failed: tuple[ChatRequest, CallError] | None = None  # the last since an answer; a plain request
        self._refusals = 0
        self._refused: tuple[ChatRequest, CallError] | None = None  # the first; a plain request
        self._lost = 0
        self._first_lost: CallError | None = None

    async def ask(
        self, build: Callable[[], ChatRequest], weight: int, limit_s: float = math.inf
    ) -> tuple[Outcome, float]:
        """Make a call when its turn has come, that of the greatest weight first.

        Every attempt waits for its turn anew, so that no slot is held between attempts. One that is pushed
        back while others are answered is no failed one: it goes back in line, up to a bound.

        Args:
            build: makes the request, once per attempt.
            limit_s: how long the call may take; so does the engine's ``call_timeout_s``. Waiting for a turn
                does not count, waiting between attempts does.

        Returns:
            What came of it, and how long it took in seconds.

        Raises:
            UserError: the engine refuses the key, knows no such model, does not answer, or refuses all it is
                asked.
        """
        from tenacity import AsyncRetrying, retry_if_exception

        tries = _Tries(self, build, weight, min(limit_s, self.client.spec.call_timeout_s))
        retrying = AsyncRetrying(
            retry=retry_if_exception(may_pass),
            stop=tries.are_over,
            wait=self.client.wait_s,
            sleep=tries.sleep,
            reraise=True,
        )
        try:
            answer: Completion = await retrying(tries.make)
        except CallError as error:
            failure = error.bare()
        else:
            return answer, tries.spent_s
        assert tries.request is not None
        await self._note(tries.request, failure)
        return failure, tries.spent_s

    async def _note(self, request: ChatRequest, failure: CallError) -> None:
        """Take down a failed call, and find out whether the engine is to blame where several failed."""
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

    async def attempt(self, request_of: Callable[[], ChatRequest], weight: int, limit_s: float) -> Attempt:
        """Send a request once when its turn has come; see `ask`."""
        async with self._slots.take(-weight):
            if self._failed_on_end >= SILENT_CALLS:
                await self.prove_alive()
            request = await asyncio.to_thread(request_of)
            began_s = time.monotonic()
            outcome: Outcome
            try:
                async with asyncio.timeout(limit_s if math.isfinite(limit_s) else None):
                    outcome = await self.client.attempt(request)
            except TimeoutError:
                outcome = self.client.no_answer(limit_s)
            except CallError as error:
                outcome = error
                if error.pushed_back:
                    self._limit.pushed_back(began_s, error.retry_after_s)
            seconds = time.monotonic() - began_s
            if isinstance(outcome, Completion):
                self._limit.answered(seconds, self._slots.taken)
                self.answers += 1
                self._answered[has_image(request)] = request
                self._failed, self._failed_on_end = None, 0
            return Attempt(request, outcome, seconds)

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
        self._lost += 1
        self._first_lost = self._first_lost or failure

    async def prove_useful(self) -> None:
        """At the end, make sure that refusals and failures are not all there is to get from the engine.

        A single call may have been its clip's fault: then it is enough that a plain request is answered.

        Raises:
            UserError: they are.
        """
        first = self._first_lost
        if first is not None and self._lost > 1 and not (self._answered or self.answered_before):
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


class _Tries:
    """The attempts at one call: how many there were, and how long they took.

    Attributes:
        spent_s: the attempts and the waits between them, without those for a turn.
        request: the last that was sent.
    """

    def __init__(
        self, line: EngineLine, build: Callable[[], ChatRequest], weight: int, limit_s: float
    ) -> None:
        self.spent_s = 0.0
        self.request: ChatRequest | None = None
        self._line, self._build, self._weight, self._limit_s = line, build, weight, limit_s
        self._failed = self._pushed_back = 0
        self._answers_before = line.answers

    async def make(self) -> Completion:
        """Attempt the call once more. Raises CallError where it fails."""
        made = await self._line.attempt(self._build, self._weight, self._limit_s - self.spent_s)
        self.request = made.request
        self.spent_s += made.seconds
        if isinstance(made.outcome, Completion):
            return made.outcome
        if made.outcome.pushed_back and self._line.answers > self._answers_before:
            self._pushed_back += 1
        else:
            self._failed += 1
        self._answers_before = self._line.answers
        raise made.outcome

    async def sleep(self, seconds: float) -> None:
        self.spent_s += seconds
        await asyncio.sleep(seconds)

    def are_over(self, state: RetryCallState) -> bool:
        if self.spent_s + state.upcoming_sleep >= self._limit_s:
            self.spent_s = self._limit_s
            return True
        return self._failed > self._line.client.spec.retries or self._pushed_back > PUSHED_BACK_CALLS


def _plain(request: ChatRequest) -> ChatRequest:
    """Return a request of the same form and length that every engine of the kind can answer."""
    content = [text_part("Describe this picture." if has_image(request) else "Say something.")]
    if has_image(request):
        content.insert(0, image_part(_plain_picture()))
    begun = [{"role": "system", "content": "Be brief."}] if request.messages[0]["role"] == "system" else []
    return replace(request, messages=[*begun, {"role": "user", "content": content}])


@cache
def _plain_picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (_PLAIN_SIDE, _PLAIN_SIDE), "grey").save(sink, "JPEG")
    return sink.getvalue()
