from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from share4video.captioning.roles import (
    Brief,
    Dialect,
    Difference,
    Fast,
    First,
    Part,
    Recaption,
    RoleInput,
    ShortPrompt,
    Span,
    Structured,
    Summary,
    TimedCaption,
    Window,
    leaks,
    messages,
    prompt_version,
)
from share4video.errors import UserError
from tests.engines import frames, picture

FRAMES = tuple(frames(4, step_s=2.5))
DIALECTS: tuple[Dialect, ...] = ("sharecaptioner", "teacher")
CAPTIONS = (TimedCaption(1, 0.0, "A red ball."), TimedCaption(2, 31.25, "It rolls\naway."))
INPUTS: dict[str, RoleInput] = {
    "brief": Brief(FRAMES),
    "fast": Fast(FRAMES),
    "first": First(FRAMES[0]),
    "difference": Difference(FRAMES[1], FRAMES[3], "A red ball."),
    "summary": Summary(CAPTIONS),
    "recaption": Recaption("a ball on a hill"),
}
REFUSED: dict[str, RoleInput] = {  # roles that the released captioner does not have
    "prompt": ShortPrompt("A red ball rolls down a green hill."),
    "structured": Structured(CAPTIONS),
}
ADDED: dict[str, RoleInput] = (
    REFUSED
    | {  # and those that are put to it in its own words
        "window": Window(FRAMES[:3], "A red ball."),
        "part": Part(CAPTIONS),
        "span": Span(1.0, 5.0, CAPTIONS[:1], CAPTIONS[1:]),
    }
)


def text_of(message: Any) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def images_of(message: Any) -> list[bytes]:
    urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def size_of(image: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(image)).size


# The release's captioner/app.py, times with two decimals.
RELEASED = {
    "first": "This is the first frame of a video, describe it in detail.",
    "difference": (
        "Here are the Video frame 2 at 2.50 Second(s) and Video frame 4 at 7.50 Second(s) of a video, "
        "describe what happend between them. What happend before is: A red ball."
    ),
    "summary": (
        "Summarize the following per frame descriptions:\n"
        "Video frame 1 at 0.00 Second(s) description: A red ball.\n"
        "Video frame 2 at 31.25 Second(s) description: It rolls\naway.\n"
    ),
    "fast": "Here are a few key frames of a video, discribe this video in detail.",
    "recaption": "Translate this brief generation prompt into a detailed caption: a ball on a hill",
    "brief": "Please faithfully summarize the following video in one sentence.",
}


@pytest.mark.parametrize("role", RELEASED)
def test_sharecaptioner_prompts_are_the_releases_byte_for_byte(role: str) -> None:
    (message,) = messages("sharecaptioner", INPUTS[role])
    assert text_of(message) == RELEASED[role]
    assert message["role"] == "user"
    assert message["content"][-1]["type"] == "text"  # the image goes first


@pytest.mark.parametrize(
    ("role", "size"),
    [
        ("first", (64, 48)),
        ("difference", (64, 48 + 50 + 48)),
        ("brief", (2 * 64 + 50, 2 * 48 + 50)),
        ("fast", (64 + 100 + 20, 20 + 4 * (48 + 20))),
    ],
)
def test_sharecaptioner_composes_one_image(role: str, size: tuple[int, int]) -> None:
    (message,) = messages("sharecaptioner", INPUTS[role])
    (image,) = images_of(message)
    assert size_of(image) == size


def test_the_later_frame_of_a_pair_is_below(tmp_path: Path) -> None:
    pair = Difference(FRAMES[0], FRAMES[0].__class__(2, 2.0, picture("blue")), "x")
    (image,) = images_of(messages("sharecaptioner", pair)[0])
    shown = Image.open(io.BytesIO(image)).convert("RGB")
    red, _, blue = shown.getpixel((32, 120))  # type: ignore[misc]
    assert blue > 200 > red
    assert shown.getpixel((32, 72)) == (255, 255, 255)


