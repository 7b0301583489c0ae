"""How many calls may be in flight at one endpoint: as many as it takes, and who goes next."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

CUT = 0.75  # of the limit, where the endpoint pushes back
TOLERANCE = 2.0  # times the usual latency that is taken for chance
_SMALLEST_WINDOW = 10  # answers
_USUAL_WEIGHT = 0.1  # of a new window in the usual latency


class AdaptiveLimit:
    """A bound on the calls in flight that follows what the endpoint takes.

    It begins at the most that is allowed. A call that is pushed back (429, 503, a timeout) cuts it to 0.75 of
    what it was, once for all the calls that were under way then; and where the endpoint named a time
    (Retry-After), nobody is to start before it is over. After every window of as many answers as the limit,
    at least 10, it becomes

        limit * min(1, max(0.5, 2 * usual latency / mean latency of the window)) + sqrt(limit)

    so it shrinks while answers come more slowly than usual and grows back otherwise. The usual latency is a
    moving mean over some ten windows: an endpoint that stays slow is taken as it is, in time. Answers that
    came while less than half of the limit was in use say nothing about it and are left out. This is the
    gradient limiter of Netflix's concurrency-limits with the multiplicative decrease of TCP.

    Args:
        most: the bound on the bound, at least 1.
        clock: seconds, ever growing.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._limit = float(most)
        self._usual_s: float | None = None
        self._window: list[float] = []
        self._cut_at = self._closed_until = -math.inf

    @property
    def limit(self) -> int:
        """The calls that may be in flight now, at least 1."""
        return int(self._limit)

    @property
    def pause_s(self) -> float:
        """How long nobody is to start, in seconds."""
        return max(0.0, self._closed_until - self._clock())

    def answered(self, seconds: float, in_flight: int) -> None:
        """Note an answer, how long it took, and how many calls were in flight, itself among them."""
        if 2 * in_flight < self.limit:
            return
        self._window.append(seconds)
        if len(self._window) < max(_SMALLEST_WINDOW, self.limit):
            return
        now_s = sum(self._window) / len(self._window)
        self._window.clear()
        usual_s = now_s if self._usual_s is None else self._usual_s
        gradient = min(1.0, max(0.5, TOLERANCE * usual_s / now_s)) if now_s else 1.0
        self._set(self._limit * gradient + math.sqrt(self._limit))
        self._usual_s = usual_s + _USUAL_WEIGHT * (now_s - usual_s)

    def pushed_back(self, began_s: float, retry_after_s: float | None = None) -> None:
        """Note a call that the endpoint did not take, and when, by the clock, it had begun."""
        now = self._clock()
        if retry_after_s is not None:
            self._closed_until = max(self._closed_until, now + retry_after_s)
        if began_s >= self._cut_at:
            self._cut_at = now
            self._window.clear()
            self._set(self._limit * CUT)

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._most), max(1.0, limit))


class PrioritySlots:
    """A semaphore as wide as a limit is, whose waiters are served by priority, the lowest number first."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.taken = 0
        self._limit = limit
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    @asynccontextmanager
    async def take(self, priority: int) -> AsyncIterator[None]:
        """Hold a slot; the endpoint's pause, where there is one, is waited for inside."""
        if self.taken < self._limit.limit and not self._waiters:
            self.taken += 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiters, (priority, next(self._order), turn))
            self._serve()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back()
                raise
        try:
            while (pause_s := self._limit.pause_s) > 0:
                await asyncio.sleep(pause_s)
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        self.taken -= 1
        self._serve()

    def _serve(self) -> None:
        while self._waiters and self.taken < self._limit.limit:
            _, _, turn = heapq.heappop(self._waiters)
            if not turn.done():
                self.taken += 1
                turn.set_result(None)
