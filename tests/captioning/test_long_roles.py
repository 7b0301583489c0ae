"""The prompts of windows, parts, spans and differences without memory: ours in both dialects."""

from __future__ import annotations

import hashlib

import pytest

from share4video.captioning.roles import (
    Dialect,
    Difference,
    Part,
    RoleInput,
    Span,
    Summary,
    TimedCaption,
    Window,
    leaks,
    messages,
    prompt_version,
)
from tests.captioning.test_roles import images_of, size_of, text_of
from tests.engines import frames

FRAMES = tuple(frames(4, step_s=2.5))
BEFORE = (TimedCaption(1, 0.0, "A red ball."),)
INSIDE = (TimedCaption(2, 2.5, "It rolls\naway."), TimedCaption(9, 20.0, "It is gone.", start_s=2.5))
INPUTS: dict[str, RoleInput] = {
    "window": Window(FRAMES, "A red ball."),
    "window alone": Window(FRAMES[:3], ""),
    "difference alone": Difference(FRAMES[1], FRAMES[3], ""),
    "part": Part(INSIDE),
    "span": Span(1.0, 20.0, BEFORE, INSIDE),
    "span alone": Span(0.0, 20.0, (), INSIDE),
    "summary of windows": Summary(INSIDE),
}
LINES = (
    "Video frame 2 at 2.50 Second(s) description: It rolls\naway.\n"
    "Video from 2.50 to 20.00 Second(s) description: It is gone.\n"
)
SUMMARIZE = "Summarize the following per frame descriptions:\n"
SHARECAPTIONER = {
    "window": (
        "Here are the Video frame 1 at 0.00 Second(s), Video frame 2 at 2.50 Second(s), Video frame 3 at "
        "5.00 Second(s) and Video frame 4 at 7.50 Second(s) of a video, describe what happend between them. "
        "What happend before is: A red ball."
    ),
    "window alone": (
        "Here are the Video frame 1 at 0.00 Second(s), Video frame 2 at 2.50 Second(s) and Video frame 3 at "
        "5.00 Second(s) of a video, describe what happend between them."
    ),
    "difference alone": (
        "Here are the Video frame 2 at 2.50 Second(s) and Video frame 4 at 7.50 Second(s) of a video, "
        "describe what happend between them."
    ),
    "part": SUMMARIZE + LINES,
    "span": (
        "These descriptions are of what happend before, do not summarize them:\n"
        "Video frame 1 at 0.00 Second(s) description: A red ball.\n" + SUMMARIZE + LINES
    ),
    "span alone": SUMMARIZE + LINES,
    "summary of windows": SUMMARIZE + LINES,
}


@pytest.mark.parametrize("role", INPUTS)
def test_sharecaptioner_speaks_in_the_releases_words(role: str) -> None:
    (message,) = messages("sharecaptioner", INPUTS[role])
    assert text_of(message) == SHARECAPTIONER[role]


def test_sharecaptioner_shows_a_window_as_the_tall_strip() -> None:
    (image,) = images_of(messages("sharecaptioner", INPUTS["window"])[0])
    assert size_of(image) == (64 + 100 + 20, 20 + 4 * (48 + 20))


@pytest.mark.parametrize("role", INPUTS)
def test_teacher_sends_four_blocks_first_and_frames_as_they_are_stored(role: str) -> None:
    system, user = messages("teacher", INPUTS[role])
    blocks = system["content"]
    headings = ("Character", "Skills", "Constraints", "Structured input")
    order = [blocks.index(f"### {name}") for name in headings]
    assert order == sorted(order)
    shown = {"window": FRAMES, "window alone": FRAMES[:3], "difference alone": (FRAMES[1], FRAMES[3])}
    assert images_of(user) == [frame.image for frame in shown.get(role, ())]


def test_teacher_separates_what_came_before_a_span_from_the_span() -> None:
    assert text_of(messages("teacher", INPUTS["span"])[1]).splitlines() == [
        "The stretch from 1.00 s to 20.00 s.",
        "What came before:",
        "Key frame 1 at 0.00 s: A red ball.",
        "Notes on the stretch:",
        "Key frame 2 at 2.50 s: It rolls away.",
        "From 2.50 s to 20.00 s: It is gone.",
    ]
    assert "before" not in text_of(messages("teacher", INPUTS["span alone"])[1])


def test_teacher_says_nothing_of_a_memory_that_is_not_there() -> None:
    system, user = messages("teacher", INPUTS["difference alone"])
    assert "account" not in system["content"]
    assert "What happened up to" not in text_of(user)


@pytest.mark.parametrize("dialect", ["sharecaptioner", "teacher"])
def test_every_prompt_gives_itself_away(dialect: Dialect) -> None:
    for given in INPUTS.values():
        said = "\n".join(
            m["content"] if isinstance(m["content"], str) else text_of(m) for m in messages(dialect, given)
        )
        assert any(phrase in said for phrase in leaks(dialect)), said
        assert "  " not in said


def test_a_changed_word_needs_a_changed_version() -> None:
    """The digests below belong to the versions above them: change both together."""
    digests: dict[Dialect, str] = {}
    dialects: tuple[Dialect, ...] = ("sharecaptioner", "teacher")
    for dialect in dialects:
        said = [message for given in INPUTS.values() for message in messages(dialect, given)]
        texts = [m["content"] if isinstance(m["content"], str) else text_of(m) for m in said]
        digests[dialect] = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    known = {"sharecaptioner-1": "55521b5c634f", "teacher-2": "b16559556524"}
    assert {prompt_version(dialect): digest for dialect, digest in digests.items()} == known
