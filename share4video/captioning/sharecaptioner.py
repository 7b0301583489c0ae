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
    Part,
    Recaption,
    RoleInput,
    ShortPrompt,
    Span,
    Structured,
    Summary,
    TimedCaption,
    Window,
)
from share4video.errors import UserError
from share4video.media.compose import frame_grid, hd_transform, stacked_pair, tall_strip
from share4video.prompt_set import RoleName
from share4video.wording import TileBudgets

VERSION = "sharecaptioner-1"
JPEG_QUALITY = 95
MISSING: tuple[RoleName, ...] = ("prompt", "structured")

FIRST = "This is the first frame of a video, describe it in detail."
FAST = "Here are a few key frames of a video, discribe this video in detail."
SUMMARY_HEADER = "Summarize the following per frame descriptions:\n"
CONTEXT_HEADER = "These descriptions are of what happend before, do not summarize them:\n"  # ours
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
    "These descriptions are of what happend before",
    "Translate this brief generation prompt",
    "faithfully summarize the following video",
)


def difference_text(first: int, first_s: float, second: int, second_s: float, before: str) -> str:
    """Return the sliding prompt for frames ``first`` and ``second`` (numbers from 1, times in seconds).

    Without ``before`` the sentence on it is left out, which the release never does.
    """
    return (
        f"Here are the Video frame {first} at {first_s:.2f} Second(s) and Video frame {second} at "
        f"{second_s:.2f} Second(s) of a video, describe what happend between them.{_memory(before)}"
    )


def window_text(window: Window) -> str:
    """Return the prompt for several frames: ours, in the words of the sliding one, for the fast layout."""
    shown = [f"Video frame {frame.number} at {frame.timestamp_s:.2f} Second(s)" for frame in window.frames]
    return (
        f"Here are the {', '.join(shown[:-1])} and {shown[-1]} of a video, describe what happend between "
        f"them.{_memory(window.before)}"
    )


def summary_text(captions: Sequence[TimedCaption]) -> str:
    """Return the summary prompt: a header, then one line per frame."""
    return SUMMARY_HEADER + "".join(map(_line, captions))


def span_text(span: Span) -> str:
    """Return the prompt for a span: the summary of its own lines, after what happened before it (ours)."""
    before = CONTEXT_HEADER + "".join(map(_line, span.context)) if span.context else ""
    return before + summary_text(span.captions)


def _line(caption: TimedCaption) -> str:
    """Return a caption's line; what covers more than a change says from when to when, which is ours."""
    if caption.start_s is None:
        place = f"Video frame {caption.number} at {caption.timestamp_s:.2f} Second(s)"
    else:
        place = f"Video from {caption.start_s:.2f} to {caption.timestamp_s:.2f} Second(s)"
    return f"{place} description: {caption.caption}\n"


def _memory(before: str) -> str:
    return f" {HAPPENED_BEFORE}{before}" if before else ""


def recaption_text(text: str) -> str:
    """Return the prompt that asks for a detailed caption in the place of a short generation prompt."""
    return f"Translate this brief generation prompt into a detailed caption: {text}"


def messages(given: RoleInput, tiles: TileBudgets | None = None) -> list[Message]:
    """Return the chat messages of a role: one user message, the image before the text.

    Raises:
        UserError: the release has no such role; what it was never asked it would not answer.
    """
    return [{"role": "user", "content": [*picture(given, tiles), text_part(_text(given))]}]


def picture(given: RoleInput, tiles: TileBudgets | None = None) -> list[Message]:
    """Return the one image a role is shown, its frames in the released layout; no part for a text role.

    With ``tiles`` it is scaled and padded to whole tiles within the role's budget, as the release does before
    its model sees it; without, the server makes of it what it will.
    """
    composed = _composed(given)
    if composed is None:
        return []
    return [_image(composed if tiles is None else _tiled(composed, given, tiles))]


def example_picture(data: bytes, given: RoleInput, tiles: TileBudgets | None) -> Message:
    """Return a picture of an example, a file, as the role's own would be sent: it is composed already."""
    if tiles is None:
        return image_part(data)
    return _image(_tiled(Image.open(io.BytesIO(data)).convert("RGB"), given, tiles))


def _tiled(image: Image.Image, given: RoleInput, tiles: TileBudgets) -> Image.Image:
    alone = isinstance(given, First | Difference)
    return hd_transform(image, tiles.sliding if alone else tiles.fast, tiles.side)


def _composed(given: RoleInput) -> Image.Image | None:
    match given:
        case Brief(frames):
            return frame_grid([_open(frame) for frame in frames])
        case Fast(frames) | Window(frames):
            return tall_strip([_open(frame) for frame in frames])
        case First(frame):
            return _open(frame)
        case Difference(previous, current):
            return stacked_pair(_open(previous), _open(current))
        case _:
            return None


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
        case Window():
            return window_text(given)
        case Summary(captions) | Part(captions):
            return summary_text(captions)
        case Span():
            return span_text(given)
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
