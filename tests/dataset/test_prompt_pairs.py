from __future__ import annotations

import random
from typing import Any

import pytest

from share4video.dataset.prompt_pairs import PromptPair, prompt_pairs
from share4video.dataset.shards import empty_table, table_from_rows


def row(role: str, clip: str, caption: str, *, checks: tuple[str, ...] = (), **given: Any) -> dict[str, Any]:
    return {
        "clip_id": clip,
        "start_s": 0.0,
        "end_s": 9.0,
        "role": role,
        "dialect": "teacher",
        "prompt_version": "teacher-1",
        "engine": "words@1",
        "caption": caption,
        "prompt_tokens": 1,
        "tokens": 1,
        "attempt": 0,
        "checks": list(checks),
        **given,
    }


ROWS = [
    row("summary", "b", "A long caption of b."),
    row("prompt", "b", "b"),
    row("summary", "a", "A long caption of a."),
    row("prompt", "a", "a"),
    row("summary", "a", "A long caption of a part.", start_s=3.0),
    row("prompt", "a", "a part", start_s=3.0),
    row("summary", "c", "Nobody wrote a prompt."),
    row("brief", "c", "c"),
    row("summary", "d", "A caption, but the prompt loops."),
    row("prompt", "d", "d d d d d d d", checks=("repetition",)),
    row("summary", "e", "This caption was cut", checks=("truncated",)),
    row("prompt", "e", "e"),
]


@pytest.mark.parametrize("seed", range(3))
def test_prompts_meet_the_captions_they_were_made_of(seed: int) -> None:
    rows = random.Random(seed).sample(ROWS, len(ROWS))
    found = prompt_pairs(table_from_rows("captions", rows))
    assert found.pairs == (
        PromptPair("a", 0.0, 9.0, "a", "A long caption of a."),
        PromptPair("a", 3.0, 9.0, "a part", "A long caption of a part."),
        PromptPair("b", 0.0, 9.0, "b", "A long caption of b."),
    )
    assert (found.without_prompt, found.flagged) == (1, 2)


def test_a_sound_one_of_several_is_taken() -> None:
    rows = [
        *ROWS[:2],
        row("prompt", "b", "flagged", checks=("truncated",), engine="a@1"),
        row("prompt", "b", "later", engine="z@1"),
    ]
    assert [pair.short for pair in prompt_pairs(table_from_rows("captions", rows)).pairs] == ["b"]


def test_no_captions_are_no_pairs() -> None:
    found = prompt_pairs(empty_table("captions"))
    assert (found.pairs, found.without_prompt, found.flagged) == ((), 0, 0)
