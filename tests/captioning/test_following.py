"""Captions of a video as its key frames come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from share4video.captioning.client import ChatClient
from share4video.captioning.clip import ClipRejected, SpanCaption
from share4video.captioning.following import follow_captions
from share4video.captioning.notes import estimated_tokens
from share4video.captioning.role_inputs import KeyFrame
from share4video.config import CaptionConfig
from tests.engines import FakeEngine, frames


def follow(
    fake: FakeEngine, came: Iterator[KeyFrame], **settings: Any
) -> tuple[list[SpanCaption], Exception | None]:
    """Return what was told, and what ended it."""
    told: list[SpanCaption] = []

    async def run() -> None:
        words = fake.endpoint(model="words", dialect="teacher", retries=0)
        async with ChatClient(fake.endpoint(retries=0)) as captioner, ChatClient(words) as summarizer:
            captions = follow_captions(
                came, captioner=captioner, summarizer=summarizer, config=CaptionConfig(**settings)
            )
            async for caption in captions:
                told.append(caption)

    try:
        asyncio.run(run())
    except ClipRejected as error:
        return told, error
    return told, None


def test_key_frames_parts_and_the_whole_are_told_as_they_come(fake_engine: FakeEngine) -> None:
    calls_when_taken = []

    def came() -> Iterator[KeyFrame]:
        for frame in frames(7):
            calls_when_taken.append(len(fake_engine.calls()))
            yield frame

    told, error = follow(fake_engine, came(), anchor_every_frames=3, anchor_every_s=None)
    assert error is None
    assert [(one.role, one.number, one.start_s, one.end_s) for one in told] == [
        ("sliding", 1, 0.0, 0.0),
        ("sliding", 2, 0.0, 2.0),
        ("sliding", 3, 2.0, 4.0),
        ("sliding", 4, 6.0, 6.0),
        ("part_summary", 0, 0.0, 4.0),
        ("sliding", 5, 6.0, 8.0),
        ("sliding", 6, 8.0, 10.0),
        ("sliding", 7, 12.0, 12.0),
        ("part_summary", 0, 6.0, 10.0),
        ("summary", 0, 0.0, 12.0),
    ]
    assert calls_when_taken == [0, 1, 2, 3, 5, 6, 7]  # none is taken before the last one is told
    prompts = [call["prompt"] for call in fake_engine.calls() if not call["images"]]
    assert "From 0.00 s to 4.00 s: Caption" in prompts[-1]
    assert "Key frame 7 at 12.00 s: Caption" in prompts[-1]


def test_a_cut_is_an_anchor(fake_engine: FakeEngine) -> None:
    shots = [replace(frame, similarity=0.1 if frame.number == 3 else 0.9) for frame in frames(4)]

    async def run() -> list[float]:
        async with ChatClient(fake_engine.endpoint()) as client:
            captions = follow_captions(iter(shots), captioner=client, cut_threshold=0.5)
            return [one.start_s async for one in captions if one.role == "sliding"]

    assert asyncio.run(run()) == [0.0, 0.0, 4.0, 4.0]


def test_pictures_are_not_kept(fake_engine: FakeEngine) -> None:
    """Of all the key frames that came only the last two are still held by anybody."""
    import gc
    import weakref

    alive: list[weakref.ref[KeyFrame]] = []
    most = []

    def came() -> Iterator[KeyFrame]:
        for frame in frames(12):
            own = KeyFrame(frame.number, frame.timestamp_s, frame.image)
            alive.append(weakref.ref(own))
            yield own
            del own
            gc.collect()
            most.append(sum(one() is not None for one in alive))

    follow(fake_engine, came())
    assert max(most) <= 2


def test_what_cannot_be_told_ends_it_after_what_was(fake_engine: FakeEngine) -> None:
    fake_engine.settings(bad_prompt="and Video frame 3 at")
    told, error = follow(fake_engine, iter(frames(9)), max_fallback_share=0.05)
    assert [one.number for one in told if one.fallback] == [3]
    assert len([one for one in told if one.role == "sliding"]) == 9
    assert "too many key frames" in str(error)
    fake_engine.settings(status=500)
    told, error = follow(fake_engine, iter(frames(9)))
    assert told == []
    assert "no caption for key frame 1" in str(error)


def test_a_video_without_a_frame_is_none(fake_engine: FakeEngine) -> None:
    with pytest.raises(ValueError, match="at least one key frame"):
        follow(fake_engine, iter(()))


def test_prompts_are_bounded_also_where_the_settings_do_not_bound_them(fake_engine: FakeEngine) -> None:
    said = " ".join(f"It passes tree {one}{other}." for one in "abcdef" for other in "ghijkl")
    fake_engine.settings(answer=said)
    told, error = follow(fake_engine, iter(frames(48)), mode="reference", summary_budget_tokens=None)
    assert error is None
    assert [one.role for one in told].count("part_summary") >= 2
    assert max(estimated_tokens(call["prompt"]) for call in fake_engine.calls()) <= 6144
