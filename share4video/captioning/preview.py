"""Clips captioned for a person to look at: every call is kept as it was made, and nothing is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from share4video.captioning.client import ChatClient, ChatRequest, Completion, Endpoint, Outcome
from share4video.captioning.clip import answer_or_error
from share4video.captioning.conversations import (
    CAPTIONER,
    SUMMARIZER,
    CaptionPlan,
    ClipConversation,
    FrameText,
)
from share4video.captioning.derived import DerivedConversation, DerivedPlan
from share4video.captioning.differential import Caption
from share4video.captioning.engine import connect_all, user_error_in
from share4video.captioning.role_inputs import KeyFrame
from share4video.captioning.steps import without_digest
from share4video.config import CaptionConfig, EngineSpec


@dataclass(frozen=True)
class ChosenClip:
    """A clip to be previewed."""

    uri: str
    duration_s: float
    frames: tuple[KeyFrame, ...]


@dataclass(frozen=True)
class PreviewCall:
    """One call as it was made.

    Attributes:
        seconds: from sending it to its answer, retries included.
        failed: codes of the checks its answer failed.
    """

    key: str
    engine: str
    request: ChatRequest
    outcome: Outcome
    seconds: float
    failed: tuple[str, ...]


@dataclass(frozen=True)
class PreviewClip:
    """A clip and all that was asked and answered of it; ``rejection`` is empty where a run would keep it."""

    uri: str
    duration_s: float
    frames: tuple[KeyFrame, ...]
    calls: tuple[PreviewCall, ...]
    captions: Mapping[str, Caption]
    rejection: str


@dataclass(frozen=True)
class Preview:
    """What came of it; ``passed_over`` are files that a run would not caption either, with the reason."""

    clips: tuple[PreviewClip, ...]
    passed_over: tuple[tuple[str, str], ...]
    files: int
    captioner: EngineSpec
    summarizer: EngineSpec


def caption_chosen(
    chosen: Sequence[ChosenClip],
    config: CaptionConfig,
    captioner: EngineSpec,
    summarizer: EngineSpec,
    *,
    cut_threshold: float | None,
    frame_text: FrameText | None = None,
    on_clip: Callable[[int, int], None] | None = None,
) -> list[PreviewClip]:
    """Caption clips side by side, as the caption stage would.

    Args:
        captioner, summarizer: resolved ones; they may be the same.
        cut_threshold: a key frame less similar than this to the one before begins a scene.
        frame_text: scores the captions of single frames, where that is wanted.
        on_clip: called with (clips done, clips chosen).

    Raises:
        UserError: the summarizer's prompts lack a role that is asked for, or an engine does not start or
            refuses the key.
    """
    derived = DerivedPlan.of(config, summarizer)
    plan = CaptionPlan.of(config, captioner, summarizer, cut_threshold=cut_threshold)
    clips = [ClipConversation(clip.uri, clip.frames, plan, frame_text) for clip in chosen]
    talks = [DerivedConversation(clip, derived) for clip in clips]
    with connect_all([captioner, summarizer]) as endpoints:
        work = _converse(talks, dict(zip((CAPTIONER, SUMMARIZER), endpoints, strict=True)), on_clip)
        try:
            calls = asyncio.run(work)
        except BaseExceptionGroup as group:
            raise user_error_in(group) or group from None
    return [_shown(*one) for one in zip(chosen, talks, calls, strict=True)]


async def _converse(
    talks: Sequence[DerivedConversation],
    endpoints: Mapping[str, Endpoint],
    on_clip: Callable[[int, int], None] | None,
) -> list[list[PreviewCall]]:
    """Carry all conversations through, side by side, and return the calls of each."""
    done = 0
    # As many at a time as the engines take: then a call's seconds are the engine's, not those of a queue.
    slots = asyncio.Semaphore(min(endpoint.spec.max_in_flight for endpoint in endpoints.values()))

    async def carry(talk: DerivedConversation, clients: Mapping[str, ChatClient]) -> list[PreviewCall]:
        nonlocal done
        calls = []
        while (call := talk.next()) is not None:
            request = await asyncio.to_thread(call.build)
            async with slots:
                started = time.monotonic()
                outcome = await answer_or_error(clients[call.engine], request)
                seconds = time.monotonic() - started
            name = without_digest(call.key)
            talk.take(call, outcome)
            failed = _failed(talk, outcome)
            calls.append(PreviewCall(name, call.engine, request, outcome, seconds, failed))
        done += 1
        if on_clip is not None:
            on_clip(done, len(talks))
        return calls

    async with AsyncExitStack() as stack:
        clients = {
            role: await stack.enter_async_context(ChatClient(endpoint))
            for role, endpoint in endpoints.items()
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(carry(talk, clients)) for talk in talks]
    return [task.result() for task in tasks]


def _failed(talk: DerivedConversation, outcome: Outcome) -> tuple[str, ...]:
    """Return the checks that an answer failed, as the conversation found when it took it."""
    taken = talk.chain.taken
    return taken.failed if isinstance(outcome, Completion) and isinstance(taken, Caption) else ()


def _shown(clip: ChosenClip, talk: DerivedConversation, calls: Sequence[PreviewCall]) -> PreviewClip:
    chain = talk.chain
    captions: dict[str, Caption] = {f"frame {d.frame + 1}": d.caption for d in chain.differentials}
    captions |= {f"part_summary {p.start_s:.2f} to {p.end_s:.2f} s": p.caption for p in chain.parts}
    whole = {"fast": chain.fast, "summary": chain.summary}
    captions |= {role: caption for role, caption in whole.items() if caption is not None}
    captions |= chain.derived
    rejection = chain.rejection.sentence if chain.rejection else ""
    return PreviewClip(clip.uri, clip.duration_s, clip.frames, tuple(calls), captions, rejection)
