"""Many conversations at once: each is a chain of calls, and a chain's next call goes out as its last returns.

Calls wait in line for an engine's slots, those of the longest remaining chain first, so that no long chain is
left to run alone at the end. Every answer is in the journal before the chain goes on. A chain one of whose
calls failed waits until the others are through: what was wrong may have passed by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from share4video.captioning.client import CallError, ChatClient, ChatRequest, Completion, Outcome
from share4video.captioning.engine import user_error_in
from share4video.captioning.engine_line import EngineLine
from share4video.captioning.journal import Journal

log = logging.getLogger(__name__)


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
            the conversations under way are in memory, and once more for one that had to wait.
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

    A call that failed is made once more after all others, by an engine that has shown itself well meanwhile;
    only then does the conversation take the failure.

    Args:
        clients: by the names calls use; two names may share a client.
        done: called with each finished conversation, in no particular order.

    Raises:
        UserError: an engine refuses the key or all it is asked, knows no such model, or does not answer (any
            more). The journal then keeps the answers there were.
    """
    lines = {client: EngineLine(client) for client in clients.values()}
    talks = _Talks({name: lines[client] for name, client in clients.items()}, journal, done)
    workers = sum(client.spec.max_in_flight for client in lines)
    waiting = list(jobs)
    while waiting:
        waiting = await talks.carry_on(waiting, workers)
        for line in lines.values():
            await line.prove_alive()
    for line in lines.values():
        await line.prove_useful()


class _Talks:
    """Conversations, and what came of their calls beyond what the journal knows."""

    def __init__(
        self, lines: Mapping[str, EngineLine], journal: Journal, done: Callable[[str, Conversation], None]
    ) -> None:
        self._lines, self._journal, self._done = lines, journal, done
        self._failed_once: set[tuple[str, str]] = set()
        self._failed: dict[tuple[str, str], CallError] = {}  # for good

    async def carry_on(self, jobs: Iterable[Job], workers: int) -> list[Job]:
        """Carry each job as far as it goes; return those with a call to be made once more.

        They are opened anew then: what waits keeps nothing in memory, and the journal has their answers.
        """
        waiting = iter(sorted(jobs, key=lambda job: (-job.weight, job.id)))
        put_off: list[Job] = []

        async def work() -> None:
            for job in waiting:
                if not await self._ends(job):
                    put_off.append(job)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(workers):
                    tasks.create_task(work())
        except BaseExceptionGroup as group:
            raise user_error_in(group) or group from None
        return put_off

    async def _ends(self, job: Job) -> bool:
        """Carry a conversation on; return whether it came to its end."""
        conversation = await asyncio.to_thread(job.open)
        while (call := conversation.next()) is not None:
            outcome = await self._outcome(job.id, call, conversation.calls_left)
            if outcome is None:
                return False
            conversation.take(call, outcome)
        self._done(job.id, conversation)
        return True

    async def _outcome(self, job_id: str, call: Call, weight: int) -> Outcome | None:
        """Return what came of a call, None where it is to be made once more."""
        name, line = (job_id, call.key), self._lines[call.engine]
        known = self._journal.get(*name)
        if known is not None:
            line.answered_before = True
            return known
        if name in self._failed:
            return self._failed[name]
        outcome = await line.ask(call.build, weight)
        if isinstance(outcome, Completion):
            self._journal.record(*name, outcome)
        elif outcome.may_pass and name not in self._failed_once:
            self._failed_once.add(name)
            return None
        else:
            log.warning("%s, %s: %s", *name, outcome)
            self._failed[name] = outcome
            line.give_up(outcome)
        return outcome
