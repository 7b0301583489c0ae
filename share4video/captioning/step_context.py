"""What the answer to a step of a clip's captioning is held against."""

from __future__ import annotations

from collections.abc import Sequence

from share4video.captioning.checks import CheckContext
from share4video.captioning.differential import Step
from share4video.captioning.roles import Dialect, leaks
from share4video.config import ChecksConfig


def context_of(
    step: Step, timestamps_s: Sequence[float], dialect: Dialect, config: ChecksConfig
) -> CheckContext:
    """Return what the checks need to know.

    A model may call the two frames of a difference the first and the second, whatever their numbers; the
    released layout counts the frames of the fast role from 0.

    Args:
        timestamps_s: of the clip's key frames. The last of them is the latest time a model can know of.
    """
    number, last = step.frame + 1, len(timestamps_s)
    before, notes, frames = "", tuple[str, ...](), frozenset(range(last + 1))
    span_s = timestamps_s[0], timestamps_s[-1]
    match step.kind:
        case "first" | "anchor":
            span_s, frames = (timestamps_s[step.frame],) * 2, frozenset((1, number))
        case "difference":
            span_s = timestamps_s[step.frame - 1], timestamps_s[step.frame]
            frames = frozenset((1, 2, number - 1, number))
            before = step.before
        case "summary":
            notes = tuple(note.caption for note in step.captions)
    return CheckContext(config, leaks(dialect), span_s, frames, before, notes)
