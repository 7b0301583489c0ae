"""Which stored captions tell of a span, and what is asked of the engine for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.client import ChatClient
from share4video.captioning.differential import Caption, Failure
from share4video.captioning.notes import estimated_tokens
from share4video.captioning.roles import Dialect
from share4video.captioning.spans import SpanCaptions, SpanConversation, caption_span
from share4video.config import ChecksConfig
from tests.engines import FakeEngine


def row(index: int, kind: str, start_s: float, end_s: float, text: str = "") -> dict[str, Any]:
    said = text or f"({index})"
    return {"index": index, "kind": kind, "start_s": start_s, "end_s": end_s, "caption": said}


def film(frames: int, anchors: tuple[int, ...] = (), text: str = "") -> list[dict[str, Any]]:
    """Key frames every two seconds."""
    kinds = ["first" if n == 0 else "anchor" if n in anchors else "difference" for n in range(frames)]
    return [
        row(n, kind, 2.0 * (n - (kind == "difference")), 2.0 * n, f"({n}) {text}" if text else "")
        for n, kind in enumerate(kinds)
    ]


def indices(captions: SpanCaptions) -> tuple[list[int], list[int]]:
    return [row["index"] for row in captions.context], [row["index"] for row in captions.inside]


@pytest.mark.parametrize(
    ("span", "context", "inside"),
    [
        ((0.0, 19.0), [], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ((5.0, 7.5), [0, 1, 2], [3, 4]),
        ((6.0, 8.0), [0, 1, 2, 3], [4]),
        ((10.0, 14.0), [0, 1, 2, 3, 4], [5, 6, 7]),  # the anchor is seen at the span's start
        ((13.0, 14.0), [5, 6], [7]),  # what came before the anchor is another story
        ((8.5, 9.5), [0, 1, 2, 3], [4]),  # nothing was told between difference and anchor
        ((18.5, 19.0), [5, 6, 7, 8], [9]),
    ],
)
def test_a_span_is_told_by_its_captions_after_those_since_the_last_full_one(
    span: tuple[float, float], context: list[int], inside: list[int]
) -> None:
    assert indices(SpanCaptions.of(film(10, anchors=(5,))[::-1], *span)) == (context, inside)


def test_before_the_first_key_frame_the_first_one_holds() -> None:
    late = [row(0, "first", 3.0, 3.0), row(1, "difference", 3.0, 5.0)]
    assert indices(SpanCaptions.of(late, 0.0, 2.0)) == ([], [0])


@given(
    st.integers(1, 30),
    st.sets(st.integers(1, 30)),
    st.tuples(st.floats(0, 60), st.floats(0, 60)).filter(lambda span: span[0] < span[1]),
)
def test_context_and_span_are_one_stretch(frames: int, anchors: set[int], span: tuple[float, float]) -> None:
    rows = film(frames, tuple(anchors))
    context, inside = indices(SpanCaptions.of(rows, *span))
    assert inside
    assert [*context, *inside] == list(range((context or inside)[0], inside[-1] + 1))
    assert not context or rows[context[0]]["kind"] in ("first", "anchor")
    assert all(rows[n]["kind"] == "difference" for n in context[1:])


def ask(
    fake: FakeEngine,
    rows: list[dict[str, Any]],
    span: tuple[float, float],
    *,
    parts: list[dict[str, Any]] | None = None,
    budget: int | None = 6144,
    dialect: Dialect = "teacher",
    checks: ChecksConfig | None = None,
) -> Caption | Failure:
    async def run() -> Caption | Failure:
        async with ChatClient(fake.endpoint(retries=0, dialect=dialect)) as client:
            chosen = SpanCaptions.of(rows, *span)
            conversation = SpanConversation(
                "clip",
                span,
                chosen,
                parts or [],
                wording=dialect,
                max_tokens=64,
                budget_tokens=budget,
                checks=checks or ChecksConfig(),
            )
            caption = await caption_span(client, conversation)
            assert conversation.calls_left == 0
            return caption

    return asyncio.run(run())


def test_context_and_span_go_into_one_prompt_apart(fake_engine: FakeEngine) -> None:
    caption = ask(fake_engine, film(6, anchors=(3,)), (7.0, 10.0))
    assert isinstance(caption, Caption)
    (call,) = fake_engine.calls()
    assert call["images"] == []
    assert call["prompt"].endswith(
        "The stretch from 7.00 s to 10.00 s.\nWhat came before:\nKey frame 4 at 6.00 s: (3)\n"
        "Notes on the stretch:\nKey frame 5 at 8.00 s: (4)\nKey frame 6 at 10.00 s: (5)"
    )


def test_an_answer_that_fails_its_checks_is_asked_for_once_more(fake_engine: FakeEngine) -> None:
    fake_engine.settings(finish_reason="length")
    caption = ask(fake_engine, film(3), (0.0, 4.0), dialect="sharecaptioner")
    assert isinstance(caption, Caption)
    assert (caption.failed, caption.attempt) == (("truncated",), 1)
    first, second = fake_engine.calls()
    assert first["prompt"] == second["prompt"]
    assert "seed" not in first["body"]
    assert "seed" in second["body"]


@pytest.mark.parametrize("settings", [{"status": 500}, {"answer": " "}])
def test_no_answer_is_no_caption(fake_engine: FakeEngine, settings: dict[str, Any]) -> None:
    fake_engine.settings(**settings)
    assert isinstance(ask(fake_engine, film(3), (0.0, 4.0)), Failure)


@pytest.mark.parametrize("anchors", [(), tuple(range(8, 60, 8))])
def test_a_span_too_long_for_one_prompt_is_summed_up_in_parts(
    fake_engine: FakeEngine, anchors: tuple[int, ...]
) -> None:
    rows = film(60, anchors, text="The red ball rolls on over the grass.")
    assert isinstance(ask(fake_engine, rows, (31.0, 118.0), budget=2048), Caption)
    prompts = [call["prompt"] for call in fake_engine.calls()]
    assert len(prompts) > 2
    assert all(estimated_tokens(prompt) <= 2048 for prompt in prompts)
    for n in range(17, 60):
        assert sum(f"({n}) The" in prompt for prompt in prompts) == 1
    assert "What came before" in prompts[-1]


def test_stored_summaries_of_parts_spare_calls(fake_engine: FakeEngine) -> None:
    rows = film(60, tuple(range(8, 60, 8)), text="The red ball rolls on over the grass.")
    parts = [{"start_s": 16.0 * n, "end_s": 16.0 * n + 14.0, "caption": f"Part {n}."} for n in range(7)]
    assert isinstance(ask(fake_engine, rows, (0.0, 118.0), parts=parts, budget=2048), Caption)
    (call,) = fake_engine.calls()
    assert "From 16.00 s to 30.00 s: Part 1." in call["prompt"]
    assert "Key frame 57 at 112.00 s: (56)" in call["prompt"]
    assert "(8)" not in call["prompt"]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("At 9 s the ball lies still.", ()),
        ("At 40 s the ball lies still.", ("time_out_of_range",)),
        ("In frame 9 the ball lies still.", ("frame_number",)),
        ('The ball says "STOP HERE NOW".', ("unsupported_quote",)),
    ],
)
def test_an_answer_is_held_against_the_span_and_its_notes(
    fake_engine: FakeEngine, answer: str, failed: tuple[str, ...]
) -> None:
    fake_engine.settings(answer=answer)
    caption = ask(fake_engine, film(6, anchors=(3,), text="The red ball rolls on."), (7.0, 10.0))
    assert isinstance(caption, Caption)
    assert caption.failed == failed
    assert len(fake_engine.calls()) == 1 + bool(failed)


def test_a_part_is_held_against_its_own_span(fake_engine: FakeEngine) -> None:
    fake_engine.settings(answer="At 100 s the ball lies still.")
    rows = film(60, text="The red ball rolls on over the grass.")
    ask(fake_engine, rows, (0.0, 118.0), budget=2048)
    prompts = [call["prompt"] for call in fake_engine.calls()]
    first = [prompt for prompt in prompts if prompt == prompts[0]]
    assert "at 100.00 s" not in first[0]
    assert len(first) == 2
    assert prompts[-1] not in prompts[:-1]


def test_checks_are_those_that_are_set(fake_engine: FakeEngine) -> None:
    fake_engine.settings(answer="红色的球在草地上滚动, 然后停下来了。")
    rows = film(3)
    caption = ask(fake_engine, rows, (0.0, 4.0), checks=ChecksConfig(language="zh"))
    assert isinstance(caption, Caption)
    assert caption.failed == ()
    caption = ask(fake_engine, rows, (0.0, 4.0))
    assert isinstance(caption, Caption)
    assert caption.failed == ("language",)
