"""Captions of one clip or prompt, as the command line and the gateway get them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from share4video.caption_file import caption_clip
from share4video.captioning.client import CallError, ChatClient
from share4video.captioning.clip import (
    ClipRejected,
    ClipRole,
    SpanCaption,
    recaption,
    recaption_with,
    stream_captions,
)
from share4video.config import CaptionConfig, ChecksConfig, KeyframeConfig
from share4video.errors import UserError
from tests.engines import FakeEngine, frames
from tests.media.clips import picture, write_clip


def stream(fake: FakeEngine, roles: Collection[ClipRole], count: int = 3) -> list[tuple[SpanCaption, int]]:
    """Return each caption with the number of calls there had been when it came."""

    async def run() -> list[tuple[SpanCaption, int]]:
        async with ChatClient(fake.endpoint(retries=0)) as client:
            came = []
            async for caption in stream_captions(frames(count), roles, captioner=client):
                came.append((caption, len(fake.calls())))
            return came

    return asyncio.run(run())


def test_captions_come_one_by_one(fake_engine: FakeEngine) -> None:
    came = stream(fake_engine, ["sliding", "summary"])
    assert [(c.role, c.number, c.start_s, c.end_s, calls) for c, calls in came] == [
        ("sliding", 1, 0.0, 0.0, 1),
        ("sliding", 2, 0.0, 2.0, 2),
        ("sliding", 3, 2.0, 4.0, 3),
        ("summary", 0, 0.0, 4.0, 4),
    ]


@pytest.mark.parametrize(
    ("roles", "calls"), [(["summary"], 4), (["fast"], 1), (["fast", "summary"], 5), (["sliding"], 3)]
)
def test_only_the_wanted_captions_come(fake_engine: FakeEngine, roles: list[ClipRole], calls: int) -> None:
    captions = stream(fake_engine, roles)
    assert sorted({c.role for c, _ in captions}) == sorted(roles)
    assert len(fake_engine.calls()) == calls


def test_checks_that_a_key_frames_caption_failed_come_with_it(fake_engine: FakeEngine) -> None:
    fake_engine.settings(finish_reason="length")
    with pytest.raises(ClipRejected):
        stream(fake_engine, ["sliding"])

    async def run() -> list[SpanCaption]:
        config = CaptionConfig(max_fallback_share=1)
        async with ChatClient(fake_engine.endpoint()) as client:
            captions = stream_captions(frames(2), ["sliding"], captioner=client, config=config)
            return [caption async for caption in captions]

    assert [(one.checks, one.fallback) for one in asyncio.run(run())] == [(("truncated",), True)] * 2


def test_a_summarizer_of_its_own_is_asked_for_the_summary(fake_engine: FakeEngine) -> None:
    async def run() -> None:
        words = fake_engine.endpoint(dialect="teacher")
        async with ChatClient(fake_engine.endpoint()) as client, ChatClient(words) as summarizer:
            given = stream_captions(frames(2), ["summary"], captioner=client, summarizer=summarizer)
            assert [caption.role async for caption in given] == ["summary"]

    asyncio.run(run())
    assert fake_engine.calls()[-1]["roles"] == ["system", "user"]


def test_an_engine_that_fails_ends_the_stream_with_the_reason(fake_engine: FakeEngine) -> None:
    fake_engine.settings(status=500)
    with pytest.raises(ClipRejected, match="key frame 1: HTTP 500 from fake at http") as caught:
        stream(fake_engine, ["sliding"])
    assert caught.value.rejection.sentence == "no caption for key frame 1: HTTP 500"


def test_recaption(fake_engine: FakeEngine) -> None:
    text = recaption("  a dog on a beach\n", fake_engine.spec())
    assert text.startswith("Caption ")
    (call,) = fake_engine.calls()
    assert (
        call["prompt"] == "Translate this brief generation prompt into a detailed caption: a dog on a beach"
    )
    with pytest.raises(UserError, match="prompt is empty"):
        recaption(" ", fake_engine.spec())
    fake_engine.settings(answer=" ")
    with pytest.raises(UserError, match="answer was empty"):
        recaption("a dog", fake_engine.spec())

    async def run() -> None:
        async with ChatClient(fake_engine.endpoint()) as client:
            await recaption_with(client, "a dog")

    with pytest.raises(CallError, match="empty"):
        asyncio.run(run())


def test_a_recaption_is_held_against_the_checks_that_are_set(fake_engine: FakeEngine) -> None:
    fake_engine.settings(answer="一只狗在草地上奔跑, 然后停下来了。")

    async def failed(checks: ChecksConfig) -> tuple[str, ...]:
        async with ChatClient(fake_engine.endpoint()) as client:
            return (await recaption_with(client, "a dog", checks=checks)).failed

    assert asyncio.run(failed(ChecksConfig(language="zh"))) == ()
    assert asyncio.run(failed(ChecksConfig(language="en"))) == ("language",)


def test_a_video_file_is_captioned_at_its_key_frames(fake_engine: FakeEngine, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "film.mp4", frames=60, fps=8, width=320, height=240)
    seen: list[SpanCaption] = []
    config = KeyframeConfig(threshold=1.0)
    captions = caption_clip(
        path, ["sliding", "summary"], fake_engine.spec(), keyframes=config, on_caption=seen.append
    )
    assert seen == captions
    assert [c.end_s for c in captions] == [0.0, 2.0, 4.0, 6.0, 6.0]
    assert captions[-1].role == "summary"


def test_a_still_video_has_one_key_frame_or_two(fake_engine: FakeEngine, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "still.mp4", frames=60, fps=8, still=picture(7))
    captions = caption_clip(path, ["sliding"], fake_engine.spec())
    assert [c.end_s for c in captions] == [0.0, 6.0]


def test_what_is_no_video_is_said(fake_engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "words.mp4"
    path.write_text("not a video")
    with pytest.raises(UserError) as caught:
        caption_clip(path, ["sliding"], fake_engine.spec())
    assert caught.value.where == str(path)
    assert fake_engine.calls() == []
