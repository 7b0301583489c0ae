"""Times and frame numbers a caption names, against those it can know of.

High precision: a number counts only where the words around it say that it is a time of the video or the
number of a frame. What is quoted never counts, nor do the times of a sentence about a clock or a score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from share4video.captioning.quoted import without_quotes

_SECONDS = r"(?P<{0}>\d{{1,5}}(?:\.\d+)?)\s*-?(?:s|secs?|seconds?)\b"
_CLOCK = r"(?:\d{1,2}:)?\d{1,2}:\d{2}(?:\.\d+)?"
_NO_TIME_AFTER = (
    r"(?!\s+(?:per|remaining|left|each|later|ago|apart|intervals?|to go|on the|of the (?:game|match)))"
)
_NAMED_SECONDS = (
    rf"\bat\s+(?:about\s+|around\s+|approximately\s+|the\s+)?{_SECONDS.format('a')}{_NO_TIME_AFTER}",
    rf"\b(?:from|between)\s+(?P<b>\d{{1,5}}(?:\.\d+)?)\s*(?:s|secs?|seconds?)?\s+(?:to|and)\s+"
    rf"{_SECONDS.format('c')}{_NO_TIME_AFTER}",
    rf"\b{_SECONDS.format('d')}\s+(?:mark|into the (?:video|clip|film|footage))\b",
    rf"\btimestamps?:?\s+(?:of\s+)?{_SECONDS.format('e')}",
)
_NAMED_CLOCK = (
    rf"\bat\s+(?P<f>{_CLOCK})(?![:\d]|\s*(?:[ap]\.?m\b|o'clock|hours?\b))",
    rf"\b(?:from|between)\s+(?P<g>{_CLOCK})\s+(?:to|and)\s+(?P<h>{_CLOCK})(?!\s*(?:[ap]\.?m\b|hours?\b))",
    rf"[\[(](?P<i>{_CLOCK})(?:\s*[-\u2013]\s*(?P<j>{_CLOCK}))?[\])]",
)
_TIME = re.compile("|".join((*_NAMED_SECONDS, *_NAMED_CLOCK)), re.IGNORECASE)
# A sentence with one of these may name times of the world.
_WORLD_TIME = re.compile(
    r"\b(?:clock|watch|timer|stopwatch|countdown|score(?:board)?|display(?:s|ed|ing)?|reads?|reading|text|sign|"
    r"overlay|subtitle|caption|schedule|phone|screen shows|departs?|arriv\w+|morning|afternoon|evening|night|"
    r"noon|midnight|opens at|closes at|starts at|interval|record|lap|race|verse|chapter|speed)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_FRAME = re.compile(
    r"\b(?:video |key ?)?(?:frame|image) (?:number |no\. ?|#)?(?P<number>\d{1,6})\b"
    r"(?!\.\d|\s*(?:x\b|by\b|feet|foot|ft\b|in\b\.|inch|m\b|cm\b|mm\b|met(?:er|re)|second|fps|people|persons?))",
    re.IGNORECASE,
)


def named_times(text: str) -> list[float]:
    """Return the times of the video that a text names, in seconds and in the order of the text."""
    times: list[float] = []
    for sentence in _SENTENCE.split(without_quotes(text)):
        if not _WORLD_TIME.search(sentence):
            times.extend(_times_of(sentence))
    return times


def _times_of(sentence: str) -> Iterator[float]:
    for match in _TIME.finditer(sentence):
        for value in match.groups():
            if value is not None:
                hours_to_seconds = [float(part) for part in value.split(":")]
                yield sum(part * 60**power for power, part in enumerate(reversed(hours_to_seconds)))


def named_frames(text: str) -> set[int]:
    """Return the numbers of frames that a text names."""
    return {int(match["number"]) for match in _FRAME.finditer(without_quotes(text))}


def out_of_span(text: str, start_s: float, end_s: float, slack_s: float) -> bool:
    """Whether the text names a time outside of what it is about.

    A time that may have been counted from the beginning of the span is not held against it.
    """
    return any(
        time_s > end_s + slack_s or (end_s - start_s) + slack_s < time_s < start_s - slack_s
        for time_s in named_times(text)
    )


def unknown_frames(text: str, known: Set[int]) -> bool:
    """Whether the text names a frame by a number that none of those it is about has."""
    return bool(named_frames(text) - known)
