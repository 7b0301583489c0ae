"""Many conversations at once: each is a chain of calls, and a chain's next call goes out as its last returns.

Calls wait in line for an engine's slots, those of the longest remaining chain first, so that no long chain is
left to run alone at the end. Every answer is in the journal before the chain goes on.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from share4video.captioning.client import CallError, ChatClient, ChatRequest
from share4video.captioning.engine import engine_silent, user_error_in
from share4video.captioning.journal import Journal, Outcome

SILENT_CALLS = 5  # calls on end that failed after all their retries: the engine is gone, not unlucky


@dataclass(frozen=True)
class Call:
    """A call a conversation wants made.

    Attributes:
        key: names it within its conversation, the same in every run.
        engine: which of the clients it goes to.
        build: makes the request, when its turn has come; may take time (images are composed).
    """

    key: str
    engine: str
    build: Callable[[], ChatRequest]


class Conversation(Protocol):
    """A chain of calls, each made from the answers before it."""

    @property
    def calls_left(self) -> int:
        """How many calls are still expected."""

    def next(self) -> Call | None:
        """Return the call to make, None at the end."""

    def take(self, call: Call, outcome: Outcome) -> None:
        """Take the outcome of the call that `next` returned."""


@dataclass(frozen=True)
class Job:
    """A conversation yet to be opened.

    Attributes:
        weight: the calls it will take, as far as one can tell.
        open: loads what the conversation needs; runs in a thread when the job's turn has come, so that only
            the conversations under way are in memory.
    """

    id: str
    weight: int
    open: Callable[[], Conversation]


async def converse(
    jobs: Iterable[Job],
    clients: Mapping[str, ChatClient],
    journal: Journal,
    done: Callable[[str, Conversation], None],
) -> None:
    """Carry every job through to its end.

    Args:
        clients: by the names calls use; two names may share a client.
        done: called with each finished conversation, in no particular order.

    Raises:
        UserError: an engine refuses the key, knows no such model, or has stopped answering.
    """
    lines = {id(client): _Line(client) for client in clients.values()}
    waiting = iter(sorted(jobs, key=lambda job: (-job.weight, job.id)))

    async def work() -> None:
        for job in waiting:
            conversation = await asyncio.to_thread(job.open)
            while (call := conversation.next()) is not None:
                outcome = journal.get(job.id, call.key)
                if outcome is None:
                    line = lines[id(clients[call.engine])]
                    outcome = await line.ask(call, conversation.calls_left)
                    journal.record(job.id, call.key, outcome)
                conversation.take(call, outcome)
            done(job.id, conversation)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(sum(line.client.spec.max_in_flight for line in lines.values())):
                tasks.create_task(work())
    except BaseExceptionGroup as group:
        raise user_error_in(group) or group from None
    for line in lines.values():
        line.raise_if_silent()


class _Line:
    """The calls to one engine: a bounded number in flight, the rest in order of what hangs on them."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self._slots = _PrioritySlots(client.spec.max_in_flight)
        self._answered = 0
        self._failed_on_end = 0
        self._last_error: CallError | None = None

    async def ask(self, call: Call, weight: int) -> Outcome:
        async with self._slots.take(-weight):
            request = await asyncio.to_thread(call.build)
            try:
                outcome: Outcome = await self.client.ask(request)
            except CallError as error:
                outcome = error
        if isinstance(outcome, CallError) and outcome.reason != "refused":
            self._failed_on_end += 1
            self._last_error = outcome
            if self._failed_on_end >= SILENT_CALLS:
                raise engine_silent(self.client.endpoint, outcome)
        else:
            self._failed_on_end = 0
            self._answered += 1
        return outcome

    def raise_if_silent(self) -> None:
        """Raise UserError where calls were made and none was answered, however few they were."""
        if self._last_error is not None and not self._answered:
            raise engine_silent(self.client.endpoint, self._last_error)


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