def test_layouts_are_those_of_the_released_code(data_root: Path) -> None:
    golden = json.loads((data_root / "golden" / "composition.json").read_text())
    for case in golden["tall_strip"]:
        strip = tuple(frames(case["frames"]))
        given = Fast(
            tuple(
                f.__class__(f.number, f.timestamp_s, picture("red", tuple(case["frame_wh"]))) for f in strip
            )
        )
        assert list(size_of(images_of(messages("sharecaptioner", given)[0])[0])) == case["out_wh"]
    for case in golden["grid"]:
        image = picture("red", tuple(case["frame_wh"]))
        brief = Brief(tuple(f.__class__(f.number, f.timestamp_s, image) for f in frames(case["frames"])))
        assert list(size_of(images_of(messages("sharecaptioner", brief)[0])[0])) == case["resized_wh"]


@pytest.mark.parametrize("role", [*INPUTS, *ADDED])
def test_teacher_sends_four_blocks_first_and_frames_as_they_are_stored(role: str) -> None:
    system, user = messages("teacher", (INPUTS | ADDED)[role])
    blocks = system["content"]
    order = [
        blocks.index(f"### {name}") for name in ("Character", "Skills", "Constraints", "Structured input")
    ]
    assert order == sorted(order)
    assert order[0] == 0
    expected = {
        "brief": FRAMES,
        "fast": FRAMES,
        "first": FRAMES[:1],
        "difference": (FRAMES[1], FRAMES[3]),
        "window": FRAMES[:3],
    }.get(role, ())
    assert images_of(user) == [frame.image for frame in expected]
    for frame in expected:
        assert f"Frame {frame.number} at {frame.timestamp_s:.2f} s:" in text_of(user)


def test_a_frame_is_byte_identical_in_both_calls_it_takes_part_in() -> None:
    calls = [messages("teacher", Difference(a, b, "x")) for a, b in zip(FRAMES, FRAMES[1:], strict=False)]
    shown = [[part for part in call[1]["content"] if part["type"] == "image_url"] for call in calls]
    assert shown[0][1] == shown[1][0]
    assert {call[0]["content"] for call in calls} == {calls[0][0]["content"]}


def test_a_note_keeps_to_its_line() -> None:
    assert text_of(messages("teacher", INPUTS["summary"])[1]).splitlines()[1] == (
        "Key frame 2 at 31.25 s: It rolls away."
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_prompt_gives_itself_away(dialect: Dialect) -> None:
    for given in INPUTS.values():
        said = "\n".join(
            m["content"] if isinstance(m["content"], str) else text_of(m) for m in messages(dialect, given)
        )
        if not isinstance(given, First) or dialect == "teacher":
            assert any(phrase in said for phrase in leaks(dialect)), said
        assert "  " not in said


@pytest.mark.parametrize("role", REFUSED)
def test_what_the_release_was_never_asked_is_refused(role: str) -> None:
    with pytest.raises(UserError, match=f"no role {role}: name a general model with dialect: teacher"):
        messages("sharecaptioner", ADDED[role])


@pytest.mark.parametrize("role", REFUSED)
def test_texts_are_all_the_added_roles_are_given(role: str) -> None:
    given = text_of(messages("teacher", ADDED[role])[1])
    assert (
        given
        == {
            "prompt": "A red ball rolls down a green hill.",
            "structured": "Key frame 1 at 0.00 s: A red ball.\nKey frame 2 at 31.25 s: It rolls away.",
        }[role]
    )


# The digests belong to the versions beside them: change both together. A role that is added has a digest of
# its own, because what was captioned in the others stays what it was.
DIGESTS = [
    ("sharecaptioner", "sharecaptioner-1", tuple(INPUTS), "d79c9b0b9aed"),
    ("teacher", "teacher-2", tuple(INPUTS), "db9e65d3c555"),
    ("teacher", "teacher-2", ("prompt",), "b82afe422267"),
    ("teacher", "teacher-2", ("structured",), "bfa9964f28d2"),
]


@pytest.mark.parametrize(("dialect", "version", "roles", "digest"), DIGESTS)
def test_a_changed_word_needs_a_changed_version(
    dialect: Dialect, version: str, roles: tuple[str, ...], digest: str
) -> None:
    every = INPUTS | ADDED
    said = [message for role in roles for message in messages(dialect, every[role])]
    words = [m["content"] if isinstance(m["content"], str) else text_of(m) for m in said]
    found = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
    assert (prompt_version(dialect), found) == (version, digest)
