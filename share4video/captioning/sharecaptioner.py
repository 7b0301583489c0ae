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
    Summary,
    TimedCaption,
)
from share4video.media.compose import frame_grid, stacked_pair, tall_strip

VERSION = "sharecaptioner-1"
JPEG_QUALITY = 95

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
    """Return the chat messages of a role: one user message, the image before the text."""
    match given:
        case Brief(frames):
            return [_user(BRIEF, frame_grid([_open(frame) for frame in frames]))]
        case Fast(frames):
            return [_user(FAST, tall_strip([_open(frame) for frame in frames]))]
        case First(frame):
            return [_user(FIRST, _open(frame))]
        case Difference(previous, current, before):
            text = difference_text(
                previous.number, previous.timestamp_s, current.number, current.timestamp_s, before
            )
            return [_user(text, stacked_pair(_open(previous), _open(current)))]
        case Summary(captions):
            return [_user(summary_text(captions))]
        case Recaption(text):
            return [_user(recaption_text(text))]
        case _:
            assert_never(given)


def _user(text: str, image: Image.Image | None = None) -> Message:
    parts = [] if image is None else [image_part(encode_jpeg(image))]
    return {"role": "user", "content": [*parts, text_part(text)]}


def _open(frame: KeyFrame) -> Image.Image:
    return Image.open(io.BytesIO(frame.image)).convert("RGB")


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode a composed image; colour is kept at full resolution, because small objects are told by it."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return sink.getvalue()
