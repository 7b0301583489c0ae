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
    """A key frame as it is stored.

    Attributes:
        image: a JPEG or PNG file.
        similarity: to the key frame before it, where they were compared.
    """

    number: int
    timestamp_s: float
    image: bytes
    similarity: float | None = None


@dataclass(frozen=True)
class TimedCaption:
    """The caption of one key frame: the full one of the first, then what changed.

    Attributes:
        number: of its key frame; of what covers more than a change, the last one.
        timestamp_s: of that key frame.
        start_s: where it begins, of what covers more than a change: a window, a part.
    """

    number: int
    timestamp_s: float
    caption: str
    start_s: float | None = None


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
    """Two adjacent key frames, and the differential caption of the earlier one; "" for none (no memory)."""

    previous: KeyFrame
    current: KeyFrame
    before: str


@dataclass(frozen=True)
class Window:
    """Three adjacent key frames or more, and the caption of the first of them; "" for none (no memory)."""

    frames: tuple[KeyFrame, ...]
    before: str


@dataclass(frozen=True)
class Part:
    """Consecutive captions of a video that is too long to be summed up at once; no images."""

    captions: tuple[TimedCaption, ...]


@dataclass(frozen=True)
class Span:
    """A stretch of a video: the captions that lead up to it, and those of the stretch itself; no images."""

    start_s: float
    end_s: float
    context: tuple[TimedCaption, ...]
    captions: tuple[TimedCaption, ...]


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


RoleInput = (
    Brief | Fast | First | Difference | Window | Part | Span | Summary | Recaption | ShortPrompt | Structured
)
