"""What each role of the captioner is given. Prompts are made from these by a dialect, and by nothing else.

Frames are numbered from 1 and carry their true timestamps, in seconds from the start of the video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True)
class KeyFrame:
    """A key frame as it is stored: ``image`` is a JPEG or PNG file."""

    number: int
    timestamp_s: float
    image: bytes


@dataclass(frozen=True)
class TimedCaption:
    """The caption of one key frame: the full one of the first, then what changed."""

    number: int
    timestamp_s: float
    caption: str


@dataclass(frozen=True)
class Brief:
    """Uniform frames of a whole clip, for one sentence."""

    frames: tuple[KeyFrame, ...]


@dataclass(frozen=True)
class Fast:
    """All key frames at once, for a whole caption in one call."""

    frames: tuple[KeyFrame, ...]


@dataclass(frozen=True)
class First:
    """A single frame to describe in full: the first of a clip, or an anchor within it."""

    frame: KeyFrame


@dataclass(frozen=True)
class Difference:
    """Two adjacent key frames, and the differential caption of the earlier one."""

    previous: KeyFrame
    current: KeyFrame
    before: str


@dataclass(frozen=True)
class Summary:
    """All differential captions in order of time; no images."""

    captions: tuple[TimedCaption, ...]


@dataclass(frozen=True)
class Recaption:
    """A short generation prompt, to be made into a dense caption."""

    text: str


@dataclass(frozen=True)
class ShortPrompt:
    """A dense caption, to be made into the short generation prompt of such a video."""

    caption: str


@dataclass(frozen=True)
class Structured:
    """All differential captions in order of time, to be put into the fields of a JSON object; no images."""

    captions: tuple[TimedCaption, ...]


RoleInput = Brief | Fast | First | Difference | Summary | Recaption | ShortPrompt | Structured
