"""Many conversations at once: each is a chain of calls, and a chain's next call goes out as its last returns.

Calls wait in line for an engine's slots, those of the longest remaining chain first, so that no long chain is
left to run alone at the end. Every answer is in the journal before the chain goes on. A chain one of whose
calls failed waits until the others are through: what was wrong may have passed by then.

What waits takes a few bytes: a number, and its place in the order. Only conversations under way are in memory
(as many as calls may be in flight), with what is known of the failures of those put off.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from share4video.captioning.client import CallError, ChatClient, ChatRequest, Completion, Outcome
from share4video.captioning.engine import user_error_in
from share4video.captioning.engine_line import EngineLine
from share4video.captioning.journal import Journal
from share4video.captioning.spending import Budget, BudgetReached, Spending

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """A call a conversation wants made.

    Attributes:
        key: names it within its conversation, the same in every run.
        engine: which of the clients it goes to.
        build: makes the request, when its turn has come; may take time (images are composed). Called once per
            attempt.
        weighed: a model looks at the answer, so that taking it holds up whoever waits for it.
    """

    key: str
    engine: str
    build: Callable[[], ChatRequest]
    weighed: bool = False


class Conversation(Protocol):
    """A chain of calls, each made from the answers before it."""

    @property
    def calls_left(self) -> int:
        """How many calls are still expected."""

    def next(self) -> Call | None:
        """Return the call to make, None at the end."""

    def take(self, call: Call, outcome: Outcome) -> None:
        """Take the outcome of the call that `next` returned; in a thread where the call is ``weighed``."""


class Jobs(Protocol):
    """Conversations yet to be opened, by number."""

    @property
    def weights(self) -> npt.NDArray[np.int32]:
        """The calls each will take, as far as one can tell."""

    def open(self, number: int) -> tuple[str, Conversation]:
        """Load what a conversation needs; return its name, the same in every run, and the conversation.

        Runs in a thread when the job's turn has come, and once more for one that had to wait.
        """


@dataclass(frozen=True)
class Finished:
    """A conversation that is over.

    Attributes:
        number: of the job.
        spent: the tokens of all answers it took, whichever run paid for them.
        overdue_s: how long its calls had taken where that was too long, and it went no further.
    """

    number: int
    conversation: Conversation
    spent: Spending
    overdue_s: float | None = None


async def converse(
    jobs: Jobs,
    clients: Mapping[str, ChatClient],
    journal: Journal,
    done: Callable[[Finished], None],
    *,
    limit_s: float | None = None,
    budget: Budget | None = None,
) -> None:
    """Carry every job through to its end.

    A call that failed is made once more after all others, by an engine that has shown itself well meanwhile;
    only then does the conversation take the failure.

    Args:
        clients: by the names calls use; two names may share a client.
        done: called with each finished conversation, in no particular order.
        limit_s: how long the calls of one conversation may take together, in this run; waiting for a turn
            does not count.
        budget: how much the answers in the journal may cost, with those to come.

    Raises:
        UserError: an engine refuses the key or all it is asked, knows no such model, or does not answer (any
            more), or the budget is spent or cannot be kept. The journal then keeps the answers there were.
    """
    lines = {client: EngineLine(client) for client in clients.values()}
    talks = _Talks(jobs, {name: lines[client] for name, client in clients.items()}, journal, done)
    talks.limit_s = math.inf if limit_s is None else limit_s
    talks.budget = budget
    workers = sum(client.spec.max_in_flight for client in lines)
    waiting: Iterable[int] = map(int, np.argsort(-jobs.weights, kind="stable"))
    while True:
        put_off = await talks.carry_on(waiting, workers)
        if talks.stopped:
            assert budget is not None
            raise budget.error(journal.spent)
        for line in lines.values():
            await line.prove_alive()
        if not put_off:
            break
        waiting = put_off
    for line in lines.values():
        await line.prove_useful()


@dataclass
class _Past:
    """What became of a conversation's calls beyond what the journal knows, and how long they took."""

    failed_once: set[str] = field(default_factory=set)
    failed: dict[str, CallError] = field(default_factory=dict)  # for good
    spent_s: float = 0.0

    def is_over(self, limit_s: float) -> bool:
        return self.spent_s > limit_s - 1e-6  # sums of seconds end beside the bound


class _PutOff(Exception):
    """A call is to be made once more, after all others."""


class _Talks:
    """Conversations under way, and the past of those put off.

    Attributes:
        stopped: whether the budget is spent.
    """

    def __init__(
        self,
        jobs: Jobs,
        lines: Mapping[str, EngineLine],
        journal: Journal,
        done: Callable[[Finished], None],
    ) -> None:
        self._jobs, self._lines, self._journal, self._done = jobs, lines, journal, done
        self._pasts: dict[int, _Past] = {}
        self.limit_s = math.inf
        self.budget: Budget | None = None
        self.stopped = False

    async def carry_on(self, numbers: Iterable[int], workers: int) -> list[int]:
        """Carry each job as far as it goes; return those with a call to be made once more.

        They are opened anew then: what waits keeps nothing in memory, and the journal has their answers.
        """
        waiting = iter(numbers)
        put_off: list[int] = []

        async def work() -> None:
            for number in waiting:
                try:
                    await self._carry(number)
                except _PutOff:
                    put_off.append(number)
                except BudgetReached:
                    self.stopped = True
                    return

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(workers):
                    tasks.create_task(work())
        except BaseExceptionGroup as group:
            raise user_error_in(group) or group from None
        weights = self._jobs.weights
        return sorted(put_off, key=lambda number: (-int(weights[number]), number))

    async def _carry(self, number: int) -> None:
        """Carry a conversation on to its end."""
        name, conversation = await asyncio.to_thread(self._jobs.open, number)
        past = self._pasts.pop(number, None) or _Past()
        spent, overdue_s = Spending(), None
        while (call := conversation.next()) is not None:
            try:
                outcome = await self._outcome(name, call, conversation.calls_left, past)
            except _PutOff:
                self._pasts[number] = past
                raise
            if isinstance(outcome, Completion):
                spent.add(call.engine, outcome)
                if call.weighed:
                    await asyncio.to_thread(conversation.take, call, outcome)
                else:
                    conversation.take(call, outcome)
            elif not past.is_over(self.limit_s):
                conversation.take(call, outcome)
            if past.is_over(self.limit_s) and conversation.next() is not None:
                overdue_s = past.spent_s
                break
        self._done(Finished(number, conversation, spent, overdue_s))

    async def _outcome(self, name: str, call: Call, weight: int, past: _Past) -> Outcome:
        """Return what came of a call. Raises _PutOff where it is to be made once more."""
        line = self._lines[call.engine]
        known = self._journal.get(name, call.key)
        if known is not None:
            line.answered_before = True
            return known
        if call.key in past.failed:
            return past.failed[call.key]

        def build() -> ChatRequest:
            if self.budget is not None and self.budget.reached(self._journal.spent):
                raise BudgetReached
            return call.build()

        outcome, seconds = await line.ask(build, weight, self.limit_s - past.spent_s)
        past.spent_s += seconds
        if isinstance(outcome, Completion):
            self._journal.record(name, call.key, outcome, call.engine)
            if self.budget is not None:
                self.budget.check(outcome)
        elif outcome.may_pass and call.key not in past.failed_once and not past.is_over(self.limit_s):
            past.failed_once.add(call.key)
            raise _PutOff
        else:
            log.warning("%s, %s: %s", name, call.key, outcome)
            past.failed[call.key] = outcome
            line.give_up(outcome)
        return outcome
