"""Captions of an uploaded clip with a real HTTP server in the captioner's place."""

from __future__ import annotations

import asyncio

import pytest

from share4video.captioning.clip import ClipRole, SpanCaption
from share4video.captioning.roles import Dialect
from share4video.demo_ui import markup
from share4video.demo_ui.captions import CaptionedClip, Captioner, recaption
from share4video.demo_ui.pictures import Shown
from share4video.errors import UserError
from share4video.wording import TileBudgets
from tests.engines import FakeEngine, frames


def test_sliding_captions_come_one_by_one_and_the_summary_last(fake_engine: FakeEngine) -> None:
    clip = _clip(4)
    came = _caption(clip, ("sliding", "summary"), fake_engine)
    assert [(one.role, one.number) for one in came] == [
        ("sliding", 1), ("sliding", 2), ("sliding", 3), ("sliding", 4), ("summary", 0),
    ]  # fmt: skip
    assert [row["kind"] for row in clip.rows()] == ["first", *["difference"] * 3]
    assert [(row["start_s"], row["end_s"]) for row in clip.rows()] == [(0, 0), (0, 2), (2, 4), (4, 6)]
    assert clip.whole["summary"].caption == came[-1].caption
    assert clip.frame_of(came[2]).timestamp_s == 4.0
    calls = fake_engine.calls()
    assert [len(call["images"]) for call in calls] == [1, 1, 1, 1, 0]  # pairs are stacked into one


def test_a_general_model_is_asked_in_its_own_dialect(fake_engine: FakeEngine) -> None:
    _caption(_clip(3), ("sliding", "summary"), fake_engine, dialect="teacher")
    assert [len(call["images"]) for call in fake_engine.calls()] == [1, 2, 2, 0]


def test_the_fast_caption_is_one_call(fake_engine: FakeEngine) -> None:
    (caption,) = _caption(_clip(5), ("fast",), fake_engine)
    assert caption.role == "fast"
    assert [len(call["images"]) for call in fake_engine.calls()] == [1]


def test_a_span_is_captioned_from_what_was_said_of_it_and_no_frame_is_looked_at(
    fake_engine: FakeEngine,
) -> None:
    clip = _clip(5)
    said = [one.caption for one in _caption(clip, ("sliding", "summary"), fake_engine)]
    fake_engine.settings()
    text, numbers = asyncio.run(clip.span(4.5, 8.0, _how(fake_engine)))
    (call,) = fake_engine.calls()
    assert call["images"] == [] and numbers == (4, 5) and text.startswith("Caption ")
    context, header, inside = call["prompt"].partition("Summarize the following")
    assert header and said[3] in inside and said[4] in inside and said[2] not in inside
    assert said[0] in context and said[2] in context


def test_a_span_needs_captions_and_a_beginning_before_its_end(fake_engine: FakeEngine) -> None:
    clip = _clip(3)
    with pytest.raises(UserError, match="make sliding captions first"):
        asyncio.run(clip.span(0, 1, _how(fake_engine)))
    _caption(clip, ("sliding", "summary"), fake_engine)
    for span in [(2.0, 1.0), (1.0, 1.0), (0.0, 90.0), (-1.0, 2.0)]:
        with pytest.raises(UserError, match="no span of the clip"):
            asyncio.run(clip.span(*span, _how(fake_engine)))


def test_a_difference_that_fails_is_told_in_full_and_marked(fake_engine: FakeEngine) -> None:
    fake_engine.settings(bad_prompt="and Video frame 3 at", bad_status=422)
    came = _caption(_clip(4), ("sliding", "summary"), fake_engine)
    assert [one.fallback for one in came[:4]] == [False, False, True, False]
    assert came[4].role == "summary"


def test_captions_that_came_before_a_failure_stay(fake_engine: FakeEngine) -> None:
    fake_engine.settings(bad_prompt="Summarize the following", bad_status=422)
    clip = _clip(4)
    with pytest.raises(
        UserError, match=r"no captions: no summary caption: HTTP 422.*as told.*takes pictures"
    ):
        _caption(clip, ("sliding", "summary"), fake_engine)
    assert [one.number for one in clip.captions] == [1, 2, 3, 4]
    assert len(clip.rows()) == 4


def test_a_prompt_becomes_a_dense_caption(fake_engine: FakeEngine) -> None:
    fake_engine.settings(answer="A red circle moves to the right across a dark ground.")
    assert asyncio.run(recaption("red circle", _how(fake_engine))).startswith("A red circle moves")
    (call,) = fake_engine.calls()
    assert call["prompt"].endswith("red circle") and call["images"] == []
    for prompt, sentence in [(" ", "the prompt is empty"), ("x" * 5000, "longer than")]:
        with pytest.raises(UserError, match=sentence):
            asyncio.run(recaption(prompt, _how(fake_engine)))
    fake_engine.settings(status=422)
    with pytest.raises(UserError, match="no caption: HTTP 422"):
        asyncio.run(recaption("red circle", _how(fake_engine)))


def test_models_of_synthetic_clips_are_captioned_as_they_were_trained(fake_engine: FakeEngine) -> None:
    endpoint = fake_engine.endpoint()
    assert Captioner.of(endpoint, endpoint, dialect="teacher").config.mode == "anchors"
    how = Captioner.of(endpoint, endpoint, dialect="sharecaptioner", domain="synthetic")
    assert how.config.mode == "reference" and how.config.summary_budget_tokens is None


def test_an_engine_that_is_sent_tiles_is_not_asked_in_a_dialect_of_several_pictures(
    fake_engine: FakeEngine,
) -> None:
    endpoint = fake_engine.endpoint(tiles=TileBudgets(fast=16, sliding=9), system_message=False)
    how = Captioner.of(endpoint, endpoint, dialect="sharecaptioner")
    assert how.captioner.spec.tiles == TileBudgets(fast=16, sliding=9)
    assert not how.captioner.spec.system_message
    with pytest.raises(UserError, match="tiles are for the dialect that shows one picture"):
        Captioner.of(endpoint, endpoint, dialect="teacher")


def test_what_models_and_files_say_cannot_write_to_the_page() -> None:
    bad = '<img src=x onerror="alert(1)">\n</article>'
    caption = SpanCaption("sliding", 2, 0.0, 61.25, bad, ("repetition",), fallback=True)
    (frame,) = frames(1)
    for html in (
        markup.caption_row(caption, frame.image),
        markup.whole_caption(bad, bad, checks=(bad,), note=bad),
        markup.notice(bad),
        markup.facts(bad),
        markup.complaint(UserError(bad)),
    ):
        assert "onerror=&quot;" in html and "<img src=x" not in html
        assert html.count("</article>") <= 1
    row = markup.caption_row(caption, frame.image)
    assert "0:00.0 to 1:01.2" in row and "fallback" in row and "failed checks: repetition" in row


def _caption(
    clip: CaptionedClip, roles: tuple[ClipRole, ...], engine: FakeEngine, dialect: Dialect = "sharecaptioner"
) -> list[SpanCaption]:
    async def gather() -> list[SpanCaption]:
        return [caption async for caption in clip.caption(roles, _how(engine, dialect))]

    return asyncio.run(gather())


def _how(engine: FakeEngine, dialect: Dialect = "sharecaptioner") -> Captioner:
    endpoint = engine.endpoint(retries=0)
    return Captioner.of(endpoint, endpoint, dialect=dialect)


def _clip(count: int) -> CaptionedClip:
    return CaptionedClip(Shown(tuple(frames(count)), 2.0 * count, "a clip"))
