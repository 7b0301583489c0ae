"""The released ShareCaptioner-Video's own prompts and layouts (captioner/app.py of the release).

The misspellings are the release's and probably its training data's: they stay, byte for byte. Times are
printed with two decimals, where the release multiplied the frame's index by two.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import assert_never

from PIL import Image

from share4video.captioning.client import image_part, text_part
from share4video.captioning.role_inputs import (
    Brief,
    Difference,
    Fast,
    First,
    KeyFrame,
    Message,
    Recaption,
    RoleInput,
    ShortPrompt,
    Structured,
    Summary,
    TimedCaption,
)
from share4video.errors import UserError
from share4video.media.compose import frame_grid, stacked_pair, tall_strip
from share4video.prompt_set import RoleName

VERSION = "sharecaptioner-1"
JPEG_QUALITY = 95
MISSING: tuple[RoleName, ...] = ("prompt", "structured")

FIRST = "This is the first frame of a video, describe it in detail."
FAST = "Here are a few key frames of a video, discribe this video in detail."
SUMMARY_HEADER = "Summarize the following per frame descriptions:\n"
# The release has no such role. The wording is Panda-Student's, which the paper used for this step.
BRIEF = "Please faithfully summarize the following video in one sentence."

HAPPENED_BEFORE = "What happend before is: "

# What only a prompt would say: a caption with one of these in it has the prompt in it.
LEAKS = (
    "describe it in detail",
    "describe what happend between them",
    HAPPENED_BEFORE.strip(),
    "discribe this video in detail",
    "Summarize the following per frame descriptions",
    "Translate this brief generation prompt",
    "faithfully summarize the following video",
)


def difference_text(first: int, first_s: float, second: int, second_s: float, before: str) -> str:
    """Return the sliding prompt for frames ``first`` and ``second`` (numbers from 1, times in seconds)."""
    return (
        f"Here are the Video frame {first} at {first_s:.2f} Second(s) and Video frame {second} at "
        f"{second_s:.2f} Second(s) of a video, describe what happend between them. "
        f"{HAPPENED_BEFORE}{before}"
    )


def summary_text(captions: Sequence[TimedCaption]) -> str:
    """Return the summary prompt: a header, then one line per frame."""
    lines = (
        f"Video frame {c.number} at {c.timestamp_s:.2f} Second(s) description: {c.caption}\n"
        for c in captions
    )
    return SUMMARY_HEADER + "".join(lines)


def recaption_text(text: str) -> str:
    """Return the prompt that asks for a detailed caption in the place of a short generation prompt."""
    return f"Translate this brief generation prompt into a detailed caption: {text}"


def messages(given: RoleInput) -> list[Message]:
    """Return the chat messages of a role: one user message, the image before the text.

    Raises:
        UserError: the release has no such role; what it was never asked it would not answer.
    """
    return [{"role": "user", "content": [*picture(given), text_part(_text(given))]}]


def picture(given: RoleInput) -> list[Message]:
    """Return the one image a role is shown, its frames in the released layout; no part for a text role."""
    match given:
        case Brief(frames):
            return [_image(frame_grid([_open(frame) for frame in frames]))]
        case Fast(frames):
            return [_image(tall_strip([_open(frame) for frame in frames]))]
        case First(frame):
            return [_image(_open(frame))]
        case Difference(previous, current):
            return [_image(stacked_pair(_open(previous), _open(current)))]
        case _:
            return []


def _text(given: RoleInput) -> str:
    match given:
        case Brief():
            return BRIEF
        case Fast():
            return FAST
        case First():
            return FIRST
        case Difference(previous, current, before):
            return difference_text(
                previous.number, previous.timestamp_s, current.number, current.timestamp_s, before
            )
        case Summary(captions):
            return summary_text(captions)
        case Recaption(text):
            return recaption_text(text)
        case ShortPrompt():
            raise missing_role("prompt")
        case Structured():
            raise missing_role("structured")
        case _:
            assert_never(given)


def missing_role(role: RoleName, *, where: str = "") -> UserError:
    """Return what to tell a person who wants a role that the release does not have."""
    fix = "name a general model with dialect: teacher, or give prompts of your own for the role"
    return UserError(f"the sharecaptioner prompts have no role {role}", where=where, fix=fix)


def _image(image: Image.Image) -> Message:
    return image_part(encode_jpeg(image))


def _open(frame: KeyFrame) -> Image.Image:
    return Image.open(io.BytesIO(frame.image)).convert("RGB")


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode a composed image; colour is kept at full resolution, because small objects are told by it."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return sink.getvalue()
