"""Captions of a video as it is read: the chain grows with its key frames, and nothing waits for its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from share4video.captioning.client import ChatClient
from share4video.captioning.clip import SpanCaption, carried_through, of_frame
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER, CaptionPlan, ClipConversation
from share4video.captioning.differential import Differential, PartSummary
from share4video.captioning.roles import KeyFrame
from share4video.config import CaptionConfig

DEFAULT_BUDGET_TOKENS = CaptionConfig().summary_budget_tokens


async def follow_captions(
    frames: Iterator[KeyFrame],
    *,
    captioner: ChatClient,
    summarizer: ChatClient | None = None,
    config: CaptionConfig | None = None,
    cut_threshold: float | None = None,
    clip_id: str = "",
) -> AsyncIterator[SpanCaption]:
    """Yield a caption per key frame as it comes, a summary per stretch between anchors, and one of all.

    What is held does not grow with the video, for which the summaries' prompts have a bound also where the
    settings have none. The next key frame is taken when the captions of those before
    are there; a fast caption, which needs them all at once, is not asked for.

    Args:
        frames: the key frames in order of time, numbered from 1; iterated in a thread.
        summarizer: the captioner where it is None.
        cut_threshold: a key frame less similar than this to the one before begins a scene.
        clip_id: seeds the second attempt at a caption that fails its checks.

    Raises:
        ClipRejected: a call failed for good, or too many key frames have no sound caption, which is known
            at the end only.
        UserError: the engine refuses the key or knows no such model.
    """
    plan = CaptionPlan.of(
        config or CaptionConfig(),
        captioner.spec,
        summarizer.spec if summarizer else None,
        cut_threshold=cut_threshold,
    )
    budget = plan.rules.summary_budget_tokens or DEFAULT_BUDGET_TOKENS
    rules = replace(plan.rules, fast=False, part_every_anchor=True, summary_budget_tokens=budget)
    conversation = ClipConversation(clip_id, None, replace(plan, rules=rules))
    clients = {CAPTIONER: captioner, SUMMARIZER: summarizer or captioner}
    async for caption in carried_through(conversation, clients, frames):
        yield _told(caption)
    chain = conversation.chain
    if chain.summary is not None:
        yield SpanCaption("summary", 0, chain.start_s, chain.end_s, chain.summary.text, chain.summary.failed)


def _told(caption: Differential | PartSummary) -> SpanCaption:
    if isinstance(caption, Differential):
        return of_frame(caption)
    said = caption.caption
    return SpanCaption("part_summary", 0, caption.start_s, caption.end_s, said.text, said.failed)
