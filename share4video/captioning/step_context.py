"""What the answer to a step of a clip's captioning is held against."""

from __future__ import annotations

from share4video.captioning.checks import CheckContext
from share4video.captioning.differential import Step
from share4video.captioning.roles import Wording, leaks
from share4video.config import ChecksConfig


def context_of(
    step: Step, span_s: tuple[float, float], frames: int, wording: Wording, config: ChecksConfig
) -> CheckContext:
    """Return what the checks need to know.

    A model may call the frames of a difference or a window the first, the second and so on, whatever their
    numbers; the released layout counts the frames of the fast role from 0.

    Args:
        span_s: from when to when the answer may tell. The last key frame is the latest time a model can know
            of.
        frames: how many key frames the clip has.
    """
    number, before, notes = step.frame + 1, "", tuple[str, ...]()
    match step.kind:
        case "first" | "anchor":
            numbers = frozenset((1, number))
        case "difference":
            numbers, before = frozenset((1, 2, number - 1, number)), step.before
        case "window":
            own = range(step.since + 1, number + 1)
            numbers, before = frozenset((*own, *range(1, len(own) + 1))), step.before
        case "part" | "summary" | "fast":
            numbers = frozenset(range(frames + 1))
            notes = tuple(note.caption for note in step.captions)
    return CheckContext(config, leaks(wording), span_s, numbers, before, notes)
