"""Our own prompts for strong general models: four blocks, frames as separate images.

The blocks are those the paper names (Figs. 7 and 8): character, skills, constraints, structured input; its
wording was not published, this one is ours. The first three are the same in every call of a role and stand
first, and a frame goes byte for byte as it is stored in both calls it takes part in, so that a server's
prefix and image caches can be of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

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
from share4video.prompt_set import RoleName, fill

VERSION = "teacher-2"

_PROSE = (
    "Write plain prose in English, in whole sentences and in order of importance; no lists, no headings, no "
    "preamble. State only what can be seen. Leave out what you are not sure of instead of hedging, and do "
    "not mention frames, images, prompts or these instructions."
)


def _blocks(character: str, skills: str, constraints: str, structured_input: str) -> str:
    return (
        f"### Character\n{character}\n### Skills\n{skills}\n### Constraints\n{constraints}\n"
        f"### Structured input\n{structured_input}"
    )


_FIRST = _blocks(
    "You are an expert in the analysis of video frames.",
    "You describe a frame so that it could be drawn from your words: the place and its light; every person, "
    "animal and object with number, colour, size, position and what it is doing; legible text; the camera's "
    "distance and angle.",
    _PROSE,
    "One frame of a video, with its number and its time in seconds.",
)

_DIFFERENCE = _blocks(
    "You are an expert in the analysis of video frames who notices what changes from one to the next.",
    "You compare two frames of one video and describe what happened between them: actions and behaviour of "
    "persons, animals and objects and the direction of their motion; what appears, disappears or changes its "
    "look; changes of the place and background; motion of the camera (pan, tilt, zoom, cut). You use the "
    "account of what happened before to call the same thing by the same name.",
    f"{_PROSE} Describe the change; do not repeat what stayed as it was, nor what the account already says. "
    "If nothing changed, say so in one sentence.",
    "The earlier frame, then the later one, each with its number and its time in seconds, and the account of "
    "what happened up to the earlier frame.",
)

_DIFFERENCE_ALONE = _blocks(
    "You are an expert in the analysis of video frames who notices what changes from one to the next.",
    "You compare two frames of one video and describe what happened between them: actions and behaviour of "
    "persons, animals and objects and the direction of their motion; what appears, disappears or changes its "
    "look; changes of the place and background; motion of the camera (pan, tilt, zoom, cut).",
    f"{_PROSE} Describe the change; do not repeat what stayed as it was. If nothing changed, say so in one "
    "sentence.",
    "The earlier frame, then the later one, each with its number and its time in seconds.",
)

_WINDOW = _blocks(
    "You are an expert in the analysis of video frames who notices what changes from one to the next.",
    "You follow several frames of one video and describe what happened from the first to the last: actions "
    "and behaviour of persons, animals and objects and the direction of their motion; what appears, "
    "disappears or changes its look; changes of the place and background; motion of the camera (pan, tilt, "
    "zoom, cut). You use the account of what happened before to call the same thing by the same name.",
    f"{_PROSE} Tell the changes in the order in which they happen; do not repeat what stayed as it was, nor "
    "what the account already says. If nothing changed, say so in one sentence.",
    "The frames in order of time, each with its number and its time in seconds, and, where there is one, the "
    "account of what happened up to the first.",
)

_NOTES_TOLD = (
    "You are given notes on a video in order of time. Each tells either what is seen at its time, as the "
    "first always does and one after a cut, or what changed since the note before."
)

_PART = _blocks(
    "You are an expert in turning notes about a video into one account of it.",
    "You are given the notes on one part of a long video: full descriptions of what is seen at a time, and "
    "what changed since. You write the account of this part, from which the whole video will be summed up.",
    f"{_PROSE} Keep every action and every change, in the order in which they happen, and say for each at "
    "what second it happens. Merge what is said twice. Where two notes contradict each other, follow the "
    "later one. Add nothing that is in no note.",
    "One note per line: its time in seconds, or from when to when it holds, and the note.",
)

_SPAN = _blocks(
    "You are an expert in turning notes about a video into an account of one stretch of it.",
    "You are given notes on what came before the stretch, and then the notes on the stretch itself. You "
    "write the caption of the stretch alone: setting, subjects and their looks, then all that happens in it, "
    "in order of time, with the motion of the camera.",
    f"{_PROSE} What came before only tells you what the subjects are and how they look: tell no action that "
    "is over before the stretch begins. Where two notes contradict each other, follow the later one. Add "
    "nothing that is in no note.",
    "The stretch in seconds; the notes on what came before; the notes on the stretch, one per line.",
)

_SUMMARY = _blocks(
    "You are an expert in turning notes about a video into one account of it.",
    f"{_NOTES_TOLD} You write the caption of the whole video: setting, subjects and their looks, then "
    "all that happens, in order of time, with the motion of the camera.",
    f"{_PROSE} Keep every action and every change, and the order in which they happen. Merge what is said "
    "twice. Where two notes contradict each other, follow the later one. Add nothing that is in no note.",
    "One note per line: the number of the key frame, its time in seconds, the note.",
)

_FAST = _blocks(
    "You are an expert in describing videos.",
    "You are given the key frames of one video in order of time. You describe the whole video: setting, "
    "subjects and their looks, then all that happens, in order of time, with the motion of the camera.",
    _PROSE,
    "The key frames, each with its number and its time in seconds.",
)

_BRIEF = _blocks(
    "You are an expert in describing videos.",
    "You say in one sentence what a video shows, from a few of its frames in order of time.",
    "Exactly one sentence in English of at most thirty words: who or what, doing what, where. No preamble.",
    "The frames, each with its number and its time in seconds.",
)

_RECAPTION = _blocks(
    "You are an expert in writing detailed captions for text-to-video models.",
    "You turn a short prompt into the dense caption of the video it asks for: setting, subjects and their "
    "looks, what happens in order of time, the motion of the camera.",
    f"{_PROSE} Keep everything the prompt asks for; what you add must fit it.",
    "The short prompt.",
)

_PROMPT = _blocks(
    "You are an expert in writing prompts for text-to-video models.",
    "You turn the detailed caption of a video into the short prompt from which a person would have had it "
    "made: the subject, what it does, where, and the camera or the style where they matter.",
    "One or two sentences in English of at most forty words together, no list, no quotation marks, no "
    "preamble. Name only what the caption says, the most telling first, and leave out what a person would "
    "leave to the model.",
    "The detailed caption.",
)

_STRUCTURED = _blocks(
    "You are an expert in turning notes about a video into one record of it.",
    f"{_NOTES_TOLD} You write a JSON object with these fields: setting, a text, the place and its "
    'light; subjects, a list of {"name", "looks"}; actions, a list of {"subject", "action", "start_s", '
    '"end_s"}; camera, a list of {"motion", "start_s", "end_s"}; spans, a list of {"caption", "start_s", '
    '"end_s"} that divides the video into what happens one after another.',
    "Answer with the JSON object alone, every field present, a list empty where there is nothing for it. "
    "Name a subject in an action as it is named among the subjects. Times are numbers in seconds, none "
    "before the first note and none after the last. Add nothing that is in no note.",
    "One note per line: the number of the key frame, its time in seconds, the note.",
)

SYSTEM: dict[RoleName, str] = {
    "brief": _BRIEF,
    "fast": _FAST,
    "first": _FIRST,
    "difference": _DIFFERENCE,
    "window": _WINDOW,
    "part": _PART,
    "span": _SPAN,
    "summary": _SUMMARY,
    "recaption": _RECAPTION,
    "prompt": _PROMPT,
    "structured": _STRUCTURED,
}
FRAME_LABEL = "Frame {number} at {time_s} s:"
NOTE = "Key frame {number} at {time_s} s: {caption}"
_LONG_NOTE = "From {time_s} s: {caption}"

LEAKS = (
    "### Character",
    "### Skills",
    "### Constraints",
    "### Structured input",
    "expert in the analysis of video frames",
)


def messages(given: RoleInput) -> list[Message]:
    """Return the chat messages of a role: the stable blocks as system message, then the input."""
    match given:
        case Brief(frames):
            return _conversation("brief", labelled(frames))
        case Fast(frames):
            return _conversation("fast", labelled(frames))
        case First(frame):
            return _conversation("first", labelled([frame]))
        case Difference(previous, current, before):
            system = SYSTEM["difference"] if before else _DIFFERENCE_ALONE
            return _turns(system, [*labelled([previous, current]), *_account(previous, before)])
        case Window(frames, before):
            return _conversation("window", [*labelled(frames), *_account(frames[0], before)])
        case Part(captions):
            return _conversation("part", [text_part(notes(captions))])
        case Span(start_s, end_s, context, captions):
            before = f"What came before:\n{notes(context)}\n" if context else ""
            stretch = f"The stretch from {start_s:.2f} s to {end_s:.2f} s.\n"
            told = f"{stretch}{before}Notes on the stretch:\n{notes(captions)}"
            return _conversation("span", [text_part(told)])
        case Summary(captions):
            return _conversation("summary", [text_part(notes(captions))])
        case Recaption(text):
            return _conversation("recaption", [text_part(text)])
        case ShortPrompt(caption):
            return _conversation("prompt", [text_part(caption)])
        case Structured(captions):
            return _conversation("structured", [text_part(notes(captions))])
        case _:
            assert_never(given)


def _conversation(role: RoleName, content: Sequence[Message]) -> list[Message]:
    return _turns(SYSTEM[role], content)


def _turns(system: str, content: Sequence[Message]) -> list[Message]:
    return [{"role": "system", "content": system}, {"role": "user", "content": list(content)}]


def _account(frame: KeyFrame, before: str) -> list[Message]:
    return [text_part(f"What happened up to frame {frame.number}: {before}")] if before else []


def labelled(frames: Sequence[KeyFrame], label: str = FRAME_LABEL) -> list[Message]:
    """Return frames as separate images, each after its label (placeholders ``number`` and ``time_s``)."""
    parts: list[Message] = []
    for frame in frames:
        told = {"number": str(frame.number), "time_s": f"{frame.timestamp_s:.2f}"}
        parts += [text_part(fill(label, told)), image_part(frame.image)]
    return parts


def notes(captions: Sequence[TimedCaption], line: str | None = None) -> str:
    """Return captions as one line each (placeholders ``number``, ``time_s`` and ``caption``).

    ``time_s`` of what covers more than a change says from when to when.
    """
    return "\n".join(
        fill(
            line or (NOTE if c.start_s is None else _LONG_NOTE),
            {"number": str(c.number), "time_s": told_time(c), "caption": " ".join(c.caption.split())},
        )
        for c in captions
    )


def told_time(caption: TimedCaption) -> str:
    """Return a caption's time as prompts print it: ``4.00``, or ``0.00 s to 4.00`` of a window or a part."""
    begun = "" if caption.start_s is None else f"{caption.start_s:.2f} s to "
    return f"{begun}{caption.timestamp_s:.2f}"
