"""A person's own prompts (`share4video.prompt_set`) as chat messages, over one of the two dialects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import assert_never

from share4video.captioning import sharecaptioner, teacher
from share4video.captioning.client import text_part
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
from share4video.prompt_set import PromptSet, RoleName, RolePrompt, fill, own_words
from share4video.wording import TileBudgets

_LEAK_WORDS = 6  # a phrase this long that a caption shares with a prompt is no accident

ROLES: dict[type[RoleInput], RoleName] = {
    Brief: "brief",
    Fast: "fast",
    First: "first",
    Difference: "difference",
    Window: "window",
    Part: "part",
    Span: "span",
    Summary: "summary",
    Recaption: "recaption",
    ShortPrompt: "prompt",
    Structured: "structured",
}


def messages(prompts: PromptSet, given: RoleInput, tiles: TileBudgets | None = None) -> list[Message] | None:
    """Return the chat messages of a role: system, the examples as earlier turns, the input, its text.

    None where the role has no prompt of its own.
    """
    role = ROLES.get(type(given))
    own = prompts.roles.given().get(role) if role else None
    if own is None or role is None:
        return None
    base_system = teacher.SYSTEM[role] if prompts.base == "teacher" else ""
    system = base_system if own.system is None else own.system
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    for example in own.examples:
        shown = [sharecaptioner.example_picture(data, given, tiles) for data in example.pictures()]
        said = [text_part(example.user)] if example.user else []
        turns.append({"role": "user", "content": [*shown, *said]})
        turns.append({"role": "assistant", "content": example.assistant})
    text = text_part(fill(own.user, _values(given, own)))
    return [*turns, {"role": "user", "content": [*_pictures(prompts, own, given, tiles), text]}]


def _pictures(
    prompts: PromptSet, own: RolePrompt, given: RoleInput, tiles: TileBudgets | None
) -> list[Message]:
    if prompts.base == "sharecaptioner":
        return sharecaptioner.picture(given, tiles)
    return teacher.labelled(_frames(given), own.each or teacher.FRAME_LABEL)


def _frames(given: RoleInput) -> tuple[KeyFrame, ...]:
    match given:
        case Brief(frames) | Fast(frames) | Window(frames):
            return frames
        case First(frame):
            return (frame,)
        case Difference(previous, current):
            return (previous, current)
        case _:
            return ()


def _values(given: RoleInput, own: RolePrompt) -> Mapping[str, str]:
    """Return what the role's placeholders stand for."""
    match given:
        case Brief(frames) | Fast(frames):
            return {"count": str(len(frames)), "times_s": ", ".join(_time(f) for f in frames)}
        case First(frame):
            return {"number": str(frame.number), "time_s": _time(frame)}
        case Difference(previous, current, before):
            earlier = {"previous_number": str(previous.number), "previous_time_s": _time(previous)}
            return {**earlier, "number": str(current.number), "time_s": _time(current), "before": before}
        case Window(frames, before):
            several = {"count": str(len(frames)), "times_s": ", ".join(_time(f) for f in frames)}
            return several | {"before": before}
        case Part(captions):
            return _told(captions, own) | _ends(captions)
        case Span(start_s, end_s, context, captions):
            stretch = {"start_s": f"{start_s:.2f}", "end_s": f"{end_s:.2f}"}
            return _told(captions, own) | stretch | {"context": teacher.notes(context, own.each)}
        case Summary(captions):
            return _told(captions, own)
        case Recaption(text):
            return {"text": text}
        case ShortPrompt(caption):
            return {"caption": caption}
        case Structured(captions):
            return _told(captions, own) | _ends(captions)
        case _:
            assert_never(given)


def _told(captions: tuple[TimedCaption, ...], own: RolePrompt) -> dict[str, str]:
    return {"captions": teacher.notes(captions, own.each), "count": str(len(captions))}


def _ends(captions: tuple[TimedCaption, ...]) -> dict[str, str]:
    first, last = captions[0], captions[-1]
    start_s = first.timestamp_s if first.start_s is None else first.start_s
    return {"start_s": f"{start_s:.2f}", "end_s": f"{last.timestamp_s:.2f}"}


def _time(of: KeyFrame) -> str:
    return f"{of.timestamp_s:.2f}"


@cache
def version(prompts: PromptSet) -> str:
    """Return the set's name and a hash of all it says, pictures and the base's version included."""
    base = teacher.VERSION if prompts.base == "teacher" else sharecaptioner.VERSION
    content = f"{base}\0{prompts.model_dump_json(exclude_defaults=True)}"
    return f"{prompts.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


@cache
def leaks(prompts: PromptSet) -> tuple[str, ...]:
    """Return the base's phrases, and every line of an own prompt that is too long to be said by accident."""
    found = dict.fromkeys(teacher.LEAKS if prompts.base == "teacher" else sharecaptioner.LEAKS)
    for own in prompts.roles.given().values():
        for text in (own.system or "", *own_words(own.user)):
            lines = (line.strip() for line in text.splitlines())
            found |= dict.fromkeys(line for line in lines if len(line.split()) >= _LEAK_WORDS)
    return tuple(found)
