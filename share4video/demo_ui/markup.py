"""The page's own HTML. All that comes from a file, a visitor or a model is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Literal

from share4video.captioning.clip import SpanCaption
from share4video.demo_ui.captions import is_full
from share4video.demo_ui.pictures import thumbnail
from share4video.errors import UserError

_THUMBNAIL_SIDE = 176
_CHECKS = "failed checks"


def notice(text: str, kind: Literal["info", "error"] = "info") -> str:
    """Return a line that says what is the matter; nothing where there is nothing to say."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<div class="s4v-notice s4v-{kind}" role="{role}">{_text(text)}</div>'


def complaint(error: UserError) -> str:
    """Return what a person did wrong, or what is wrong with a model, as a notice."""
    sentence = error.sentence()
    return notice(sentence[:1].upper() + sentence[1:], "error")


def caption_row(caption: SpanCaption, image: bytes) -> str:
    """Return one key frame's caption: thumbnail, time, text. Rows are put one after the other.

    Args:
        image: the key frame, a JPEG or PNG file.
    """
    picture = base64.b64encode(thumbnail(image, _THUMBNAIL_SIDE)).decode("ascii")
    what = "described in full" if is_full(caption) else "what changed"
    marks = [f"key frame {caption.number}", what]
    if caption.fallback:
        marks.append("fallback")
    if caption.checks:
        marks.append(f"{_CHECKS}: {', '.join(caption.checks)}")
    time = clock(caption.end_s) if is_full(caption) else f"{clock(caption.start_s)} to {clock(caption.end_s)}"
    return (
        '<article class="s4v-caption">'
        f'<img src="data:image/jpeg;base64,{picture}" alt="key frame {caption.number}">'
        f'<div><div class="s4v-when"><b>{time}</b> <span>{_text(" · ".join(marks))}</span></div>'
        f"<p>{_text(caption.caption)}</p></div></article>"
    )


def whole_caption(title: str, text: str, *, checks: Sequence[str] = (), note: str = "") -> str:
    """Return a caption of a clip, a span or a prompt."""
    marks = " · ".join(part for part in (note, f"{_CHECKS}: {', '.join(checks)}" if checks else "") if part)
    return (
        f'<article class="s4v-whole"><div class="s4v-when"><b>{_text(title)}</b> <span>{_text(marks)}</span>'
        f"</div><p>{_text(text)}</p></article>"
    )


def heading(text: str) -> str:
    """Return a line that says what follows."""
    return f'<div class="s4v-hint">{_text(text)}</div>'


def facts(text: str) -> str:
    """Return a file in a few words."""
    return f'<div class="s4v-facts">{_text(text)}</div>' if text else ""


def clock(seconds: float) -> str:
    """Return a time as a player shows it, with tenths."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def _text(text: str) -> str:
    return escape(text).replace("\n", "<br>")
