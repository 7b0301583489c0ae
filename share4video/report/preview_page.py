"""The page of a preview: key frames, and every call with the exact prompt and answer."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from share4video.captioning.client import Completion
from share4video.captioning.engine import identity
from share4video.captioning.preview import Preview, PreviewCall, PreviewClip
from share4video.captioning.roles import prompt_version
from share4video.report.pictures import Thumbnail, thumbnail
from share4video.report.run_tables import shortened
from share4video.report.writing import page_environment

MAX_PICTURE_BYTES = 16 << 20  # of all data addresses together
MAX_FRAMES = 24
_SENT_SIDE = 640  # pixels: enough to see the layout of what was sent
_MAX_TEXT = 100_000


@dataclass(frozen=True)
class Part:
    """A piece of a message: a text, or a picture; neither where there was no more room for one."""

    text: str = ""
    picture: Thumbnail | None = None


@dataclass(frozen=True)
class Turn:
    """A message as it was sent."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Shot:
    """A key frame and what was said of it."""

    time_s: float
    picture: Thumbnail | None
    caption: str
    failed: tuple[str, ...]


class _Room:
    """Makes pictures small until the page is full of them."""

    def __init__(self, size: int) -> None:
        self._left = size

    def picture(self, data: bytes, max_side: int) -> Thumbnail | None:
        found = thumbnail(data, max_side) if self._left > 0 else None
        self._left -= len(found.uri) if found else 0
        return found


def render_preview(preview: Preview, *, title: str = "Preview") -> str:
    """Return the page, self-contained."""
    calls = [call for clip in preview.clips for call in clip.calls]
    answered = [call.outcome for call in calls if isinstance(call.outcome, Completion)]
    room = _Room(MAX_PICTURE_BYTES)
    strips = [_strip(clip, room) for clip in preview.clips]  # before the room goes to what was sent
    template = page_environment().get_template("preview.html.j2")
    return template.render(
        title=title,
        preview=preview,
        strips=strips,
        turns=[[_turns(call, room) for call in clip.calls] for clip in preview.clips],
        whole=[
            {role: text for role, text in clip.captions.items() if not role.startswith("frame ")}
            for clip in preview.clips
        ],
        engines=[
            (role, identity(spec), prompt_version(spec.wording))
            for role, spec in (("captioner", preview.captioner), ("summarizer", preview.summarizer))
        ],
        calls=len(calls),
        failed=sum(bool(call.failed) or not isinstance(call.outcome, Completion) for call in calls),
        seconds=statistics.median(call.seconds for call in calls) if calls else 0.0,
        tokens_in=sum(answer.prompt_tokens for answer in answered),
        tokens_out=sum(answer.completion_tokens for answer in answered),
        is_answer=lambda outcome: isinstance(outcome, Completion),
        shortened=lambda text: shortened(text, _MAX_TEXT),
    )


def _strip(clip: PreviewClip, room: _Room) -> Sequence[Shot]:
    shots = []
    for frame in clip.frames[:MAX_FRAMES]:
        caption = clip.captions.get(f"frame {frame.number}")
        said = (caption.text, caption.failed) if caption else ("", ())
        shots.append(Shot(frame.timestamp_s, room.picture(frame.image, 160), *said))
    return shots


def _turns(call: PreviewCall, room: _Room) -> list[Turn]:
    turns = []
    for message in call.request.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append(Turn(message["role"], tuple(_part(part, room) for part in parts)))
    return turns


def _part(part: Mapping[str, Any], room: _Room) -> Part:
    if part["type"] == "text":
        return Part(shortened(str(part["text"]), _MAX_TEXT))
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return Part(picture=room.picture(data, _SENT_SIDE))
