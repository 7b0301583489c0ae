from __future__ import annotations

import json
from typing import Any

import pytest

from share4video.captioning.client import CallError, Completion
from share4video.captioning.differential import Failure
from share4video.captioning.judge import (
    MAX_FRAMES,
    UNPARSABLE,
    JudgeConversation,
    Verdict,
    is_judged,
    read_verdict,
)
from tests.engines import frames

GOOD = {"omissions_fabrications": 1, "distortion": 0, "temporal_mismatch": 1, "reason": "The cup is blue."}


def test_a_verdict_is_read() -> None:
    for answer in (
        json.dumps(GOOD),
        f"\n {json.dumps(GOOD)}\n",
        f"```json\n{json.dumps(GOOD, indent=1)}\n```",
    ):
        verdict = read_verdict(answer)
        assert verdict == Verdict.model_validate(GOOD)
        assert verdict.score == 2


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The caption is good: 3 points.",
        f"Here you are: {json.dumps(GOOD)}",
        json.dumps({**GOOD, "distortion": 2}),
        json.dumps({**GOOD, "distortion": "1"}),
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({k: v for k, v in GOOD.items() if k != "temporal_mismatch"}),
        json.dumps([GOOD]),
        json.dumps({**GOOD, "reason": "x" * 5000}),
    ],
)
def test_anything_else_is_no_verdict(answer: str) -> None:
    assert read_verdict(answer) is None


def answered(text: str) -> Completion:
    return Completion(text, "stop", 1, 1)


def texts(conversation: JudgeConversation) -> tuple[str, int]:
    """Return the next request's texts and number of images."""
    call = conversation.next()
    assert call is not None
    parts: list[Any] = list(call.build().messages[1]["content"])
    said = " ".join(part["text"] for part in parts if part["type"] == "text")
    return said, sum(part["type"] == "image_url" for part in parts)


def test_the_judge_sees_the_frames_and_the_caption() -> None:
    conversation = JudgeConversation("clip", frames(3), "A dog\n### runs.")
    said, images = texts(conversation)
    assert "Frame 3 at 4.00 s" in said
    assert said.endswith("A dog ### runs.")
    assert images == 3
    said, images = texts(JudgeConversation("clip", frames(100), "A dog."))
    assert images == MAX_FRAMES
    assert "Frame 1 at" in said and "Frame 100 at" in said


def test_an_answer_that_cannot_be_read_is_asked_for_once_more() -> None:
    conversation = JudgeConversation("clip", frames(1), "A dog.")
    first = conversation.next()
    assert first is not None
    conversation.take(first, answered("Fine."))
    second = conversation.next()
    assert second is not None
    assert second.key != first.key
    assert second.build().seed is not None
    conversation.take(second, answered("Fine."))
    assert conversation.next() is None
    assert conversation.result == Failure(UNPARSABLE)
    conversation = JudgeConversation("clip", frames(1), "A dog.")
    conversation.take(first, CallError("refused", "HTTP 400", "from there"))
    assert conversation.result == Failure("HTTP 400")


def test_the_share_is_drawn_by_the_clips_name() -> None:
    names = [f"clip-{n}" for n in range(2000)]
    chosen = {name for name in names if is_judged(name, 0.1)}
    assert 140 < len(chosen) < 260
    assert chosen <= {name for name in names if is_judged(name, 0.3)}
    assert all(is_judged(name, 1.0) for name in names)
