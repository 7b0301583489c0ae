"""Captions of one clip or of one prompt as they come, outside any pipeline.

The same state machine, prompts and checks as the caption stage; no journal and no tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from share4video.captioning.client import CallError, ChatClient, ChatRequest, Outcome
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER, CaptionPlan, ClipConversation, checked
from share4video.captioning.differential import Caption, Differential, PartSummary, Rejection
from share4video.captioning.engine import connect
from share4video.captioning.roles import KeyFrame, Recaption, messages
from share4video.config import CaptionConfig, ChecksConfig, EngineSpec
from share4video.errors import UserError

ClipRole = Literal["sliding", "fast", "summary"]
SpanRole = Literal["sliding", "fast", "part_summary", "summary"]


@dataclass(frozen=True)
class SpanCaption:
    """A caption as it comes: of one key frame (``sliding``), of a part, or of the whole clip.

    Attributes:
        number: the key frame's number from 1; 0 for the whole clip and a part.
        checks: codes of the checks it failed.
        fallback: a key frame whose difference failed and that was described in full instead.
    """

    role: SpanRole
    number: int
    start_s: float
    end_s: float
    caption: str
    checks: tuple[str, ...] = ()
    fallback: bool = False


class ClipRejected(Exception):
    """No sound captions came of a clip. The message goes further than the rejection: it names the address."""

    def __init__(self, rejection: Rejection, failure: CallError | None = None) -> None:
        super().__init__(f"{rejection.sentence} {failure.detail}" if failure else rejection.sentence)
        self.rejection = rejection


async def stream_captions(
    frames: Sequence[KeyFrame],
    roles: Collection[ClipRole],
    *,
    captioner: ChatClient,
    summarizer: ChatClient | None = None,
    config: CaptionConfig | None = None,
    cut_threshold: float | None = None,
    clip_id: str = "",
) -> AsyncIterator[SpanCaption]:
    """Yield a clip's captions as they come: key frame by key frame, then those of the whole clip.

    Args:
        frames: the key frames in order of time, numbered from 1.
        roles: which captions are wanted; ``summary`` alone does not yield the ones it is made from.
        summarizer: the captioner where it is None.
        cut_threshold: a key frame less similar than this to the one before begins a scene.
        clip_id: seeds the second attempt at a caption that fails its checks.

    Raises:
        ClipRejected: a call failed for good, or too many key frames have no sound caption.
        UserError: the engine refuses the key or knows no such model.
    """
    config = config or CaptionConfig()
    wanted = set(roles)
    summarizer_spec = summarizer.spec if summarizer else None
    plan = CaptionPlan.of(config, captioner.spec, summarizer_spec, cut_threshold=cut_threshold)
    differential = bool(wanted & {"sliding", "summary"})
    rules = replace(plan.rules, differential=differential, summary="summary" in wanted, fast="fast" in wanted)
    conversation = ClipConversation(clip_id, frames, replace(plan, rules=rules))
    clients = {CAPTIONER: captioner, SUMMARIZER: summarizer or captioner}
    async for caption in carried_through(conversation, clients):
        if "sliding" in wanted and isinstance(caption, Differential):
            yield of_frame(caption)
    chain = conversation.chain
    start_s, end_s = chain.start_s, chain.end_s
    if chain.fast is not None:
        yield SpanCaption("fast", 0, start_s, end_s, chain.fast.text, chain.fast.failed)
    if chain.summary is not None:
        yield SpanCaption("summary", 0, start_s, end_s, chain.summary.text, chain.summary.failed)


async def carried_through(
    conversation: ClipConversation,
    clients: Mapping[str, ChatClient],
    to_come: Iterator[KeyFrame] | None = None,
) -> AsyncIterator[Differential | PartSummary]:
    """Carry a clip's captioning through and hand out its captions as they come, and forget them.

    Args:
        clients: by the names the calls use.
        to_come: the key frames of a clip that is not closed, in order of time; iterated in a thread.

    Raises:
        ClipRejected: a call failed for good, or too many key frames have no sound caption.
        UserError: the engine refuses the key or knows no such model.
    """
    chain, frames = conversation.chain, to_come or iter(())
    outcome: Outcome | None = None
    while True:
        call = conversation.next()
        if call is not None:
            outcome = await answer_or_error(clients[call.engine], await asyncio.to_thread(call.build))
            conversation.take(call, outcome)
            for caption in chain.hand_out():
                yield caption
        elif chain.closed:
            break
        elif (frame := await asyncio.to_thread(next, frames, None)) is not None:
            conversation.extend(frame)
        else:
            conversation.close()
    if chain.rejection is not None:
        raise ClipRejected(chain.rejection, outcome if isinstance(outcome, CallError) else None)


def recaption(
    text: str, engine: EngineSpec, *, max_tokens: int = 512, checks: ChecksConfig | None = None
) -> str:
    """Turn a short generation prompt into a dense caption.

    Raises:
        UserError: the prompt is empty, or the engine does not start or gives no sound caption.
    """

    async def run() -> Caption:
        with connect(engine) as endpoint:
            async with ChatClient(endpoint) as client:
                return await recaption_with(client, text, max_tokens=max_tokens, checks=checks)

    try:
        return asyncio.run(run()).text
    except CallError as error:
        raise UserError(f"no caption: {error}", where=engine.model, fix="try another engine") from error


async def recaption_with(
    client: ChatClient, text: str, *, max_tokens: int = 512, checks: ChecksConfig | None = None
) -> Caption:
    """Turn a short generation prompt into a dense caption, by an engine that runs.

    Raises:
        UserError: the prompt is empty.
        CallError: the call failed for good, or the answer was empty.
    """
    if not text.strip():
        raise UserError("the prompt is empty", fix="give a sentence to make a caption of")
    wording = client.spec.wording
    request = ChatRequest(messages(wording, Recaption(text.strip())), max_tokens)
    caption = checked(await client.ask(request), wording, checks=checks)
    assert isinstance(caption, Caption)
    if not caption.text:
        raise CallError("malformed", "the engine's answer was empty")
    return caption


async def answer_or_error(client: ChatClient, request: ChatRequest) -> Outcome:
    """Return the answer, or the error of a call that failed for good, which keeps no picture alive."""
    try:
        return await client.ask(request)
    except CallError as error:
        return error.bare()


def of_frame(caption: Differential) -> SpanCaption:
    """Return a differential caption as it is told."""
    return SpanCaption(
        "sliding",
        caption.frame + 1,
        caption.start_s,
        caption.end_s,
        caption.text,
        caption.caption.failed,
        caption.fallback,
    )
