"""Measuring an engine: a few clips are captioned for real, and every call is counted and timed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from share4video.captioning.client import ChatClient, ChatRequest, Completion, Endpoint, Outcome
from share4video.captioning.conversations import (
    CAPTIONER,
    SUMMARIZER,
    BriefConversation,
    CaptionPlan,
    ClipConversation,
)
from share4video.captioning.derived import DerivedConversation, DerivedPlan
from share4video.captioning.engine import connect_all, identity
from share4video.captioning.journal import open_journal
from share4video.captioning.role_inputs import KeyFrame
from share4video.captioning.scheduler import Call, Conversation, converse
from share4video.config import EngineSpec, RunConfig
from share4video.errors import UserError
from share4video.planning.rates import TEXT_STEPS, EngineRates, Measured, RoleRate, mean_rate

Frames = tuple[KeyFrame, ...]


@dataclass
class _Meter:
    """What the calls of each kind took: prompt tokens, tokens, seconds."""

    calls: dict[str, list[tuple[int, int, float]]] = field(default_factory=lambda: defaultdict(list))
    again: int = 0


class _Metered:
    """A conversation whose calls are counted and timed, from when they have a slot of the engine's."""

    def __init__(self, inner: Conversation, meter: _Meter) -> None:
        self._inner, self._meter = inner, meter
        self._begun = 0.0

    @property
    def calls_left(self) -> int:
        return self._inner.calls_left

    def next(self) -> Call | None:
        call = self._inner.next()
        return None if call is None else replace(call, build=partial(self._build, call))

    def take(self, call: Call, outcome: Outcome) -> None:
        if isinstance(outcome, Completion):
            kind, attempt = call.key.partition("-")[0], call.key.rpartition("-")[2]
            taken = (outcome.prompt_tokens, outcome.completion_tokens, time.monotonic() - self._begun)
            self._meter.calls[kind].append(taken)
            self._meter.again += attempt != "0"
        self._inner.take(call, outcome)

    def _build(self, call: Call) -> ChatRequest:
        self._begun = time.monotonic()
        return call.build()


def measure(
    clips: Mapping[str, Frames], config: RunConfig, *, cut_threshold: float | None = None
) -> Measured:
    """Caption ``clips`` as a run would, briefly and in full, and return what the calls took.

    Nothing is published and nothing is remembered. With fewer clips than ``max_in_flight`` the engine is
    measured at less than its load, so ``in_flight`` is then the number of clips.

    Args:
        clips: key frames in order of time by clip_id.
        cut_threshold: a key frame less similar than this to the one before begins a scene.

    Raises:
        UserError: there is no clip, or an engine does not start or answer.
    """
    if not clips:
        raise UserError("there is no clip to measure with", fix="take a larger pilot")
    engines = config.engines
    with connect_all([engines.captioner, engines.summarizer or engines.captioner]) as endpoints:
        meter = asyncio.run(_run(clips, config, endpoints, cut_threshold))
    calls = {kind: mean_rate(rows) for kind, rows in sorted(meter.calls.items())}
    again = meter.again / max(1, sum(map(len, meter.calls.values())))
    words = {kind: rate for kind, rate in calls.items() if kind in TEXT_STEPS}
    captioner, summarizer = (endpoint.spec for endpoint in endpoints)
    if summarizer == captioner or not words:
        return Measured(captioner=_rates(endpoints[0], calls, again, len(clips)))
    seen = {kind: rate for kind, rate in calls.items() if kind not in TEXT_STEPS}
    return Measured(
        captioner=_rates(endpoints[0], seen, again, len(clips)),
        summarizer=_rates(endpoints[1], words, again, len(clips)),
    )


def _rates(endpoint: Endpoint, roles: dict[str, RoleRate], again: float, clips: int) -> EngineRates:
    in_flight = min(endpoint.spec.max_in_flight, clips)
    return EngineRates(
        engine=identity(endpoint.spec),
        in_flight=in_flight,
        roles=roles,
        again=round(again, 6),
        prompt_price=endpoint.spec.prompt_price,
        completion_price=endpoint.spec.completion_price,
    )


async def _run(
    clips: Mapping[str, Frames],
    config: RunConfig,
    endpoints: Sequence[Endpoint],
    cut_threshold: float | None,
) -> _Meter:
    jobs = _Jobs(clips, config, [endpoint.spec for endpoint in endpoints], cut_threshold)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ChatClient(e)) for e in dict.fromkeys(endpoints)]
        by_role = {CAPTIONER: clients[0], SUMMARIZER: clients[-1]}
        with open_journal(f"pilot/{uuid.uuid4()}") as journal:
            await converse(jobs, by_role, journal, lambda _: None)
            journal.remove()
    return jobs.meter


class _Jobs:
    """Every clip twice: in brief, from a few of its key frames, and in full."""

    def __init__(
        self,
        clips: Mapping[str, Frames],
        config: RunConfig,
        specs: Sequence[EngineSpec],
        cut_threshold: float | None,
    ) -> None:
        self.meter = _Meter()
        self._clips, self._brief, self._captioner = list(clips.items()), config.brief, specs[0]
        self._captions = CaptionPlan.of(config.caption, *specs, cut_threshold=cut_threshold)
        self._derived = DerivedPlan.of(config.caption, specs[1])
        calls = [len(frames) + 1 + len(self._derived.roles) for frames in clips.values()]
        self.weights = np.array([1] * len(clips) + calls, np.int32)

    def open(self, number: int) -> tuple[str, Conversation]:
        clip_id, frames = self._clips[number % len(self._clips)]
        if number < len(self._clips):
            wanted = min(self._brief.frames, len(frames))
            few = [frames[len(frames) * n // wanted] for n in range(wanted)]
            wording, settings = self._captioner.wording, self._brief
            brief = BriefConversation(clip_id, few, wording, settings.max_tokens, settings.checks)
            return f"{clip_id}/brief", _Metered(brief, self.meter)
        clip = ClipConversation(clip_id, frames, self._captions)
        return clip_id, _Metered(DerivedConversation(clip, self._derived), self.meter)
