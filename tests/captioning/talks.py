"""Many made-up clips captioned by the fake engine, as the caption stage would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from share4video.captioning.client import ChatClient
from share4video.captioning.conversations import (
    CAPTIONER,
    SUMMARIZER,
    CaptionPlan,
    ClipConversation,
)
from share4video.captioning.differential import Chain
from share4video.captioning.journal import open_journal
from share4video.captioning.scheduler import Conversation, Finished, converse
from share4video.captioning.spending import Budget
from share4video.config import CaptionConfig
from tests.engines import FakeEngine, frames


class ListedJobs:
    """Jobs given one by one, each with its name and its weight."""

    def __init__(self, *jobs: tuple[str, int, Callable[[], Conversation]]) -> None:
        self.jobs = jobs
        self.weights = np.array([weight for _, weight, _ in jobs], np.int32)

    def open(self, number: int) -> tuple[str, Conversation]:
        name, _, make = self.jobs[number]
        return name, make()


def jobs_of(lengths: list[int], fake: FakeEngine) -> ListedJobs:
    plan = CaptionPlan.of(CaptionConfig(), fake.spec(), None)

    def job(name: str, length: int) -> tuple[str, int, Callable[[], Conversation]]:
        return name, length + 1, lambda: ClipConversation(name, frames(length), plan)

    return ListedJobs(*(job(f"clip-{n:03d}", length) for n, length in enumerate(lengths)))


def caption(
    fake: FakeEngine,
    lengths: list[int],
    address: str = "out",
    *,
    in_flight: int = 8,
    on_done: Callable[[Finished], None] = lambda _: None,
    limit_s: float | None = None,
    budget: Budget | None = None,
    backoff_s: float = 0.01,
    **fields: Any,
) -> dict[str, Chain]:
    chains: dict[str, Chain] = {}
    jobs = jobs_of(lengths, fake)

    def done(finished: Finished) -> None:
        assert isinstance(finished.conversation, ClipConversation)
        chains[jobs.jobs[finished.number][0]] = finished.conversation.chain
        on_done(finished)

    async def run() -> None:
        given = {"retries": 8, "request_timeout_s": 30.0, **fields}
        endpoint = fake.endpoint(max_in_flight=in_flight, **given)
        async with ChatClient(endpoint, backoff_s=backoff_s) as client:
            with open_journal(address) as journal:
                clients = {CAPTIONER: client, SUMMARIZER: client}
                await converse(jobs, clients, journal, done, limit_s=limit_s, budget=budget)

    asyncio.run(run())
    return chains


def written(chains: dict[str, Chain]) -> dict[str, list[str]]:
    return {
        name: [d.text for d in chain.differentials] + [chain.summary.text if chain.summary else ""]
        for name, chain in sorted(chains.items())
    }


LENGTHS = [1, 7, 3, 12, 2, 5, 1, 4, 9, 2, 6, 3]


SIXTH = "Video frame 6 at 10.00"  # only in prompts of clips of six frames, at two places: the last two calls
